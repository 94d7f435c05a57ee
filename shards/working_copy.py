"""Folders on a store, for who works on them: local copies, brought and published (`shards.stored_folder`).

A copy remembers the state of the store that it goes on from. What changed there since is brought; what changed here is
published, and waits in the copy where a process could not. One process at a time publishes, under a lease.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from shards.atomic import write_errors, write_text
from shards.errors import InputError
from shards.lease import Lease, lease
from shards.lock import WAIT
from shards.repeated import repeated
from shards.store import AHEAD, Place, StorePath, content, in_order
from shards.store_errors import StoreRefused, StoreUnreachable
from shards.stored_folder import (
    RECORD,
    StoredFile,
    StoredFiles,
    Wanted,
    download,
    everything,
    local_root,
    note_address,
    object_name,
    stored_file,
)

BASE = f".{RECORD}"  # in a copy: the record that it goes on from
SNAPSHOT = ".publishing"
LEFT_OUT = ("ray",)  # Ray Train's own state, which nothing reads
APPENDED = ".jsonl"  # files that are written on; all others are replaced as a whole
WAIT_SECONDS = 60.0  # for another process that publishes
LOOK = 2.0  # seconds between looks at what another process publishes
Files = dict[str, StoredFile]


class WorkingCopy:
    """The local copy in which a folder of a store is worked on.

    Args:
        address: of the folder.
        work: name of the lease under which it is published.
        wanted: paths of the files that it has; the store's others stay as they are.
        below: folder, within that of all copies, of copies of another kind.
    """

    def __init__(self, address: StorePath, work: str, wanted: Wanted = everything, below: str = "."):
        root = local_root(address.parent) / below
        note_address(root, address.parent)
        self.address, self.work, self.wanted, self.folder = address, work, wanted, root / address.name
        self._hashed: dict[str, tuple[tuple[int, ...], StoredFile]] = {}

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Keep other processes from publishing while the block runs.

        Raises:
            InputError: another one does, or took this one for dead meanwhile.
        """
        with lease(self.address, self.work, WAIT_SECONDS, WAIT) as held:
            yield held

    def bring(self, exactly: bool = False) -> None:
        """Bring what changed on the store since; by who holds the lease. Where both changed a file, or one is missing
        here, the store counts, for all files.

        Args:
            exactly: it does in any case.

        Raises:
            InputError: an object is missing or is not what the record says; the copy can't be written.
        """
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            stored, base, here = self._stored(), self._base(), self._here()
            theirs = {path for path in stored.keys() | base.keys() if stored.get(path) != base.get(path)}
            ours = {path for path in here if here[path] != base.get(path)}
            if exactly or base.keys() - here.keys() or any(here[path] != stored.get(path) for path in theirs & ours):
                theirs = stored.keys() | here.keys()
            theirs = {path for path in theirs if stored.get(path) != here.get(path)}
            if theirs:
                (self.folder / BASE).unlink(missing_ok=True)  # it goes on from nothing until all are there
                self._fetch({path: stored.get(path) for path in theirs})
            self._keep_base(stored)

    def _stored(self) -> Files:
        found = StoredFiles.read(self.address)
        return {} if found is None else {path: file for path, file in found.files.items() if self.wanted(path)}

    def _base(self) -> Files:
        data = content(self.folder / BASE)
        return {} if data is None else StoredFiles.model_validate_json(data).files

    def _keep_base(self, files: Mapping[str, StoredFile]) -> None:
        write_text(self.folder / BASE, StoredFiles(files=dict(files)).text())

    def _here(self) -> Files:
        return {path: self._hash(path, self.folder / path) for path in _paths(self.folder) if self.wanted(path)}

    def _hash(self, path: str, file: Path) -> StoredFile:
        status = file.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if path not in self._hashed or self._hashed[path][0] != seen:
            self._hashed[path] = (seen, stored_file(path, file))
        return self._hashed[path][1]

    def _fetch(self, files: Mapping[str, StoredFile | None]) -> None:
        """Make files what they are on the store; remove what is not there, and checkpoints that were set aside."""
        for folder in [path for path in self.folder.rglob(".*") if path.is_dir()]:
            shutil.rmtree(folder, ignore_errors=True)
        todo = [(path, file) for path, file in sorted(files.items()) if file is not None]
        for _ in in_order(lambda item: download(self.address, *item, self.folder / item[0]), todo, AHEAD):
            pass
        for path in files.keys() - dict(todo).keys():
            (self.folder / path).unlink(missing_ok=True)

    def publish(self, held: Lease, snapshot: Mapping[str, Path] | None = None) -> None:
        """Have the store hold what changed here.

        Args:
            held: the lease.
            snapshot: the copy's files as they were.

        Raises:
            InputError: the store refuses or can't be reached; another process published meanwhile.
        """
        here = self._here() if snapshot is None else {path: self._hash(path, file) for path, file in snapshot.items()}
        before, base = StoredFiles.read(self.address) or StoredFiles(), self._base()
        if {path: file for path, file in before.files.items() if self.wanted(path)} != base:
            message, remedy = "was published by another process meanwhile", "run the same command again: it goes on"
            raise InputError(message, file=self.address, remedy=remedy)
        new = [(file, path) for path, file in here.items() if base.get(path) != file]
        for _ in in_order(lambda item: self._put(*item, snapshot), new, AHEAD):
            pass
        kept = {path: file for path, file in before.files.items() if path not in base}
        replace_record(self.address, before, StoredFiles(files=dict(sorted({**kept, **here}.items()))), held)
        with write_errors(self.folder):
            self._keep_base(here)

    def _put(self, file: StoredFile, path: str, snapshot: Mapping[str, Path] | None) -> None:
        (self.address / file.object).put(self.folder / path if snapshot is None else snapshot[path])

    def snapshot(self) -> dict[str, Path]:
        """The copy's files as they are now: links; of those that are written on, copies."""
        out, aside = {}, self.folder / SNAPSHOT
        shutil.rmtree(aside, ignore_errors=True)
        for path in filter(self.wanted, _paths(self.folder)):
            out[path] = aside / path
            out[path].parent.mkdir(parents=True, exist_ok=True)
            _snap(self.folder / path, out[path])
        return out

    @contextmanager
    def following(self, wanted: Wanted) -> Iterator[None]:
        """Bring some files, as another process publishes them, while the block runs."""

        def follow() -> None:
            with suppress(InputError, OSError):  # at the next look
                base = self._base()
                for path, file in self._stored().items():
                    if wanted(path) and base.get(path) != file:
                        download(self.address, path, file, self.folder / path)
                        base[path] = file
                self._keep_base(base)

        with repeated(follow, LOOK, "follow"):
            yield


class Publisher:
    """Publishes a working copy in the background while work on it goes on; one state at a time: who saves again waits
    for the one before. A store that fails meanwhile is told of, and gets the next state; the last one it must take."""

    def __init__(self, copy: WorkingCopy, held: Lease):
        self.copy, self.held = copy, held
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._under_way: Future[None] | None = None

    def save(self) -> None:
        """Publish the copy as it is now.

        Raises:
            InputError: another process took this one for dead; the copy can't be written.
        """
        self._settle()
        self._under_way = self._pool.submit(self.copy.publish, self.held, self.copy.snapshot())

    def _settle(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None and (error := under_way.exception()) is not None:
            if not isinstance(error, StoreRefused | StoreUnreachable):
                raise error
            print(f"note: not published yet: {error}", file=sys.stderr)

    @contextmanager
    def at_work(self) -> Iterator[Publisher]:
        """The copy at the block's end is published, too, where it ends well.

        Raises:
            InputError: the store does not take it; the same command then goes on from the local copy.
        """
        try:
            yield self
            self._settle()
            self.copy.publish(self.held)
        finally:
            self._pool.shutdown()
            shutil.rmtree(self.copy.folder / SNAPSHOT, ignore_errors=True)


@contextmanager
def worked_on(where: Place, work: str) -> Iterator[Path]:
    """A local folder to work in: the folder itself, or, of one on a store, its copy: brought, and published when the
    block ends well.

    Raises:
        InputError: another process is at `work` there; the store fails; an object is not what the record says.
    """
    if isinstance(where, Path):
        yield where
        return
    copy = WorkingCopy(where, work)
    with copy.held() as held:
        copy.bring()
        yield copy.folder
        copy.publish(held)


def amend(address: StorePath, path: str, data: bytes, work: str) -> None:
    """Put one file into a folder on a store, in the place of another.

    Raises:
        InputError: as `worked_on`; no such folder.
    """
    with lease(address, work, WAIT_SECONDS, WAIT) as held:
        if (before := StoredFiles.read(address)) is None:
            raise InputError("is no folder of this store", file=address / RECORD, remedy="correct the address")
        digest = hashlib.sha256(data).hexdigest()
        file = StoredFile(object=object_name(path, digest), bytes=len(data), sha256=digest)
        (address / file.object).write_bytes(data)
        replace_record(address, before, StoredFiles(files={**before.files, path: file}), held)


def replace_record(address: StorePath, before: StoredFiles, after: StoredFiles, held: Lease) -> None:
    """Another record, if it is another; what it does not name any more goes."""
    held.check()
    if after == before:
        return
    (address / RECORD).write_bytes(after.text().encode())
    gone = {file.object for file in before.files.values()} - {file.object for file in after.files.values()}
    with suppress(InputError):  # who may not delete leaves them there, named by nothing
        for _ in in_order(lambda name: (address / name).unlink(missing_ok=True), sorted(gone), AHEAD):
            pass


def _snap(file: Path, target: Path) -> None:
    if file.suffix != APPENDED:
        with suppress(OSError):  # a file system without links
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _paths(folder: Path) -> Iterator[str]:
    """Paths of all files of a copy that are published: none that hides."""
    for root, folders, names in os.walk(folder):
        inner = Path(root).relative_to(folder)
        hidden = {name for name in folders if name.startswith(".") or (not inner.parts and name in LEFT_OUT)}
        folders[:] = sorted(set(folders) - hidden)
        yield from ((inner / name).as_posix() for name in sorted(names) if not name.startswith("."))
