"""The manifest: one row per clip, CSV or JSON Lines, the only thing ingestion needs to know about a corpus.

Columns: ``id``, ``path`` (or ``audio_path`` and ``image_path``, of which one may be empty: that stream is
absent at source), ``label`` (``;`` between several), ``split``, and optionally ``group`` (clips that must
not be divided between splits), ``start`` and ``duration`` (seconds). Paths are relative to the manifest.
Commas, semicolons or tabs part the columns of a CSV, as its header line does; spaces after them do not count.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import posixpath
import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import numpy as np

from shards.atomic import write_text
from shards.errors import InputError, nearest
from shards.keys import safe_key
from shards.redaction import holds_credentials
from shards.store import Place, at_hand, place, url_of

COLUMNS = ("id", "path", "audio_path", "image_path", "label", "split", "group", "start", "duration")
REQUIRED = ("id", "label", "split")
MEDIA = ("path", "audio_path", "image_path")
JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
SPLITS = ("train", "val", "test")
BLOCK = 1 << 20  # bytes that are hashed at a time
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ENDS = (".", "/")  # folders that are no part of the path of what lies in them
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


def read_manifest(path: str | Place) -> list[Clip]:
    """All clips of a manifest, as `stream_manifest` gives them.

    Raises:
        InputError: as `stream_manifest`.
    """
    return list(stream_manifest(path))


def stream_manifest(path: str | Place, begin: Mark | None = None, end: Mark | None = None) -> Iterator[Clip]:
    """Read and check a manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``) row by row, in the file's order.

    Missing media files are no error here: ingestion quarantines those clips, one by one. Of a row 8 bytes stay in
    memory, 24 of one with a group; what rows contradict together (an id twice, a group in two splits) is told after
    the last one.

    Args:
        begin: leave out the rows up to there (and do not compare with them).
        end: leave out those behind it, which others may be writing.

    Raises:
        InputError: with ``file:line``, the field and a remedy, for a missing or empty file, missing or
            unknown columns, duplicate ids, an empty label or split, a start or duration that is no
            number, a row that names no file (or names it twice), a group in more than one split, a split
            that is ``train``, ``val`` or ``test`` but for its capitals, a name that is twice in a JSON object.
    """
    path = place(path)
    seen = _Seen()
    for _, clip in _numbered_clips(path, begin, end):
        seen.add(clip)
        yield clip
    if not len(seen) and begin is None:
        raise InputError("the manifest has no clips", file=path, remedy="add at least one row")
    if seen.suspicious():
        check_together(path)


def check_together(path: Place) -> None:
    """Compare all rows with each other.

    Raises:
        InputError: for the first id that is there twice, or group that is in two splits.
    """
    _contradictions(path, _numbered_clips(path))


def line_of(path: Place, clip_id: str) -> int:
    """The line on which the row of a clip begins."""
    return next(line for line, clip in _numbered_clips(path) if clip.id == clip_id)


@dataclass(frozen=True)
class Mark:
    """A place in a manifest behind a row: bytes and lines before it, the sha256 of those bytes, and whether the row
    ends with a line end, so that nothing can be added to it."""

    bytes: int
    lines: int
    sha256: str
    ended: bool

    @classmethod
    def end_of(cls, path: Place) -> Mark:
        """The file's end.

        Raises:
            InputError: the file can't be read.
        """
        digest, size, lines, last = hashlib.sha256(), 0, 0, b""
        with _read_errors(path), at_hand(path).open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size, lines, last = size + len(block), lines + block.count(b"\n"), block
        return cls(size, lines, digest.hexdigest(), last.endswith(b"\n"))

    def holds(self, path: Place) -> bool:
        """Whether the file begins with these bytes, and goes on with another row if at all."""
        digest, left = hashlib.sha256(), self.bytes
        with at_hand(path).open("rb") as file:
            while left and (block := file.read(min(BLOCK, left))):
                digest.update(block)
                left -= len(block)
            goes_on = bool(file.read(1))
        return not left and digest.hexdigest() == self.sha256 and (self.ended or not goes_on)


class _Seen:
    """Hashes of ids, 8 bytes a clip, and of groups with their splits, 16 a clip that has one."""

    def __init__(self) -> None:
        self.ids, self.groups, self.splits = array("q"), array("q"), array("q")

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, clip: Clip) -> None:
        self.ids.append(hash(clip.id))
        if clip.group is not None:
            self.groups.append(hash(clip.group))
            self.splits.append(hash(clip.split))

    def suspicious(self) -> bool:
        """Whether an id may be there twice, or a group in two splits; the hashes of ids are sorted where they are."""
        ids = np.frombuffer(self.ids, np.int64)
        ids.sort()
        if bool((ids[1:] == ids[:-1]).any()):
            return True
        groups, splits = (np.frombuffer(values, np.int64) for values in (self.groups, self.splits))
        order = np.argsort(groups, kind="stable")
        groups, splits = groups[order], splits[order]
        return bool(((groups[1:] == groups[:-1]) & (splits[1:] != splits[:-1])).any())


def _contradictions(path: Place, rows: Iterable[tuple[int, Clip]]) -> None:
    """Raises InputError for the first id that is there twice, or group that is in two splits."""
    lines: dict[str, int] = {}
    groups: dict[str, tuple[str, int]] = {}
    for line, clip in rows:
        where = f"{path}:{line}"
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


def _numbered_clips(path: Place, begin: Mark | None = None, end: Mark | None = None) -> Iterator[tuple[int, Clip]]:
    """Line and clip of each row, checked by itself."""
    read = _json_rows if _is_json_lines(path) else _csv_rows
    with _read_errors(path):
        with at_hand(path).open("rb") as file:
            if b"\0" in file.read(4096):
                raise InputError("not UTF-8, but UTF-16 or no text", file=path, remedy="save the manifest as UTF-8")
        for line, row in read(path, begin, end):
            yield line, _clip(f"{path}:{line}", path.parent, row)


@contextmanager
def _read_errors(path: Place) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 ({error})", file=path, remedy="save the manifest as UTF-8") from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the manifest's path") from None


def write_manifest(path: str | Place, rows: Iterable[Row]) -> list[Clip]:
    """Write ``rows`` (column -> value; ``label`` a string or a list) as a manifest, and return its clips.

    The rows are checked first, as :func:`read_manifest` would, and nothing is written if they are wrong.
    The file appears whole or not at all, and the same rows give the same bytes.

    Raises:
        InputError: the rows would not read back; the line is the one that the row would have had.
    """
    path = place(path)
    kept = [{name: value for name, value in row.items() if value not in (None, "")} for row in rows]
    json_lines = _is_json_lines(path)
    clips = _checked(path, kept, 1 if json_lines else 2)
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


def _checked(path: Place, rows: Sequence[Row], first: int) -> list[Clip]:
    """The clips of rows that are to be written from line `first` on."""
    clips = []
    for line, row in enumerate(rows, start=first):
        _check_columns(f"{path}:{line}", list(row))
        clips.append(_clip(f"{path}:{line}", path.parent, row))
    if not clips:
        raise InputError("the manifest has no clips", file=path, remedy="add at least one row")
    _contradictions(path, enumerate(clips, start=first))
    return clips


def _is_json_lines(path: Place) -> bool:
    if path.suffix.lower() not in (*TABLES, *JSON_LINES):
        raise InputError(f"'{path.suffix}' is no kind of manifest", file=path, remedy="use .csv or .jsonl")
    return path.suffix.lower() in JSON_LINES


def delimiter(header: str) -> str:
    """What parts the columns of a CSV: the one of comma, semicolon and tab that its header line has the most of."""
    return max(",;\t", key=header.count)


class _Beginning(io.FileIO):
    """A file as if it ended after so many bytes, for a BufferedReader."""

    def __init__(self, path: Path, size: int):
        super().__init__(path)
        self.size = size

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[: max(self.size - self.tell(), 0)]) or 0


def _opened(path: Place, end: Mark | None) -> io.BufferedReader:
    return at_hand(path).open("rb") if end is None else io.BufferedReader(_Beginning(at_hand(path), end.bytes))


def _csv_rows(path: Place, begin: Mark | None, end: Mark | None) -> Iterator[tuple[int, Row]]:
    with io.TextIOWrapper(_opened(path, end), encoding="utf-8-sig", newline="") as file:
        parted = delimiter(next((line for line in file if line.strip()), ""))
        file.seek(0)
        lines = _csv_lines(path, file, parted)
        at, header = next(lines, (1, []))
        header = [name.strip() for name in header]
        if header:
            _check_columns(f"{path}:{at}", header)
        if begin is not None:
            file.seek(begin.bytes)
            lines = _csv_lines(path, file, parted, begin.lines)
        for line, fields in lines:
            if len(fields) != len(header):
                raise InputError(
                    f"{len(fields)} fields, but the header has {len(header)}",
                    file=f"{path}:{line}",
                    remedy=f'put fields that hold {NAMES[parted]} in double quotes ("a{parted}b")',
                )
            yield line, dict(zip(header, fields, strict=True))


def _csv_lines(path: Place, file: TextIO, parted: str, before: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Fields of each row that is not blank, and the line where it begins: a quoted field may hold line breaks."""
    reader = csv.reader(file, strict=True, delimiter=parted, skipinitialspace=True)
    line = before + 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield line, fields
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"not CSV: {error}", file=f"{path}:{line}", remedy="check the quotes") from None


def _json_rows(path: Place, begin: Mark | None, end: Mark | None) -> Iterator[tuple[int, Row]]:
    with _opened(path, end) as raw:
        raw.seek(begin.bytes if begin else 0)
        for line, content in enumerate(raw, start=begin.lines + 1 if begin else 1):
            text = content.decode("utf-8-sig" if line == 1 else "utf-8")
            if not text.strip():
                continue
            try:
                row = json.loads(text, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                remedy = "one JSON object per line"
                raise InputError(f"not JSON: {error}", file=f"{path}:{line}", remedy=remedy) from None
            if not isinstance(row, dict):
                raise InputError(
                    f"a {type(row).__name__}, not an object",
                    file=f"{path}:{line}",
                    remedy='one JSON object per line, {"id": ..., "path": ..., "label": ..., "split": ...}',
                )
            _check_columns(f"{path}:{line}", list(row))
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


def _clip(where: str, folder: Place, row: Row) -> Clip:
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
    if value is None and not required:
        return ""
    if isinstance(value, (bool, list, dict)):
        raise InputError(f"{value!r} is no text", file=where, field=name, remedy="give a string")
    text = "" if value is None else str(value).strip()
    if required and not text:
        raise InputError("empty", file=where, field=name, remedy=f"give every clip a '{name}'")
    if _UNWRITABLE.search(text):
        raise InputError(f"{text!r} holds a control character", file=where, field=name, remedy="remove the character")
    return text


def _media(where: str, folder: Place, row: Row, name: str) -> str | None:
    text = _text(where, row, name)
    if url_of(text) and holds_credentials(text):
        remedy = "take them out; credentials come from the environment (AWS_ACCESS_KEY_ID, ...) alone"
        raise InputError("the address holds a password, a key or a signature", file=where, field=name, remedy=remedy)
    return joined(folder, text) if text else None


def joined(folder: Place, text: str) -> str:
    """What a manifest in ``folder`` means by a path: an address and an absolute path are as they are."""
    if isinstance(folder, Path):
        if text[:1].isalnum() and (there := str(folder)) not in _ENDS and text == os.path.normpath(text):
            return f"{there}/{text}"  # as below, in a tenth of the time
        return text if url_of(text) else str(folder / text)
    return text if url_of(text) or os.path.isabs(text) else f"{folder}/{PurePosixPath(text)}"


def relative(path: str, base: Place) -> str:
    """A path as seen from a manifest's folder; the same for corpora that lie in a folder and on a store."""
    if not url_of(path):
        if not isinstance(base, Path):
            return path
        inside = path.removeprefix(f"{base}/")
        if inside != path and inside[:1].isalnum() and inside == os.path.normpath(inside):
            return inside  # as below, in a tenth of the time
        return os.path.relpath(path, str(base))
    (scheme, _, rest), (other, _, folder) = path.partition("://"), str(base).partition("://")
    if scheme != other or rest.partition("/")[0] != folder.partition("/")[0]:
        return path
    return posixpath.relpath(f"/{rest}", f"/{folder}")


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
