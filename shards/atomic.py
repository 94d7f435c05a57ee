"""Files that appear whole or not at all: written to a temporary name, synced, renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file, or a folder's entries, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_sync = sync  # a name that no argument hides


@contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed to ``path``.

    Without ``sync`` the file is still whole or absent after a crash of the process, but may be empty after a
    loss of power: only for what is checked when it is read. A block that removes the temporary file leaves
    ``path`` as it was.

    The temporary name keeps the suffix, so that tools which look at it (ffmpeg) know the format. When the
    block raises, the temporary file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
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


def write_text(path: str | Path, text: str, *, sync: bool = True) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, atomically; ``sync`` as in :func:`replacing`."""
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def stamps(paths: Iterable[Path]) -> dict[Path, int]:
    """Modification time in nanoseconds of those files that are there: equal before and after, nothing was written."""
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}
