"""Local folders for what is on its way to or from a store; those of killed processes are removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from weakref import finalize

PREFIX = "avmend-scratch-"
LOCK = ".held"  # locked for as long as the process lives that has the folder


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty local folder that goes with the block; in TMPDIR."""
    folder = Path(tempfile.mkdtemp(dir=process_scratch()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def process_scratch() -> Path:
    """This process's folder, which goes with it."""
    return _made(os.getpid())


@lru_cache(maxsize=1)
def _made(pid: int) -> Path:
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = os.open(folder / f"{LOCK}.new", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.rename(folder / f"{LOCK}.new", folder / LOCK)  # others see it locked only
    finalize(_made, _remove, folder, pid)
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders whose processes are gone: the system has released their locks."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):
            held = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(held)
