"""Files that appear whole or not at all: written to a temporary name, synced, renamed."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from shards.errors import InputError
from shards.store import Place, StorePath, place, version_of, whole_file


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that killed processes left beside ``path``: those of `replacing` with ``held`` that
    nobody holds, on any machine or in any container that shares the folder."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp{glob.escape(path.suffix)}"):
        if re.fullmatch(r"\d+-[0-9a-f]{8}", left.name[len(path.stem) + 2 : -len(path.suffix) - 4 or None]):
            _remove_abandoned(left)


def _remove_abandoned(file: Path) -> None:
    with suppress(OSError):  # held, or gone, or somebody else's
        descriptor = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:  # else its name may be another file's by now
                file.unlink()
        finally:
            os.close(descriptor)


@contextmanager
def _held(file: Path) -> Iterator[None]:
    """Make a file, and hold it while the block runs; where the file system has no locks, nobody removes it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # it was removed before it was held
    try:
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Have a file, or a folder's entries, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_sync = sync  # a name that no argument hides


@contextmanager
def replacing(path: str | Place, *, sync: bool = True, held: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``. On a store, the
    temporary path is a local one, and the object is put whole.

    Without ``sync`` the file is still whole or absent after a crash of the process, but may be empty after a
    loss of power: only for what is checked when it is read. A block that removes the temporary file leaves
    ``path`` as it was.

    With ``held`` the temporary file is there, empty, from the beginning, is written in place, and goes by
    `remove_leftovers` once this process is gone; those that went before it are removed first.

    The temporary name keeps the suffix, so that tools which look at it (ffmpeg) know the format. When the
    block raises, the temporary file is removed and ``path`` stays as it was.
    """
    path = place(path)
    if isinstance(path, StorePath):
        with whole_file(path) as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if held:
        remove_leftovers(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
    with _held(temporary) if held else nullcontext():
        try:
            yield temporary
            if os.path.lexists(temporary):
                if sync:
                    _sync(temporary)
                os.replace(temporary, path)
                if sync:
                    _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Place, text: str, *, sync: bool = True, held: bool = False) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, atomically; ``sync`` and ``held`` as in :func:`replacing`."""
    with replacing(path, sync=sync, held=held) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


@contextmanager
def write_errors(path: str | Path, field: str | None = None) -> Iterator[None]:
    """What the system refuses in the block (disk full, read-only, no rights) is told as wrong input.

    Raises:
        InputError: so; names the file that the system names, else `path`.
    """
    try:
        yield
    except OSError as error:
        remedy = "make room, or correct the rights of the folder, or name another one; then the same command goes on"
        file = error.filename if isinstance(error.filename, str) else path
        raise InputError(
            f"can't be written: {error.strerror or error}", file=file, field=field, remedy=remedy
        ) from error


def stamps(paths: Iterable[Place]) -> dict[Place, str]:
    """Versions of those files that are there: equal before and after, nothing was written."""
    return {path: version_of(path) for path in paths if path.is_file()}
