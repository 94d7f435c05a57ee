"""AVQA's released HDF5 files (AlyssaYoung/AVQA): rows in no order, mapped by ``ids`` to the numbers of video_map.json.

Appearance [N, 8, 16, 2048] is ResNet-101 of 16 frames of each of 8 parts of a clip, motion [N, 8, 2048] ResNeXt-101 of
the same parts, sound [N, 2048] CNN14 of the whole clip. Clips whose extraction failed are zeros.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipelines.imports.layout import Entry, Found, Layout, Part
from pipelines.imports.notes import Note, What
from pipelines.imports.reading import checked_dataset, open_hdf5
from pipelines.imports.settings import ImportConfig
from shards.errors import InputError

IDS = "ids"
FILES = {  # dataset -> its file, and the shape of a clip
    "vlaudio_features": ("avqa_vlaudio_PANNs_feat.h5", (2048,)),
    "resnet_features": ("avqa_appearance_resnet101_feat.h5", (8, 16, 2048)),
    "resnext_features": ("avqa_motion_resnext101_feat.h5", (8, 2048)),
}
VISUAL = {
    "appearance": ("resnet_features",),
    "motion": ("resnext_features",),
    "both": ("resnext_features", "resnet_features"),
}


class AvqaHdf5Layout(ImportConfig):
    """HDF5 files of AVQA, whose rows are mapped by their ids; needs the extra `hdf5`.

    Attributes:
        visual: "appearance", 16 frames of each step as its places; "motion", one row a step; "both", motion as the
            frame token before the 16.
        map: video_map.json, from a video's name to its number, relative to the source.
    """

    rows: int = Field(default=8, ge=1)
    seconds: float = Field(default=1.25, gt=0)
    samples_per_shard: int = Field(default=256, ge=1)
    visual: Literal["appearance", "motion", "both"] = "both"
    map: Path = Path("video_map.json")


def find(config: AvqaHdf5Layout, source: Path) -> Found:
    """The videos of the map that the files have rows of.

    Raises:
        InputError: a file is missing, not of this form, or h5py is not installed.
    """
    numbers = read_map(source / config.map)
    names = ("vlaudio_features", *VISUAL[config.visual])
    entries: dict[str, dict[str, Entry]] = {}
    notes: list[Note] = []
    for name in names:
        rows, more = _rows(source, name)
        notes += more
        entry_of = {video: rows[number] for video, number in numbers.items() if number in rows}
        for video, entry in entry_of.items():
            entries.setdefault(video, {})[name] = entry
        notes += _unknown(name, rows, set(numbers.values()))
    parts = {name: _part(name, config.rows) for name in names}
    members = {"audio": (parts[names[0]],), "visual": tuple(parts[name] for name in names[1:])}
    return Found(members, config.visual == "both", entries, tuple(notes))


def read_map(path: Path) -> dict[str, int]:
    """Video name -> number.

    Raises:
        InputError: it can't be read, or is no such map.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        remedy = "put the published video_map.json there, or name it: map=FILE"
        raise InputError(f"can't be read: {error.strerror}", file=path, field="map", remedy=remedy) from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file=path, field="map", remedy="download it again") from None
    fine = isinstance(found, dict) and all(type(number) is int for number in found.values())
    if not fine or len(set(found.values())) < len(found):
        remedy = 'the form is {"<video name>": <number>, ...}, each number once'
        raise InputError("no map of videos to numbers", file=path, field="map", remedy=remedy)
    return found


def _rows(source: Path, name: str) -> tuple[dict[int, Entry], list[Note]]:
    """Video number -> its row; a number that has several rows has none, and a note."""
    file, shape = FILES[name]
    path = source / file
    with open_hdf5(path) as opened:
        features, ids = checked_dataset(opened, name, path), checked_dataset(opened, IDS, path)
        if features.shape[1:] != shape or ids.shape != features.shape[:1] or ids.dtype.kind not in "iu":
            message = f"'{name}' is {list(features.shape)} with ids {ids.dtype} {list(ids.shape)}"
            wanted = ", ".join(map(str, ("N", *shape)))
            raise InputError(message, file=path, field=name, remedy=f"[{wanted}] with ids int [N] is read")
        numbers = ids[:].tolist()
    size, counts = path.stat().st_size, Counter(numbers)
    rows = {number: Entry(file, size, row) for row, number in enumerate(numbers) if counts[number] == 1}
    notes = [
        Note(
            what=What.SAME_ID,
            outcome="left out",
            file=f"{file}: ids",
            message=f"id {number} is that of {count} rows",
            remedy="which of them is right can't be told: extract the video again",
        )
        for number, count in counts.items()
        if count > 1
    ]
    return rows, notes


def _unknown(name: str, rows: dict[int, Entry], known: set[int]) -> list[Note]:
    return [
        Note(
            what=What.STRANGE,
            outcome="left out",
            file=f"{FILES[name][0]}: row {entry.row}",
            message=f"id {number} is not in the map of videos",
            remedy="give the video_map.json that the features were made with",
        )
        for number, entry in sorted(rows.items())
        if number not in known
    ]


def _part(name: str, rows: int) -> Part:
    shape: Any = FILES[name][1]
    if len(shape) == 1:
        return Part(name, "clip", shape)
    return Part(name, "rows" if len(shape) == 2 else "places", (rows, *shape[1:]))


LAYOUT = Layout("AVQA's HDF5 files: CNN14, ResNet-101 and ResNeXt-101, rows mapped by ids", AvqaHdf5Layout, find)
