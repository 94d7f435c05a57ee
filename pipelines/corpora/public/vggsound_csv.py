"""A manifest from VGGSound's CSV (no header).

Two forms are read: ``YouTube id,start second,label,split`` and, per split, ``<id>_<start>.mp4,label``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from pipelines.corpora.corpus import CorpusConfig, StartProgress, Summary
from pipelines.corpora.public.cavmae_json import write_rows
from shards.class_order import read_class_order
from shards.csv_rows import csv_rows
from shards.errors import InputError, nearest


class VggsoundCsvConfig(CorpusConfig):
    """A manifest from VGGSound's CSV."""

    csv: Path
    """File of id,start,label,split or of file,label."""
    videos: Path
    """Folder of the 10 s clips, <YouTube id>_<start second, 6 digits>.mp4."""
    split: str | None = None
    """The split of a CSV that has none."""
    classes: Path | None = None
    """File of the classes in the order of a published head; labels are checked against it."""
    ending: str = ".mp4"
    """Of the video files."""


def build(config: VggsoundCsvConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``manifest.csv`` in ``out``.

    Raises:
        InputError: a row of another form, a start that is no number, a missing split, an id twice, an unknown class.
    """
    folder, rows = config.videos.resolve(), []
    order = () if config.classes is None else read_class_order(config.classes)
    for line, row in csv_rows(config.csv):
        name, label, split = _parse(f"{config.csv}:{line}", row, config.split)
        if order:
            check_label(label, order, f"{config.csv}:{line}")
        rows.append({"id": name, "path": str(folder / f"{name}{config.ending}"), "label": label, "split": split})
    return write_rows(out, rows, order)


def check_label(label: str, classes: Collection[str], where: str) -> None:
    """Refuse a label that is not among the classes.

    Raises:
        InputError: names the nearest.
    """
    if label not in classes:
        remedy = nearest(label, classes).rstrip() or "give the class order file that belongs to these labels"
        raise InputError(f"unknown label '{label}'", file=where, field="label", remedy=remedy)


def _parse(where: str, row: Sequence[str], split: str | None) -> tuple[str, str, str]:
    """Id, label and split of a row."""
    if len(row) == 4:
        if not re.fullmatch(r"\d{1,6}", row[1].strip()):
            raise InputError(f"'{row[1]}' is no start", file=where, field="start", remedy="give whole seconds")
        return f"{row[0].strip()}_{int(row[1]):06d}", row[2], row[3]
    if len(row) != 2:
        raise InputError(f"{len(row)} columns", file=where, remedy="the columns are id,start,label,split or file,label")
    if split is None:
        raise InputError("this CSV has no split", file=where, field="split", remedy="give --split test, say")
    return Path(row[0].strip()).stem, row[1], split
