"""Folders on a store, for who reads them: one state, checked file by file.

``files.json`` beside the objects says what a folder holds: path, size, sha256 and object of every file. It is written
last, and objects are named by their content: what it names is never overwritten. So whoever is killed at any point
leaves the folder as it was before, or as it is after, and listings, which may be stale, are never asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

import pydantic
from filelock import FileLock

from shards.atomic import replacing, write_errors, write_text
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.remote import cache_folder
from shards.schema import Frozen
from shards.store import Place, StorePath, content, place

RECORD = "files.json"
ADDRESS = ".address"  # in a folder of local copies: what address that folder stands for
VERSIONS = ".versions"
DIGITS = 16  # of the sha256, in the name of an object
CHANGES = 3  # times that a reader meets a folder that changes under it
Wanted = Callable[[str], bool]


def everything(path: str) -> bool:
    """All files are wanted."""
    return True


def check_inner(path: str) -> str:
    """A path that leads from a folder to a file within it.

    Raises:
        ValueError: another one.
    """
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in path.split("/")):
        raise ValueError(f"'{path}' does not lie within the folder")
    return path


class StoredFile(Frozen):
    """Where a file is: the name of its object, its size and sha256 (hex)."""

    object: str
    bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")

    @pydantic.field_validator("object")
    @classmethod
    def _plain(cls, name: str) -> str:
        return check_inner(name)

    def is_at(self, path: Path) -> bool:
        """Whether a local file is this one."""
        return path.is_file() and path.stat().st_size == self.bytes and file_sha256(path) == self.sha256


class StoredFiles(Frozen):
    """files.json: all files of a folder, by their paths in it."""

    format: Literal[1] = 1
    files: dict[str, StoredFile] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("files")
    @classmethod
    def _plain(cls, files: dict[str, StoredFile]) -> dict[str, StoredFile]:
        return {check_inner(path): file for path, file in files.items()}

    @classmethod
    def read(cls, address: Place) -> StoredFiles | None:
        """The record of a folder; None: it has none.

        Raises:
            InputError: it is damaged.
        """
        if (data := content(address / RECORD)) is None:
            return None
        try:
            return cls.model_validate_json(data)
        except pydantic.ValidationError as error:
            message = f"is damaged: {error.errors()[0]['msg']}"
            remedy = "put back an earlier version of the object; or remove it, and what it spoke of begins anew"
            raise InputError(message, file=address / RECORD, remedy=remedy) from None

    def text(self) -> str:
        """As it is stored."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"


def local_root(address: StorePath) -> Path:
    """Where this machine keeps working copies of what lies in a folder of a store, and all else of its own that
    belongs to that; below ``AVMEND_CACHE``."""
    root = cache_folder().absolute() / "runs" / hashlib.sha256(address.url.encode()).hexdigest()[:DIGITS]
    note_address(root, address)
    return root


def note_address(root: Path, address: StorePath) -> None:
    """Note of a folder of local copies what address it stands for."""
    if not (root / ADDRESS).exists():
        with write_errors(root):
            write_text(root / ADDRESS, address.url + "\n")


def place_of(folder: Path) -> Place:
    """The address whose copy a local folder is; another folder is its own place."""
    try:
        return StorePath((folder.absolute().parent / ADDRESS).read_text(encoding="utf-8").strip()) / folder.name
    except FileNotFoundError:
        return folder


def is_stored(name: str | Place) -> bool:
    """Whether a folder lies at an address."""
    address = place(name)
    return isinstance(address, StorePath) and (address / RECORD).exists()


def reading(where: str | Place, wanted: Wanted = everything) -> Path:
    """A local folder to read: the folder itself, or, of one on a store (or of a folder in such a one), a checked copy
    of what it is now. Copies of one state are the same folder, and stay.

    Args:
        wanted: paths of the files that are needed; others may be there or not.

    Raises:
        InputError: no folder there, or an object that is not what the record says.
    """
    address = place(where)
    if isinstance(address, Path):
        return address
    for _ in range(CHANGES):
        if (stored := StoredFiles.read(address)) is None:
            return _within(address, wanted)
        try:
            return _version(address, stored, wanted)
        except InputError:
            if StoredFiles.read(address) == stored:
                raise
    raise InputError("changes all the time", file=address / RECORD, remedy="try again later")


def _within(address: StorePath, wanted: Wanted) -> Path:
    above, name = address.parent, address.name
    if not is_stored(above):
        remedy = "correct the address, or the rights of this process; a folder there is known by this object"
        raise InputError("there is none", file=address / RECORD, remedy=remedy)
    return reading(above, lambda path: path.startswith(f"{name}/") and wanted(path)) / name


def _version(address: StorePath, stored: StoredFiles, wanted: Wanted) -> Path:
    state = hashlib.sha256(stored.text().encode()).hexdigest()[:DIGITS]
    root = local_root(address.parent) / VERSIONS / state
    with write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            note_address(root, address.parent)
            (root / address.name).mkdir(exist_ok=True)
            for path, file in stored.files.items():
                there = root / address.name / path
                if wanted(path) and not (there.is_file() and there.stat().st_size == file.bytes):
                    download(address, path, file, there)
    return root / address.name


def download(address: StorePath, path: str, file: StoredFile, target: Path) -> None:
    """Fetch a file and compare it with the record."""
    remedy = f"put the object back; or remove {address / RECORD}, and the same command begins {address.name} anew"
    with replacing(target) as temporary:
        try:
            (address / file.object).download(temporary)
        except FileNotFoundError:
            raise InputError(f"is missing: {RECORD} names it", file=address / file.object, remedy=remedy) from None
        if not file.is_at(temporary):
            message = f"is damaged: it is not the {path} of {file.bytes} bytes that {RECORD} says (sha256)"
            raise InputError(message, file=address / file.object, remedy=remedy)


def stored_file(path: str, file: Path) -> StoredFile:
    """A local file as it is stored under a path."""
    digest = file_sha256(file)
    return StoredFile(object=object_name(path, digest), bytes=file.stat().st_size, sha256=digest)


def object_name(path: str, digest: str) -> str:
    """Name of the object of a path and its sha256, such as ``finetune/weights.0123456789abcdef.safetensors``."""
    pure = PurePosixPath(path)
    return str(pure.with_name(f"{pure.stem}.{digest[:DIGITS]}{pure.suffix}"))
