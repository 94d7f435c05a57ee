"""The manifest: one row per clip, CSV or JSON Lines, the only thing ingestion needs to know about a corpus.

Columns: ``id``, ``path`` (or ``audio_path`` and ``image_path``, of which one may be empty: that stream is
absent at source), ``label`` (``;`` between several), ``split``, and optionally ``group`` (clips that must
not be divided between splits), ``start`` and ``duration`` (seconds). Paths are relative to the manifest.
Commas, semicolons or tabs part the columns of a CSV, as its header line does; spaces after them do not count.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.atomic import write_text
from shards.errors import InputError, nearest
from shards.keys import safe_key

COLUMNS = ("id", "path", "audio_path", "image_path", "label", "split", "group", "start", "duration")
REQUIRED = ("id", "label", "split")
MEDIA = ("path", "audio_path", "image_path")
JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
SPLITS = ("train", "val", "test")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SECONDS = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, lone surrogates

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Clip:
    """One row of a manifest, checked, with paths resolved.

    Attributes:
        id: as the manifest spells it.
        key: the id made safe for shards, see :func:`shards.keys.safe_key`.
        path: one file with both streams, or ``None`` when the row names two files.
        audio_path: file of the sound; ``None`` beside an ``image_path`` means absent at source.
        image_path: file of the picture; ``None`` beside an ``audio_path`` means absent at source.
        labels: at least one.
        split: ``train``, ``val``, ``test`` or another name of ``[A-Za-z0-9_-]``.
        group: what must not be divided between splits, if known.
        start: seconds into the file where the clip begins, if not at 0.
        duration: seconds that the clip lasts, if not to the end of the file.
    """

    id: str
    key: str
    path: str | None
    audio_path: str | None
    image_path: str | None
    labels: tuple[str, ...]
    split: str
    group: str | None
    start: float | None
    duration: float | None


def read_manifest(path: str | Path) -> list[Clip]:
    """Read and check a manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``), in the file's order.

    Missing media files are no error here: ingestion quarantines those clips, one by one.

    Raises:
        InputError: with ``file:line``, the field and a remedy, for a missing or empty file, missing or
            unknown columns, duplicate ids, an empty label or split, a start or duration that is no
            number, a row that names no file (or names it twice), a group in more than one split, a split
            that is ``train``, ``val`` or ``test`` but for its capitals, a name that is twice in a JSON object.
    """
    path = Path(path)
    read = _json_rows if _is_json_lines(path) else _csv_rows
    return _clips(path, read(path, _read_text(path)))


def write_manifest(path: str | Path, rows: Iterable[Row]) -> list[Clip]:
    """Write ``rows`` (column -> value; ``label`` a string or a list) as a manifest, and return its clips.

    The rows are checked first, as :func:`read_manifest` would, and nothing is written if they are wrong.
    The file appears whole or not at all, and the same rows give the same bytes.

    Raises:
        InputError: the rows would not read back; the line is the one that the row would have had.
    """
    path = Path(path)
    kept = [{name: value for name, value in row.items() if value not in (None, "")} for row in rows]
    json_lines = _is_json_lines(path)
    clips = _clips(path, enumerate(kept, start=1 if json_lines else 2))
    for row, clip in zip(kept, clips, strict=True):
        row["label"] = ";".join(clip.labels)
    columns = [name for name in COLUMNS if any(name in row for row in kept)]
    if json_lines:
        ordered = ({name: row[name] for name in columns if name in row} for row in kept)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ordered)
    else:
        buffer = io.StringIO()
        tabs = path.suffix.lower() == ".tsv"
        writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n", delimiter="\t" if tabs else ",")
        writer.writeheader()
        writer.writerows(kept)
        text = buffer.getvalue()
    write_text(path, text)
    return clips


def _is_json_lines(path: Path) -> bool:
    if path.suffix.lower() not in (*TABLES, *JSON_LINES):
        raise InputError(f"'{path.suffix}' is no kind of manifest", file=path, remedy="use .csv or .jsonl")
    return path.suffix.lower() in JSON_LINES


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if b"\0" in data[:4096]:
            raise InputError("not UTF-8, but UTF-16 or no text", file=path, remedy="save the manifest as UTF-8")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error})", file=path, remedy="save the manifest as UTF-8") from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the manifest's path") from None


def delimiter(text: str) -> str:
    """What parts the columns of a CSV: the one of comma, semicolon and tab that its header has the most of."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=header.count)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    parted = delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=parted, skipinitialspace=True)
    header: list[str] | None = None
    line = 1  # where the row begins: a quoted field may hold line breaks
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                if header is None:
                    header = [name.strip() for name in fields]
                    _check_columns(f"{path}:{line}", header)
                elif len(fields) != len(header):
                    raise InputError(
                        f"{len(fields)} fields, but the header has {len(header)}",
                        file=f"{path}:{line}",
                        remedy=f'put fields that hold {NAMES[parted]} in double quotes ("a{parted}b")',
                    )
                else:
                    yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=f"{path}:{line}", remedy="check the quotes") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not JSON: {error}", file=f"{path}:{line}", remedy="one JSON object per line") from None
        if not isinstance(row, dict):
            raise InputError(
                f"a {type(row).__name__}, not an object",
                file=f"{path}:{line}",
                remedy='one JSON object per line, {"id": ..., "path": ..., "label": ..., "split": ...}',
            )
        yield line, row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the name '{twice}' is there twice")
    return dict(pairs)


def _check_columns(where: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in COLUMNS:
            remedy = f"{nearest(name, COLUMNS, cutoff=0.5)}valid: {', '.join(COLUMNS)}"
            raise InputError("unknown column", file=where, field=name, remedy=remedy)
        if names.count(name) > 1:
            raise InputError("the column is there twice", file=where, field=name, remedy="keep one of them")
    for name in REQUIRED:
        if name not in names:
            raise InputError("missing column", file=where, field=name, remedy=f"add the column '{name}'")
    if not any(name in names for name in MEDIA):
        raise InputError(
            "missing column", file=where, field="path", remedy="add 'path', or 'audio_path' and 'image_path'"
        )


def _clips(path: Path, rows: Iterable[tuple[int, Row]]) -> list[Clip]:
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    groups: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        where = f"{path}:{line}"
        _check_columns(where, list(row))
        clip = _clip(where, path.parent, row)
        if clip.id in lines:
            raise InputError(
                f"'{clip.id}' is the id of lines {lines[clip.id]} and {line}",
                file=where,
                field="id",
                remedy="give every clip an id of its own",
            )
        lines[clip.id] = line
        if clip.group is not None:
            split, first = groups.setdefault(clip.group, (clip.split, line))
            if split != clip.split:
                raise InputError(
                    f"group '{clip.group}' is in '{split}' (line {first}) and '{clip.split}' (line {line})",
                    file=where,
                    field="group",
                    remedy="put all clips of a group into one split, or leave 'group' empty",
                )
        clips.append(clip)
    if not clips:
        raise InputError("the manifest has no clips", file=path, remedy="add at least one row")
    return clips


def _clip(where: str, folder: Path, row: Row) -> Clip:
    clip_id = _text(where, row, "id", required=True)
    split = sys.intern(_text(where, row, "split", required=True))  # one of each in memory, not one a row
    if not re.fullmatch(r"[A-Za-z0-9_-]+", split):
        raise InputError(
            f"'{split}' can't name a file", file=where, field="split", remedy="use letters, digits, _ and -"
        )
    if split not in SPLITS and split.lower() in SPLITS:
        message, remedy = f"'{split}' is not '{split.lower()}'", f"did you mean '{split.lower()}'?"
        raise InputError(message, file=where, field="split", remedy=remedy)
    media = {name: _media(where, folder, row, name) for name in MEDIA}
    _check_media(where, media)
    return Clip(
        id=clip_id,
        key=safe_key(clip_id),
        **media,
        labels=_labels(where, row),
        split=split,
        group=sys.intern(_text(where, row, "group")) or None,
        start=_seconds(where, row, "start"),
        duration=_seconds(where, row, "duration"),
    )


def _text(where: str, row: Row, name: str, *, required: bool = False) -> str:
    value = row.get(name)
    if isinstance(value, (bool, list, dict)):
        raise InputError(f"{value!r} is no text", file=where, field=name, remedy="give a string")
    text = "" if value is None else str(value).strip()
    if required and not text:
        raise InputError("empty", file=where, field=name, remedy=f"give every clip a '{name}'")
    if _UNWRITABLE.search(text):
        raise InputError(f"{text!r} holds a control character", file=where, field=name, remedy="remove the character")
    return text


def _media(where: str, folder: Path, row: Row, name: str) -> str | None:
    text = _text(where, row, name)
    return str(folder / text) if text else None


def _check_media(where: str, media: Mapping[str, str | None]) -> None:
    if not any(media.values()):
        raise InputError(
            "the row names no file",
            file=where,
            field="path",
            remedy="fill 'path', or at least one of 'audio_path' and 'image_path'",
        )
    if media["path"] and (media["audio_path"] or media["image_path"]):
        raise InputError(
            "the row names both a file with both streams and a file with one",
            file=where,
            field="path",
            remedy="fill either 'path', or 'audio_path' and 'image_path'",
        )


def _labels(where: str, row: Row) -> tuple[str, ...]:
    value = row.get("label")
    if isinstance(value, (list, tuple)):
        labels = [_text(where, {"label": label}, "label") for label in value]
    else:
        labels = [label.strip() for label in _text(where, row, "label").split(";")]
    if not labels or not all(labels):
        raise InputError(
            "an empty label", file=where, field="label", remedy="give every clip a label, ';' between several"
        )
    if any(";" in label for label in labels):
        raise InputError("a label holds ';'", file=where, field="label", remedy="';' separates labels")
    return tuple(map(sys.intern, dict.fromkeys(labels)))


def _seconds(where: str, row: Row, name: str) -> float | None:
    text = _text(where, row, name)
    if not text:
        return None
    number = isinstance(row[name], (int, float)) or _SECONDS.fullmatch(text)  # "1_0" is none
    value = float(text) if number else math.nan
    if not math.isfinite(value) or value < 0 or (name == "duration" and value == 0):
        wanted = "seconds above 0" if name == "duration" else "seconds from 0 up"
        raise InputError(f"'{text}' is no number of {wanted}", file=where, field=name, remedy=f"give {wanted}")
    return value
