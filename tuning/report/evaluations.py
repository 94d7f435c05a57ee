"""The evaluations among the chosen runs: their rows, and what they were made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers import results as classified
from trainers.avqa import results as asked
from trainers.kept import DONE, rows_of
from trainers.tracking import Recorded, read_artifact
from tuning.report.chosen import Chosen, kind_of

TABLE = "results.csv"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: of the study or of its folder.
        rows: of classification; or `results`, of question answering. The other one is empty.
        params: of its MLflow run: data, split, seed, ...
        runs: folders of the runs that were evaluated, where they are known.
    """

    name: str
    rows: tuple[classified.Row, ...]
    results: tuple[asked.Result, ...]
    params: dict[str, str]
    runs: tuple[Path, ...]


def evaluations(chosen: Chosen) -> Iterator[Evaluation | Recorded]:
    """The evaluations, oldest first; the MLflow run itself where its table is nowhere to be found.

    The table is read from the evaluation's folder, or, where that is not here, from the run's artifacts. Of
    several evaluations into one folder the last one counts.
    """
    last = {run.name: run for run in chosen.of("evaluation") if run.status == "FINISHED"}
    for run in last.values():
        folder = chosen.root / run.name.removeprefix("evaluate-")
        table = _table(chosen.root, folder, run)
        rows = rows_of(table, classified.Row) if table else None
        results = rows_of(table, asked.Result) if table and rows is None else None
        if not rows and not results:
            yield run
            continue
        parent = chosen.parent(run)
        yield Evaluation(
            parent.name if parent is not None and kind_of(parent) == "study" else folder.name,
            tuple(rows or ()),
            tuple(results or ()),
            run.params,
            tuple(_folders(chosen.root, folder, rows or results or [])),
        )


def _table(root: Path, folder: Path, run: Recorded) -> str | None:
    path = folder / TABLE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return read_artifact(root, run.run_id, TABLE)


def _folders(root: Path, folder: Path, rows: Any) -> Iterator[Path]:
    """Every run's folder once: beside the evaluation's, or where it was when it was evaluated."""
    try:
        known = [Path(p) for p in json.loads((folder / DONE).read_text())["made_of"]["runs"]]
    except (OSError, ValueError, KeyError):
        known = []
    was = {path.name: path for path in known}
    for name in dict.fromkeys(row.run for row in rows if row.run):
        yield root / name if (root / name).is_dir() else was.get(name, root / name)
