"""Manifests from CAV-MAE's label files of AudioSet and VGGSound.

The JSON is ``{"data": [{"wav", "video_id", "video_path", "labels": "mid,mid"}]}`` with frames at
``video_path/frame_{0-9}/<video_id>.jpg``; its label CSV is ``index,mid,display_name``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import pydantic

from pipelines.corpora.corpus import CorpusConfig, StartProgress, Summary
from pipelines.corpora.public.split_files import SplitFiles
from pipelines.manifest import write_manifest
from shards.class_order import read_class_order, save_class_order
from shards.csv_rows import csv_rows
from shards.errors import InputError, nearest

FRAMES = 10
MIDDLE_FRAME = 5  # the frame that CAV-MAE takes at test (of frames 0 to 9)


def read_labels(path: str | Path) -> dict[str, str]:
    """The label CSV ``index,mid,display_name``: mid -> display name.

    Raises:
        InputError: the file or a column is missing, a mid appears twice.
    """
    labels: dict[str, str] = {}
    for line, row in csv_rows(path, header=True):
        if len(row) != 3:
            raise InputError(
                f"{len(row)} columns", file=f"{path}:{line}", remedy="the columns are index,mid,display_name"
            )
        mid, name = row[1].strip(), row[2].strip()
        if labels.setdefault(mid, name) != name:
            raise InputError(f"'{mid}' has two names", file=f"{path}:{line}", field="mid", remedy="keep one of them")
    return labels


class CavmaeJsonConfig(CorpusConfig):
    """A manifest from CAV-MAE's JSON files of AudioSet or VGGSound."""

    files: SplitFiles
    """The JSON files, each with its split; repeat per split."""
    labels: Path
    """CSV of index,mid,display_name; display names become the labels, and the index their order in classes.json."""
    audio_root: Path | None = None
    """Folder of the sound files here; it replaces their folder in the JSON."""
    visual_root: Path | None = None
    """Folder of frame_0 ... frame_9 here; it replaces the JSON's video_path."""
    frame: int = pydantic.Field(default=MIDDLE_FRAME, ge=0, lt=FRAMES)
    """Which of the 10 frames the manifest names."""


def build(config: CavmaeJsonConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``manifest.csv`` in ``out``.

    Raises:
        InputError: a file is not of this form (naming file and entry), a label is unknown, an id is there
            twice.
    """
    names = read_labels(config.labels)
    rows = [_row(config, split, where, entry, names) for split, path in config.files for where, entry in _entries(path)]
    return write_rows(out, rows, read_class_order(config.labels))


def write_rows(out: str | Path, rows: Iterable[Mapping[str, Any]], order: tuple[str, ...] = ()) -> Summary:
    """Write the rows as ``manifest.csv`` in ``out``, and the classes' order, if it is known, as ``classes.json``."""
    path = Path(out) / "manifest.csv"
    clips = write_manifest(path, rows)
    lines = [f"{len(clips)} clips: {path}"]
    if order:
        lines.append(f"{len(order)} classes in their order: {save_class_order(out, order)}")
    return Summary(len(clips), {"default": path}, lines=tuple(lines))


def _row(
    config: CavmaeJsonConfig, split: str, where: str, entry: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, Any]:
    wav, folder = entry["wav"], entry["video_path"]
    if config.audio_root is not None and wav:
        wav = str(config.audio_root.resolve() / PureWindowsPath(wav).name)
    if config.visual_root is not None and folder:
        folder = str(config.visual_root.resolve())
    row = {"id": entry["video_id"], "split": split, "label": _names(where, entry["labels"], names)}
    if wav:
        row["audio_path"] = wav
    if folder:
        row["image_path"] = str(Path(folder) / f"frame_{config.frame}" / f"{entry['video_id']}.jpg")
    return row


def _entries(path: str | Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    except (ValueError, RecursionError) as error:
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
            hint = nearest(mid, names).rstrip() or "give the label CSV that belongs to this JSON"
            raise InputError(f"unknown label '{mid}'", file=where, field="labels", remedy=hint)
        found.append(names[mid])
    return found
