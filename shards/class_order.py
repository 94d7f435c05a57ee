"""Class order files: the label list of a published head, in the order of its outputs.

Three forms are read: ``index,mid,display_name`` with a header (AudioSet's ``class_labels_indices.csv``, CAV-MAE's of
VGGSound, VGGSounder's ``classes.csv``), where the index column is the order; VGGSound's ``stat.csv``,
``label,count,group`` without a header; and one label a line. In the last two the order is the file's.
"""

from __future__ import annotations

import json
from pathlib import Path

from shards.atomic import write_text
from shards.csv_rows import csv_rows
from shards.errors import InputError

HEADER = ["index", "mid", "display_name"]
FORMS = f"{','.join(HEADER)} with this header; label,count,group; one (quoted) label a line"
CLASSES_FILE = "classes.json"  # a list of labels
ORDERS = Path(__file__).resolve().parent / "class_orders"
KNOWN = ("audioset", "vggsound")


def find_class_order(name: str | Path) -> tuple[str, ...]:
    """The labels of a file, or of a published order by its name (`KNOWN`); a file of that name comes first.

    Raises:
        InputError: as `read_class_order`.
    """
    path = Path(name)
    if path.is_file():
        return read_class_order(path)
    if path.name in KNOWN:
        return read_class_order(ORDERS / f"{path.name}.csv")
    remedy = f"give {', '.join(KNOWN)}, or a file: {FORMS}"
    raise InputError("no such class order", file=path, field="labels", remedy=remedy)


def read_class_order(path: str | Path) -> tuple[str, ...]:
    """The labels in the order of a head's outputs.

    Raises:
        InputError: the file is unreadable, empty, of no known form; an index is missing or there twice; a label
            is empty or there twice.
    """
    rows = list(csv_rows(path))
    if not rows:
        raise InputError("no labels", file=path, remedy="give a class order file")
    if [column.strip() for column in rows[0][1]] == HEADER:
        labels = _by_index(path, rows[1:])
    else:
        labels = [(line, row[0].strip()) for line, row in rows]
        if not _is_list(rows):
            raise InputError("no class order file", file=path, remedy=f"the forms are {FORMS}")
    lines: dict[str, int] = {}
    for line, label in labels:
        if not label:
            raise InputError("an empty label", file=f"{path}:{line}", remedy="give every class its name")
        if lines.setdefault(label, line) != line:
            message = f"'{label}' is in lines {lines[label]} and {line}"
            raise InputError(message, file=f"{path}:{line}", remedy="give every class a name of its own")
    return tuple(label for _, label in labels)


def save_class_order(folder: str | Path, labels: tuple[str, ...]) -> Path:
    """Write ``classes.json``, a list that keeps the order."""
    path = Path(folder) / CLASSES_FILE
    write_text(path, json.dumps(labels, ensure_ascii=False, indent=0) + "\n")
    return path


def _by_index(path: str | Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, str]]:
    """(line, label) sorted by the index column, which must be 0, 1, 2, ..."""
    found: dict[int, tuple[int, str]] = {}
    for line, row in rows:
        where = f"{path}:{line}"
        if len(row) != len(HEADER):
            raise InputError(f"{len(row)} columns", file=where, remedy=f"the columns are {','.join(HEADER)}")
        if not row[0].strip().isdecimal():
            raise InputError(f"'{row[0]}' is no index", file=where, field="index", remedy="give 0, 1, 2, ...")
        index = int(row[0])
        if index in found:
            message = f"{index} is in lines {found[index][0]} and {line}"
            raise InputError(message, file=where, field="index", remedy="give every class an index of its own")
        found[index] = (line, row[2].strip())
    if missing := sorted(set(range(len(found))) - set(found)):
        raise InputError(f"no class {missing[0]}", file=path, field="index", remedy="give 0, 1, 2, ... without gaps")
    return [found[index] for index in range(len(found))]


def _is_list(rows: list[tuple[int, list[str]]]) -> bool:
    """All rows are a label, or all are a label, a count and a group."""
    counts = all(len(row) == 3 and row[1].strip().isdecimal() for _, row in rows)
    return counts or all(len(row) == 1 for _, row in rows)
