"""Folders of ``<id>.npy``: what is there, by name alone. No path is ever made from an id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.imports.layout import Entry
from pipelines.imports.notes import Note, What
from shards.errors import InputError, nearest

SUFFIX = ".npy"


def find_clips(source: Path, folders: Sequence[str]) -> tuple[dict[str, dict[str, Entry]], tuple[Note, ...]]:
    """Id -> folder -> where its array lies; and a note for each file that is none.

    Raises:
        InputError: a folder is not there, can't be read, or leads out of the source.
    """
    found: dict[str, dict[str, Entry]] = {}
    notes: list[Note] = []
    for folder in dict.fromkeys(folders):
        for name, entry in sorted(_listed(source, folder).items()):
            if entry is None:
                remedy = "nothing needs to be done, unless it was to be a clip's features"
                file = _printable(f"{folder}/{name}")
                notes.append(
                    Note(what=What.STRANGE, outcome="left out", file=file, message="not ID.npy", remedy=remedy)
                )
            else:
                found.setdefault(name.removesuffix(SUFFIX), {})[folder] = entry
    return found, tuple(notes)


def _listed(source: Path, folder: str) -> dict[str, Entry | None]:
    """Every name in a folder: a regular file ``<id>.npy`` (or a link to one) as an entry, anything else None."""
    path = source / folder
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise InputError("leads out of the source", field=folder, remedy="give the name of a folder in it")
    try:
        with os.scandir(path) as listing:
            return {item.name: _entry(item, folder) for item in listing}
    except OSError as error:
        there = sorted(p.name for p in source.iterdir() if p.is_dir()) if source.is_dir() else []
        remedy = f"{nearest(folder, there)}there are: {', '.join(there) or 'no folders'}"
        message = f"no folder of features here: {error.strerror}"
        raise InputError(message, file=path, field="source", remedy=remedy) from None


def _entry(item: os.DirEntry[str], folder: str) -> Entry | None:
    plain_name = item.name == _printable(item.name) and item.name.endswith(SUFFIX) and item.name != SUFFIX
    if not plain_name or not item.is_file():
        return None
    return Entry(f"{folder}/{item.name}", item.stat().st_size)


def _printable(name: str) -> str:
    """The name with what is no text (bytes that are not UTF-8) replaced."""
    return name.encode("utf-8", "replace").decode("utf-8")
