"""Evaluation cache: evaluation.json says what the results of a folder were computed from, and is written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from models.conditions import CONDITIONS
from shards.atomic import write_text
from shards.errors import InputError
from shards.keys import safe_name
from shards.redaction import redacted_values

RECORD = "evaluation.json"
FILES = (  # besides the record, of any task; a figure of each protocol's corruptions is called by the protocol
    *("results.csv", "results.md", "results.png", "answers.parquet", "differences.csv", "cost.png"),
    *("confidence.csv", "risk_coverage.csv", "confidence.png", "by_audit.csv"),
    *("classes.csv", "corruptions.csv", "draws.csv", "masks.csv"),
)
RowT = TypeVar("RowT")


def cached_rows(out: Path, inputs: Mapping[str, Any], kind: type[RowT]) -> list[RowT] | None:
    """The rows of an evaluation that was finished in `out`, if it had these inputs."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return [kind(**row) for row in record["rows"]] if record["inputs"] == inputs else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def clear(out: Path, rows: int, overwrite: bool) -> None:
    """Make room for `rows` new results, whose MLflow runs are new ones: what an evaluation writes goes, other files
    stay.

    Raises:
        InputError: a larger table would be lost.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        before = len(json.loads((out / RECORD).read_text(encoding="utf-8"))["rows"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        before = 0
    if before > rows and not overwrite:
        remedy = "name another folder with --out, evaluate all of its runs together, or add --overwrite"
        message = f"holds a larger table: {before} figures, these are {rows}"
        raise InputError(message, file=out / "results.csv", field="out", remedy=remedy)
    (out / RECORD).unlink(missing_ok=True)
    shutil.rmtree(out / "mlflow", ignore_errors=True)
    for name in written_files():
        (out / name).unlink(missing_ok=True)


def written_files() -> Iterator[str]:
    """Names of all files that evaluations write into their folders, besides the record."""
    yield from FILES
    protocols = {c.corruption.protocol for c in CONDITIONS.values() if c.corruption is not None}
    yield from (f"{safe_name(protocol)}.png" for protocol in sorted(protocols))


def save_rows(out: Path, inputs: Mapping[str, Any], origin: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Record that the results in `out` are complete.

    Args:
        inputs: all that they depend on.
        origin: where that was (config with its paths, the runs' folders) and the commit; results depend on none of it.
    """
    record = {"inputs": inputs, "origin": redacted_values(origin), "rows": [asdict(row) for row in rows]}
    write_text(out / RECORD, json.dumps(record, indent=1) + "\n")


def read_origin(out: Path) -> dict[str, Any]:
    """Where the inputs of the results in `out` were; empty where that is not known."""
    try:
        return dict(json.loads((out / RECORD).read_text(encoding="utf-8"))["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
