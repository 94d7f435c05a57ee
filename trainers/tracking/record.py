"""mlflow.json: which MLflow run a folder has, and how it ended, for those who ask the disk alone."""

from __future__ import annotations

import json
from pathlib import Path

from shards.atomic import write_text

FILE = "mlflow.json"


def begin(folder: Path, run_id: str, store: str) -> None:
    """The folder has this run, in the store of that URI."""
    _write(folder, {"run_id": run_id, "store": store})


def end(folder: Path, status: str) -> None:
    """Its run ended so."""
    _write(folder, {**json.loads((folder / FILE).read_text()), "status": status})


def run_of(folder: Path) -> str | None:
    """Id of the run that the folder had last, None if no file tells."""
    return _read(folder).get("run_id")


def is_closed(folder: Path) -> bool:
    """Whether the MLflow run of `folder` was ended as FINISHED; asks the disk alone."""
    return _read(folder).get("status") == "FINISHED"


def is_open(folder: Path) -> bool:
    """Whether the MLflow run of `folder` was begun and not ended since; asks the disk alone."""
    found = _read(folder)
    return "run_id" in found and "status" not in found


def _read(folder: Path) -> dict[str, str]:
    try:
        return json.loads((Path(folder) / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _write(folder: Path, content: dict[str, str]) -> None:
    write_text(folder / FILE, json.dumps(content) + "\n")
