"""Shards of a dataset as local files for as long as they are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import InputError
from shards.hashes import file_sha256
from shards.schema import ShardInfo
from shards.scratch import scratch
from shards.store import Place


@contextmanager
def brought(folder: Place, *shards: ShardInfo) -> Iterator[Path]:
    """A local folder that holds shards of a dataset under their names: the dataset's own, or one with copies, compared
    with dataset.json, which goes with the block.

    Raises:
        InputError: the store has not what dataset.json says, or refuses, or can't be reached.
    """
    if isinstance(folder, Path):
        yield folder
        return
    with scratch() as here:
        for shard in shards:
            _fetch(folder, shard, here / shard.name)
        yield here


def _fetch(folder: Place, shard: ShardInfo, file: Path) -> None:
    assert not isinstance(folder, Path)
    file.parent.mkdir(parents=True, exist_ok=True)
    address, remedy = folder / shard.name, "make the shard again, or put it back"
    try:
        address.download(file)
    except FileNotFoundError:
        raise InputError("missing", file=address, remedy=remedy) from None
    if (digest := file_sha256(file)) != shard.sha256:
        message = f"sha256 is {digest[:12]}..., dataset.json says {shard.sha256[:12]}..."
        raise InputError(message, file=address, remedy=remedy)
