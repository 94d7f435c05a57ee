"""Manifests from the label files of AudioSet and VGGSound: CAV-MAE's JSON, and VGGSound's own CSV.

CAV-MAE's JSON is ``{"data": [{"wav", "video_id", "video_path", "labels": "mid,mid"}]}`` with frames at
``video_path/frame_{0-9}/<video_id>.jpg``; its label CSV is ``index,mid,display_name``.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from pipelines.manifest import Clip, write_manifest
from shards.errors import InputError

FRAMES = 10
MIDDLE_FRAME = 5  # the frame that CAV-MAE takes at test (of frames 0 to 9)


def read_labels(path: str | Path) -> dict[str, str]:
    """The label CSV ``index,mid,display_name``: mid -> display name.

    Raises:
        InputError: the file or a column is missing, a mid appears twice.
    """
    labels: dict[str, str] = {}
    for line, row in _csv(path, header=True):
        if len(row) != 3:
            raise InputError(
                f"{len(row)} columns", file=f"{path}:{line}", remedy="the columns are index,mid,display_name"
            )
        mid, name = row[1].strip(), row[2].strip()
        if labels.setdefault(mid, name) != name:
            raise InputError(f"'{mid}' has two names", file=f"{path}:{line}", field="mid", remedy="keep one of them")
    return labels


def cavmae_manifest(
    files: Sequence[tuple[str, str | Path]],
    labels: str | Path,
    out: str | Path,
    *,
    audio_root: str | Path | None = None,
    visual_root: str | Path | None = None,
    frame: int = MIDDLE_FRAME,
) -> list[Clip]:
    """Write ``manifest.csv`` in ``out`` for CAV-MAE's JSON files, and return its clips.

    Args:
        files: (split, JSON file), such as ``("train", "balanced_train.json")``.
        labels: the label CSV; display names become the labels.
        out: folder of the manifest.
        audio_root: where the sound files are here; their folder in the JSON is replaced by it.
        visual_root: the folder of ``frame_0`` ... ``frame_9`` here, replacing ``video_path``.
        frame: which of the 10 frames the manifest names.

    Raises:
        InputError: a file is not of this form (naming file and entry), a label is unknown, an id is there
            twice.
    """
    if not 0 <= frame < FRAMES:
        raise InputError(f"there is no frame {frame}", field="--frame", remedy=f"give 0 to {FRAMES - 1}")
    names = read_labels(labels)
    rows = []
    for split, path in files:
        for where, entry in _entries(path):
            wav, folder = entry["wav"], entry["video_path"]
            if audio_root is not None and wav:
                wav = str(Path(audio_root).resolve() / PureWindowsPath(wav).name)
            if visual_root is not None and folder:
                folder = str(Path(visual_root).resolve())
            row = {"id": entry["video_id"], "split": split, "label": _names(where, entry["labels"], names)}
            if wav:
                row["audio_path"] = wav
            if folder:
                row["image_path"] = str(Path(folder) / f"frame_{frame}" / f"{entry['video_id']}.jpg")
            rows.append(row)
    return write_manifest(Path(out) / "manifest.csv", rows)


def vggsound_manifest(
    path: str | Path, videos: str | Path, out: str | Path, *, split: str | None = None, ending: str = ".mp4"
) -> list[Clip]:
    """Write ``manifest.csv`` in ``out`` for VGGSound's CSV (no header), and return its clips.

    Two forms are read: ``YouTube id,start second,label,split`` and, per split, ``<id>_<start>.mp4,label``.

    Args:
        path: the CSV file.
        videos: folder of the 10 s clips ``<YouTube id>_<start second, 6 digits>.mp4``.
        out: folder of the manifest.
        split: the split of a CSV that has none.
        ending: of the video files.

    Raises:
        InputError: a row of another form, a start that is no number, a missing split, an id twice.
    """
    folder, rows = Path(videos).resolve(), []
    for line, row in _csv(path):
        name, label, its_split = _vggsound_row(f"{path}:{line}", row, split)
        rows.append({"id": name, "path": str(folder / f"{name}{ending}"), "label": label, "split": its_split})
    return write_manifest(Path(out) / "manifest.csv", rows)


def _vggsound_row(where: str, row: Sequence[str], split: str | None) -> tuple[str, str, str]:
    if len(row) == 4:
        if not re.fullmatch(r"\d{1,6}", row[1].strip()):
            raise InputError(f"'{row[1]}' is no start", file=where, field="start", remedy="give whole seconds")
        return f"{row[0].strip()}_{int(row[1]):06d}", row[2], row[3]
    if len(row) != 2:
        raise InputError(f"{len(row)} columns", file=where, remedy="the columns are id,start,label,split or file,label")
    if split is None:
        raise InputError("this CSV has no split", file=where, field="--split", remedy="give --split test, say")
    return Path(row[0].strip()).stem, row[1], split


def _entries(path: str | Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", file=path, remedy="give one of CAV-MAE's JSON files") from None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not data:
        raise InputError("no entries", file=path, field="data", remedy='the form is {"data": [{...}, ...]}')
    for number, entry in enumerate(data):
        where = f"{path}: entry {number}"
        for name in ("video_id", "wav", "video_path", "labels"):
            if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
                raise InputError("missing, or no string", file=where, field=name, remedy=f"give '{name}'")
        yield where, entry


def _names(where: str, mids: str, names: Mapping[str, str]) -> list[str]:
    found = []
    for mid in (part.strip() for part in mids.split(",")):
        if mid not in names:
            near: Any = difflib.get_close_matches(mid, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "give the label CSV that belongs to this JSON"
            raise InputError(f"unknown label '{mid}'", file=where, field="labels", remedy=hint)
        found.append(names[mid])
    return found


def _csv(path: str | Path, *, header: bool = False) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row and not (header and reader.line_num == 1):
                    yield reader.line_num, row
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a UTF-8 CSV: {error}", file=path, remedy="check the file") from None
