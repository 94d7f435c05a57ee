"""Exported folders: avmend.json says what one holds, and size and sha256 of every file; read without trusting it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import pydantic

from shards.atomic import replacing, write_text
from shards.errors import InputError
from shards.schema import Frozen
from shards.scratch import scratch
from shards.store import Place, StorePath
from shards.store_errors import TooManyBytes

RECORD = "avmend.json"
SUFFIXES = (".json", ".jsonl", ".safetensors", ".tar", ".md", ".parquet")  # nothing that runs when it is read
CHUNK = 1 << 20
AGAIN = "get the folder again from where it came, whole; or have it exported again"
_PART = re.compile(r"[A-Za-z0-9_=+,][A-Za-z0-9_.=+,-]{0,119}")


def check_path(path: str) -> str:
    """A relative path of an export: plain names, ``/`` between them, no name that hides or leads elsewhere.

    Raises:
        ValueError: another one.
    """
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or len(path) > 400:
        raise ValueError(f"'{path}' is no plain relative path")
    return path


class SharedFile(Frozen):
    """One file: its path from the export's folder on, its size, its sha256 (hex)."""

    path: str
    bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")

    @pydantic.field_validator("path")
    @classmethod
    def _plain(cls, path: str) -> str:
        if PurePosixPath(check_path(path)).suffix not in SUFFIXES:
            raise ValueError(f"'{path}' is of no kind that is shared; known: {', '.join(SUFFIXES)}")
        return path


class SharedRecord(Frozen):
    """avmend.json.

    Attributes:
        kind: what was exported.
        name: of the dataset, or of the run's folder.
        folders: those that the files lie in: a run's, then the runs it stands on; or the shards'.
        fingerprint: identity of the run, 12 hex digits ("" of a run that has none), or the dataset's fingerprint.
        license: as whoever exported it named it; None: they did not.
        files: all but this one.
    """

    format: Literal[1] = 1
    kind: Literal["run", "shards"]
    name: str
    folders: tuple[str, ...] = pydantic.Field(min_length=1)
    fingerprint: str
    license: str | None = None
    files: tuple[SharedFile, ...]

    @pydantic.field_validator("folders")
    @classmethod
    def _plain(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_path(folder) for folder in folders)

    @pydantic.model_validator(mode="after")
    def _each_once(self) -> SharedRecord:
        paths = [file.path for file in self.files]
        if len({path.casefold() for path in paths}) != len(paths):
            raise ValueError("a file is there twice")
        return self

    @classmethod
    def load(cls, folder: Place) -> SharedRecord:
        """Read ``folder/avmend.json``, of a folder or on a store.

        Raises:
            InputError: it is missing, unreadable, or holds what no export holds.
        """
        path = folder / RECORD
        try:
            return cls.model_validate_json(_content(folder))
        except FileNotFoundError:
            raise InputError("is no exported folder: it is missing", file=path, remedy=AGAIN) from None
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or None
            raise InputError(problem["msg"], file=path, field=field, remedy=AGAIN) from None

    def save(self, folder: Path) -> None:
        """Write ``folder/avmend.json``, whole or not at all."""
        write_text(Path(folder) / RECORD, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def within(self, folder: str) -> Iterator[tuple[str, SharedFile]]:
        """The files of one of its folders, with their paths from that on."""
        for file in self.files:
            if file.path.startswith(f"{folder}/"):
                yield file.path.removeprefix(f"{folder}/"), file


def _content(folder: Place) -> bytes:
    if isinstance(folder, StorePath):
        return (folder / RECORD).read_bytes()
    with open_plain(folder, RECORD) as file:
        return file.read()


def open_plain(folder: Path, path: str) -> IO[bytes]:
    """A regular file below ``folder`` to read, reached through no symbolic link.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is a link or no regular file, or can't be opened.
    """
    place = Path(folder)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *between, last = path.split("/")
        for part in between:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        found = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise InputError("is no regular file", file=place / path, remedy=AGAIN)
        return os.fdopen(found, "rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        message = f"can't be read, or is a link: {error.strerror}"
        raise InputError(message, file=place / path, remedy=AGAIN) from None
    finally:
        os.close(descriptor)


def copied(file: IO[bytes], target: Path) -> tuple[int, str]:
    """Copy an open file to ``target``, whole or not at all: its bytes and their sha256."""
    digest, size = hashlib.sha256(), 0
    with replacing(target) as temporary, temporary.open("wb") as out:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            out.write(chunk)
    return size, digest.hexdigest()


def take(folder: Place, file: SharedFile, target: Path) -> None:
    """Copy a file out of an exported folder, here or on a store, and check it against the record.

    Raises:
        InputError: it is missing, a link, or not the one that was exported; then ``target`` is not there.
    """
    place = folder / file.path
    try:
        if isinstance(folder, StorePath):
            with scratch() as here:
                (folder / file.path).download(here / "file", file.bytes)
                with (here / "file").open("rb") as opened:
                    _take(opened, place, file, target)
            return
        source = open_plain(folder, file.path)
    except FileNotFoundError:
        raise InputError(f"is missing, {RECORD} lists it", file=place, remedy=AGAIN) from None
    except TooManyBytes as error:
        raise InputError(f"has {error}, {RECORD} says {file.bytes}", file=place, remedy=AGAIN) from None
    _take(source, place, file, target)


def _take(source: IO[bytes], place: Place, file: SharedFile, target: Path) -> None:
    with source:
        if (size := os.fstat(source.fileno()).st_size) != file.bytes:
            raise InputError(f"has {size} bytes, {RECORD} says {file.bytes}", file=place, remedy=AGAIN)
        found = copied(source, target)
    if found != (file.bytes, file.sha256):
        target.unlink(missing_ok=True)
        raise InputError(f"was changed: its sha256 is not the one in {RECORD}", file=place, remedy=AGAIN)
