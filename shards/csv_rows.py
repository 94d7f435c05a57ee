"""Rows of other people's CSV files, with the line each begins on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from shards.errors import InputError


def csv_rows(path: str | Path, *, header: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line, columns) of every row that is not empty; with ``header``, without the first.

    Raises:
        InputError: the file can't be read, or is no CSV in UTF-8.
    """
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
