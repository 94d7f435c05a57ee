"""Shards of a dataset on remote storage, on this machine's disk for as long as there is room: the least recently used
goes first.

A shard is used after its bytes were found to be those of dataset.json; one that was damaged since is fetched again.
A file that somebody reads may be removed: it takes its room until it was read.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from shards.atomic import remove_leftovers, replacing, write_errors
from shards.errors import InputError
from shards.remote import CACHE, OTHER_BYTES, UPLOAD, cache_folder
from shards.schema import ShardInfo

LIMIT = "AVMEND_CACHE_GB"
DEFAULT_GB = 20.0
BUFFER = 1 << 18  # bytes read at once
PATIENCE = 5.0  # seconds of waiting for room, then that is said
POLL = 0.005  # seconds between looks at a lock, which is held for moments or for a whole shard
DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before a shard that came with other bytes is fetched again

Whole = Callable[[BinaryIO], bool]


def cache_limit() -> int:
    """Bytes that streamed shards may take: AVMEND_CACHE_GB.

    Raises:
        InputError: it is no positive number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_GB))
    try:
        size = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise InputError(f"'{text}' is no size", field=LIMIT, remedy=f"set it to gigabytes, such as {DEFAULT_GB:g}")
    return size


class ShardCache:
    """Shards by their content, in as many processes as there are.

    Args:
        folder: default ``stream`` in `shards.remote.cache_folder`.
        limit: bytes; default `cache_limit`.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None):
        self.folder = folder or (cache_folder() / "stream").absolute()
        self.limit = limit or cache_limit()

    def open(self, shard: ShardInfo, where: str, download: Callable[[Path], None], whole: Whole) -> BinaryIO:
        """The shard's file, open for reading.

        Args:
            where: its URL, for messages.
            download: fills a file that has its size already.
            whole: whether a file holds what dataset.json says.

        Raises:
            InputError: as `download` raises it; it holds other bytes, or is larger than the limit; the cache can't be
                written.
        """
        path = self.folder / shard.sha256[:2] / f"{shard.sha256}.tar"
        with write_errors(path.parent, field=CACHE):
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock"), poll_interval=POLL):
                if (file := found_whole(path, whole)) is None:
                    file = self._bring(path, shard, where, download, whole)
        with suppress(FileNotFoundError):  # another process made room meanwhile
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # explicitly: few mounts note reading
        return file

    def _bring(
        self, path: Path, shard: ShardInfo, where: str, download: Callable[[Path], None], whole: Whole
    ) -> BinaryIO:
        for delay in (*DELAYS, None):
            with ExitStack() as naming, replacing(path, sync=False, held=True) as temporary:
                self._reserve(temporary, shard)
                download(temporary)
                if (file := found_whole(temporary, whole)) is not None:
                    naming.enter_context(self._counting())  # a file renamed meanwhile could be missed
                    return file
                temporary.unlink()
            if delay is not None:
                time.sleep(delay)
        raise InputError(OTHER_BYTES, file=where, remedy=UPLOAD)

    def _reserve(self, temporary: Path, shard: ShardInfo) -> None:
        """Make room, and a file of the shard's size, which takes that room."""
        if shard.bytes > self.limit:
            message = f"{shard.name} has {shard.bytes} bytes, streamed shards may take {self.limit}"
            raise InputError(message, file=self.folder, field=LIMIT, remedy="set it higher (gigabytes)")
        began, told = time.monotonic(), False
        while not self._make_room(temporary, shard.bytes):
            time.sleep(0.05)  # all of it is being fetched by others
            if not told and time.monotonic() - began > PATIENCE:
                told = True
                message = f"waiting for room: all that {LIMIT} allows ({self.limit} bytes) is being fetched by others"
                print(f"note: {self.folder}: {message}", file=sys.stderr)

    def _counting(self) -> FileLock:
        """Held while files are counted, come or go."""
        return FileLock(self.folder / ".lock", poll_interval=POLL)

    def _make_room(self, temporary: Path, size: int) -> bool:
        with self._counting():
            files = self._files()
            used = sum(found for _, found, _ in files)
            for _, found, path in sorted(file for file in files if not file[2].name.startswith(".")):
                if used + size <= self.limit:
                    break
                path.unlink(missing_ok=True)
                used -= found
            if used + size > self.limit:
                return False
            with temporary.open("wb") as file:
                file.truncate(size)
            return True

    def _files(self) -> list[tuple[int, int, Path]]:
        """Last use, bytes and path of every shard, and of those that are being fetched."""
        out = []
        for path in self.folder.glob("*/*.tar"):
            if path.name.startswith("."):
                remove_leftovers(path.with_name(f"{path.name.split('.')[1]}.tar"))
            with suppress(FileNotFoundError):
                status = path.stat()
                out.append((status.st_atime_ns, status.st_size, path))
        return out


def found_whole(path: Path, whole: Whole) -> BinaryIO | None:
    """The file if it is there and holds what it should."""
    try:
        file = path.open("rb", buffering=BUFFER)
    except FileNotFoundError:
        return None
    if whole(file):
        return file
    file.close()
    return None
