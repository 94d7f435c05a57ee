"""A folder on its way out: beside its place until it is whole, every file hashed, nothing of this machine in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shards.atomic import sync, write_text
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.lock import folder_lock
from shards.redaction import redacted
from shards.scratch import scratch
from shards.shared import RECORD, SharedFile, SharedRecord, copied
from shards.store import Place, StorePath

LOCK = ".export.lock"
TEXTS = (".json", ".jsonl", ".md")


class Export:
    """The files of an export so far.

    Args:
        folder: where they are until it is whole; files that an earlier, stopped export left are used again.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: dict[str, SharedFile] = {}

    def copy(self, source: Path, path: str, sha256: str | None = None, link: bool = False) -> None:
        """Copy a file, or link it, where the file system allows that.

        Args:
            sha256: what it must have (hex); a copy that an earlier export left and that has it is kept.

        Raises:
            InputError: it is not there, or has another sha256.
        """
        target = self.folder / path
        if not (sha256 and target.is_file() and file_sha256(target) == sha256):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not (link and _linked(source, target)):
                _copied(source, target)
        self.add(path)
        if sha256 not in (None, self.files[path].sha256):
            target.unlink()
            remedy = "run 'avmend shards verify' on the dataset, and make the shard again"
            raise InputError("is damaged: its sha256 is not the one in dataset.json", file=source, remedy=remedy)

    def write(self, path: str, text: str) -> None:
        """Write a text, secrets of it redacted."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / path, redacted(text))
        self.add(path)

    def add(self, path: str) -> None:
        """Record a file that is there."""
        size, digest = (self.folder / path).stat().st_size, file_sha256(self.folder / path)
        self.files[path] = SharedFile(path=path, bytes=size, sha256=digest)

    def size(self, folder: str = "") -> int:
        """Bytes of the files below one of its folders."""
        return sum(file.bytes for path, file in self.files.items() if path.startswith(folder))


@contextmanager
def exporting(out: Place, private: Sequence[Path]) -> Iterator[Export]:
    """An export that becomes ``out`` when the block ends well, whole or not at all; on a store, its record is put
    last.

    Args:
        private: folders of this machine that no text of the export may name.

    Raises:
        InputError: ``out`` holds something already; a text names one of the folders, the home, or holds a secret.
    """
    if isinstance(out, StorePath):
        with _sent(out, private) as export:
            yield export
        return
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _taken(out)
    partial = out.with_name(f".{out.name}.partial")
    with folder_lock(partial, "export"):
        export = Export(partial)
        yield export
        _remove_others(export)
        for path in export.files:
            if path.endswith(TEXTS):
                _check_private(partial / path, path, [Path.home(), *private])
        (partial / LOCK).unlink()
        if out.exists():
            out.rmdir()
        partial.rename(out)
        sync(out.parent)


@contextmanager
def _sent(out: StorePath, private: Sequence[Path]) -> Iterator[Export]:
    with folder_lock(out, "export"), scratch() as here:
        if (out / RECORD).exists():
            raise _taken(out)
        with exporting(here / out.name, private) as export:
            yield export
        for path in [*export.files, RECORD]:
            (out / path).put(here / out.name / path)


def _taken(out: Place) -> InputError:
    return InputError("is there already and not empty", file=out, field="DIR", remedy="name a folder that is not")


def finish(export: Export, **said: object) -> SharedRecord:
    """Write the record of an export whose files are all there."""
    files = tuple(export.files[path] for path in sorted(export.files))
    record = SharedRecord.model_validate({**said, "files": files})
    record.save(export.folder)
    return record


def _copied(source: Path, target: Path) -> None:
    try:
        file = source.open("rb")
    except OSError as error:
        remedy = "run 'avmend shards verify' on the dataset, or train again"
        raise InputError(f"can't be read: {error.strerror}", file=source, remedy=remedy) from None
    with file:
        copied(file, target)


def _linked(source: Path, target: Path) -> bool:
    target.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without links
        return False
    return True


def _remove_others(export: Export) -> None:
    """What an earlier export into the same folder left that is not of this one."""
    keep = {*export.files, RECORD, LOCK}
    for path in sorted(export.folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(export.folder).as_posix() not in keep:
            path.unlink()


def _check_private(file: Path, path: str, folders: Sequence[Path]) -> None:
    """Refuse a text that would tell strangers of this machine."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if redacted(text) != text:
        remedy = "take it out of the names and settings of the run or dataset, or unset the variable that holds it"
        raise InputError("would hold a secret of this environment", file=path, remedy=remedy)
    for folder in folders:
        name = re.escape(str(folder.absolute()))
        if len(folder.absolute().parts) > 1 and (found := re.search(rf"{name}(?![\w.-])", text)):
            remedy = "rename what holds it (clips' ids, labels), then export again"
            raise InputError(f"would name a folder of this machine: {found[0]}", file=path, remedy=remedy)


def megabytes(size: int) -> str:
    """Bytes as people read them: MB of 10^6."""
    return f"{size / 1e6:.1f} MB"
