"""Datasets on remote storage: fetched by fsspec into a local cache, every shard checked by its sha256.

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
from typing import TYPE_CHECKING, Any

from shards.atomic import replacing
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.redaction import redacted
from shards.schema import DATASET_FILE, DatasetInfo, ShardInfo
from shards.store import refuse_credentials
from shards.table import index_path

__all__ = ["cache_folder", "fetch"]

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 1 << 20  # bytes that are held in memory per download
AT_ONCE = 4  # downloads


def cache_folder() -> Path:
    """Where fetched shards lie: AVMEND_CACHE, or avmend in the user's cache folder."""
    if named := os.environ.get("AVMEND_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avmend"


def fetch(
    url: str,
    cache: str | Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    recheck: bool = False,
    shards: bool = True,
    **options: Any,
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
        options: of the storage (``anon=True``, ...), as fsspec takes them.

    Raises:
        InputError: the storage can't be read, or holds other bytes than its dataset.json says.
    """
    cache = Path(cache or cache_folder()).absolute()
    system, root = _open(url, options)
    text = _read(system, f"{root}/{DATASET_FILE}", url)
    digest = hashlib.sha256(redacted(url.rstrip("/")).encode() + b"\0" + text).hexdigest()
    folder = cache / "datasets" / digest[:24]

    def bring(shard: ShardInfo) -> None:
        _link(folder / shard.name, _blob(system, f"{root}/{shard.name}", shard, cache, recheck))

    with _alone(folder), ThreadPoolExecutor(AT_ONCE) as pool:
        with replacing(folder / DATASET_FILE) as temporary:
            temporary.write_bytes(text)
        info = DatasetInfo.load(folder)
        wanted = [shard for name in _names(info, splits, url) for shard in info.splits[name].shards]
        list(pool.map(bring, wanted if shards else ()))
        for name in _names(info, splits, url):
            _bring_table(system, f"{root}/{index_path(Path(), name)}", index_path(folder, name), recheck)
    return folder


def _bring_table(system: AbstractFileSystem, remote: str, path: Path, anew: bool) -> None:
    """The table of a split, if there is one: what it says is checked when the shards are read."""
    if path.exists() and not anew:
        return
    try:
        data = system.cat_file(remote)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"can't be fetched: {error!r}", file=remote, remedy="fetch it again") from None
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _names(info: DatasetInfo, splits: Sequence[str] | None, url: str) -> Sequence[str]:
    names = list(info.splits) if splits is None else splits
    for name in names:
        if name not in info.splits:
            remedy = f"choose one of: {', '.join(info.splits)}"
            raise InputError(f"the dataset has no split '{name}'", file=url, field="split", remedy=remedy)
    return names


def _open(url: str, options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    import fsspec

    refuse_credentials(url)
    try:
        return fsspec.core.url_to_fs(url.rstrip("/"), **options)
    except (ImportError, ValueError) as error:
        remedy = "install the package that the message names, or correct the URL"
        raise InputError(str(error), file=url, remedy=remedy) from None


def _read(system: AbstractFileSystem, path: str, url: str) -> bytes:
    try:
        return system.cat_file(path)
    except OSError as error:
        remedy = "give the URL of a finished dataset's folder, and the rights to read it"
        raise InputError(f"{DATASET_FILE} can't be read: {error!r}", file=url, remedy=remedy) from None


def _blob(system: AbstractFileSystem, remote: str, shard: ShardInfo, cache: Path, recheck: bool) -> Path:
    """The shard's file in the cache; loaded if it is not there, is of another size, or fails the recheck."""
    path = cache / "shards" / shard.sha256[:2] / f"{shard.sha256}.tar"
    with _alone(path):
        if not _is(path, shard, recheck):
            _load(system, remote, shard, path)
    return path


def _is(path: Path, shard: ShardInfo, recheck: bool) -> bool:
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    if not recheck:
        return True
    return file_sha256(path) == shard.sha256


def _load(system: AbstractFileSystem, remote: str, shard: ShardInfo, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    try:
        with replacing(path) as temporary, temporary.open("wb") as target:
            with system.open(remote, "rb", cache_type="none") as source:
                while size <= shard.bytes and (block := source.read(BLOCK)):
                    digest.update(block)
                    size += len(block)
                    target.write(block)
            if (size, digest.hexdigest()) != (shard.bytes, shard.sha256):
                message = f"{size} bytes of sha256 {digest.hexdigest()[:12]}..., dataset.json says otherwise"
                raise InputError(message, file=remote, remedy="upload the shard again, then fetch again")
    except OSError as error:
        raise InputError(f"can't be fetched: {error!r}", file=remote, remedy="fetch it again") from None


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
