"""Results that are kept: what they were made of, written last, so that the same question is answered once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

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
