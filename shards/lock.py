"""One process at a time in a folder: a lock file that the system releases when its process ends, however it ends; on a
store a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from shards.errors import InputError
from shards.lease import lease
from shards.store import Place, StorePath, place

FOREVER = -1.0
WAIT = "wait until it has ended; the same command then goes on"


@contextmanager
def folder_lock(
    folder: str | Place,
    work: str,
    *,
    wait: float = 0.0,
    remedy: str = "wait until it has ended; the same command then goes on",
) -> Iterator[None]:
    """Hold ``folder/.<work>.lock`` while the block runs; the folder is made, the empty file stays.

    Of the processes on all machines that share the file system, and of the threads of one process, one is in
    the block at a time. Different works in one folder do not wait for each other.

    Args:
        work: what is done there, a word: "ingestion".
        wait: seconds to wait for another one's end; FOREVER: without limit.
        remedy: for who is refused.

    Raises:
        InputError: another process is at ``work`` there.
    """
    folder = place(folder)
    if isinstance(folder, StorePath):
        with lease(folder, work, wait, remedy):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{work}.lock", thread_local=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise InputError(f"another {work} is at work here", file=folder, remedy=remedy) from None
    try:
        yield
    finally:
        lock.release()
