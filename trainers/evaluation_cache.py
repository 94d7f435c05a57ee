"""Results that are kept: what they were made of, written last, so that the same question is answered once."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from shards.atomic import write_text

DONE = "evaluation.json"
RowT = TypeVar("RowT")


def read_kept(out: Path, made_of: dict[str, Any], kind: type[RowT]) -> list[RowT] | None:
    """The rows of an evaluation that was finished in `out`, if it was this one."""
    try:
        done = json.loads((out / DONE).read_text())
        return [kind(**row) for row in done["rows"]] if done["made_of"] == made_of else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def begin(out: Path) -> None:
    """Make room for new results, whose MLflow runs are new ones."""
    out.mkdir(parents=True, exist_ok=True)
    (out / DONE).unlink(missing_ok=True)
    shutil.rmtree(out / "mlflow", ignore_errors=True)


def keep(out: Path, made_of: dict[str, Any], rows: Sequence[Any]) -> None:
    """Say that the results in `out` are whole."""
    done = {"made_of": made_of, "rows": [asdict(row) for row in rows]}
    write_text(out / DONE, json.dumps(done, indent=1) + "\n")


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Dataclass instances of one kind as a table, a column per field."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def rows_of(table: str, kind: type[RowT]) -> list[RowT] | None:
    """The rows of a table's text as `write_rows` wrote it; None if its columns are not those of `kind`."""
    reader = csv.DictReader(io.StringIO(table))
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    if list(reader.fieldnames or ()) != names:
        return None
    hints = get_type_hints(kind)
    return [kind(**{name: hints[name](row[name]) for name in names}) for row in reader]
