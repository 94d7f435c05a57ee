"""Datasets on remote storage: fetched into a local cache, every shard checked by its sha256.

A shard's place in the cache is named by its content, so equal file names in two folders can't meet, equal
shards are stored once, and a dataset that grew brings only its new shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from shards.atomic import replacing, write_errors
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.redaction import redacted
from shards.schema import DATASET_FILE, DatasetInfo, ShardInfo
from shards.store import StorePath, content
from shards.store_errors import TooManyBytes
from shards.table import index_path, read_table

__all__ = ["CACHE", "OTHER_BYTES", "UPLOAD", "cache_folder", "fetch", "forget_table", "not_there"]

CACHE = "AVMEND_CACHE"
DATASETS = "datasets"  # in the cache
AT_ONCE = 4  # downloads
OTHER_BYTES = "other bytes than dataset.json says (size or sha256)"
UPLOAD = "upload the shard again; what is trained on is never guessed"


def cache_folder() -> Path:
    """Where fetched shards lie: AVMEND_CACHE, or avmend in the user's cache folder."""
    if named := os.environ.get(CACHE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avmend"


def fetch(
    url: str,
    cache: str | Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    recheck: bool = False,
    shards: bool = True,
) -> Path:
    """Bring a dataset's splits here; the folder returned is as good as the original one.

    Processes may fetch the same at the same time: one loads, the others wait. A file appears under its name
    only after its size and sha256 were found to be those of dataset.json.

    Args:
        url: of the dataset's folder, for any storage that fsspec knows.
        cache: default `cache_folder`.
        splits: ``None``: all.
        recheck: compute the sha256 of what is there already, too (else only its size is compared).
        shards: False: dataset.json and the tables alone.

    Raises:
        InputError: as `shards.store.StorePath` raises it; the storage has no dataset there, or other bytes than its
            dataset.json says; the cache can't be written.
    """
    cache = Path(cache or cache_folder()).absolute()
    address = StorePath.of(url)
    if (text := content(address / DATASET_FILE)) is None:
        remedy = "give the URL of a finished dataset's folder"
        raise InputError(f"there is no {DATASET_FILE}", file=address, remedy=remedy)
    digest = hashlib.sha256(redacted(url.rstrip("/")).encode() + b"\0" + text).hexdigest()
    folder = cache / DATASETS / digest[:24]

    def bring(shard: ShardInfo) -> None:
        _link(folder / shard.name, _blob(address / shard.name, shard, cache, recheck))

    with write_errors(cache, field=CACHE), _alone(folder), ThreadPoolExecutor(AT_ONCE) as pool:
        with replacing(folder / DATASET_FILE) as temporary:
            temporary.write_bytes(text)
        info = DatasetInfo.load(folder)
        wanted = [shard for name in _names(info, splits, url) for shard in info.splits[name].shards]
        list(pool.map(bring, wanted if shards else ()))
        for name in _names(info, splits, url):
            path = index_path(folder, name)
            if recheck or read_table(path, info.splits[name]) is None:
                _bring_table(address / str(path.relative_to(folder)), path)
    return folder


def _bring_table(remote: StorePath, path: Path) -> None:
    """The table of a split, if there is one: what it says is checked when the shards are read."""
    if (data := content(remote)) is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(data)


def forget_table(path: Path) -> bool:
    """Remove a table that lies in a folder of `fetch`, so that the next one brings what the storage has then; whether
    it does."""
    if not path.is_relative_to((cache_folder() / DATASETS).absolute()):
        return False
    path.unlink(missing_ok=True)
    return True


def _names(info: DatasetInfo, splits: Sequence[str] | None, url: str) -> Sequence[str]:
    names = list(info.splits) if splits is None else splits
    for name in names:
        if name not in info.splits:
            remedy = f"choose one of: {', '.join(info.splits)}"
            raise InputError(f"the dataset has no split '{name}'", file=url, field="split", remedy=remedy)
    return names


def _blob(remote: StorePath, shard: ShardInfo, cache: Path, recheck: bool) -> Path:
    """The shard's file in the cache; loaded if it is not there, is of another size, or fails the recheck."""
    path = cache / "shards" / shard.sha256[:2] / f"{shard.sha256}.tar"
    with _alone(path):
        if not _is(path, shard, recheck):
            _load(remote, shard, path)
    return path


def _is(path: Path, shard: ShardInfo, recheck: bool) -> bool:
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    if not recheck:
        return True
    return file_sha256(path) == shard.sha256


def _load(remote: StorePath, shard: ShardInfo, path: Path) -> None:
    with replacing(path, held=True) as temporary:
        try:
            remote.download(temporary, shard.bytes)
            whole = _is(temporary, shard, recheck=True)
        except FileNotFoundError:
            raise not_there(remote) from None
        except TooManyBytes:
            whole = False
        if not whole:
            raise InputError(OTHER_BYTES, file=remote, remedy=UPLOAD)


def not_there(shard: StorePath) -> InputError:
    """What to raise of a shard that the storage has not."""
    return InputError("is not there", file=shard, remedy="upload the shard again: dataset.json names it")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        yield


def _link(name: Path, blob: Path) -> None:
    """Give the blob the shard's name in the dataset's folder."""
    if name.exists() and name.resolve() == blob.resolve():
        return
    with replacing(name, sync=False) as temporary:
        temporary.symlink_to(os.path.relpath(blob, name.parent))
