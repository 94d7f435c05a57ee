"""audit.csv: one row per clip with its flags, its measures and the group it belongs to."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from shards.errors import InputError

AUDIT_FILE = "audit.csv"
FLAGS = {
    "failed": "it can't be decoded",
    "silent": "no sound to be heard",
    "constant_audio": "a steady tone or hum, without any change",
    "clipped": "sound cut off at its peaks",
    "cancelled_stereo": "channels of opposite phase, which cancel each other in the mix",
    "short_audio": "hardly any sound",
    "black": "nothing but black",
    "constant_visual": "one colour and nothing else",
    "frozen": "a video that stands still",
    "blurred": "no sharp edge in the picture",
    "short_visual": "hardly any picture",
    "length_differs": "sound and picture of different length",
    "clock_offset": "sound and picture begin at different times of the file's clock",
    "low_agreement": "sound and motion do not go together (an estimate)",
    "duplicate_audio": "another clip has the same sound",
    "duplicate_visual": "another clip has the same picture",
    "shared_source": "another clip is a piece of the same file",
    "across_splits": "a clip that has the same sound, picture or file is in another split",
}
FIRST_COLUMNS = ("id", "split", "label", "flags", "unchecked", "group", "duplicate_of", "audio", "visual")


def read_flags(path: str | Path) -> dict[str, frozenset[str]]:
    """Flags of every clip, by its id; ids are those of the manifest and of the samples' json.

    Args:
        path: an audit.csv, or the folder that holds one.

    Raises:
        InputError: there is none, it has no such columns, a flag that nobody knows, or an id twice.
    """
    found: dict[str, frozenset[str]] = {}
    for line, row in read_rows(path, ("id", "flags")):
        flags = frozenset(filter(None, row["flags"].split(";")))
        if unknown := sorted(flags - FLAGS.keys()):
            raise _wrong(path, line, "flags", f"no flag is called '{unknown[0]}'", f"known: {', '.join(FLAGS)}")
        if row["id"] in found:
            raise _wrong(path, line, "id", f"'{row['id']}' is there twice", "make the audit again")
        found[row["id"]] = flags
    return found


def read_rows(path: str | Path, columns: tuple[str, ...] = FIRST_COLUMNS) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and row of every clip, one at a time.

    Raises:
        InputError: there is no such file, or a column is missing.
    """
    file = _file(path)
    try:
        with file.open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    raise _wrong(path, 1, name, "missing column", "make the audit again: avmend audit")
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise _wrong(path, reader.line_num, None, "the row is cut short", "make the audit again")
                yield reader.line_num, row
    except OSError as error:
        remedy = "give the folder that 'avmend audit' wrote, or its audit.csv"
        raise InputError(f"can't be read: {error.strerror}", file=file, remedy=remedy) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"is no audit.csv: {error}", file=file, remedy="make the audit again") from None


def _file(path: str | Path) -> Path:
    return Path(path) / AUDIT_FILE if Path(path).is_dir() else Path(path)


def _wrong(path: str | Path, line: int, field: str | None, message: str, remedy: str) -> InputError:
    return InputError(message, file=f"{_file(path)}:{line}", field=field, remedy=remedy)
