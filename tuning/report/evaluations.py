"""The evaluations among the chosen runs: their rows, and what they were made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.keys import safe_name
from trainers import results as classified
from trainers.avqa import results as asked
from trainers.evaluation_cache import DONE, rows_of
from trainers.tracking import Recorded, read_artifact
from tuning.report.run_selection import Chosen

TABLE = "results.csv"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: of the study or of its folder.
        rows: of classification; or `results`, of question answering. The other one is empty.
        params: of its MLflow run: data, split, seed, ...
        config: what was evaluated, as the evaluation's folder has it; empty where that is not here.
        runs: by name, the folders of the runs that were evaluated.
    """

    name: str
    rows: tuple[classified.Row, ...]
    results: tuple[asked.Result, ...]
    params: dict[str, str]
    config: dict[str, Any]
    runs: dict[str, Path]


def evaluations(chosen: Chosen) -> Iterator[Evaluation | Recorded]:
    """The evaluations, newest first; the MLflow run itself where its table is nowhere to be found.

    The table is read from the evaluation's folder, or, where that is not here, from the run's artifacts. Of
    several evaluations into one folder the last one counts.
    """
    last = {run.name: run for run in chosen.of("evaluation") if run.status == "FINISHED"}
    for run in reversed(last.values()):
        folder = chosen.root / inner_name(run.name.removeprefix("evaluate-"))
        table = _table(chosen.root, folder, run)
        rows = rows_of(table, classified.Row) if table else None
        results = rows_of(table, asked.Result) if table and rows is None else None
        if not rows and not results:
            yield run
            continue
        parent, made_of = chosen.parent(run), _made_of(folder)
        yield Evaluation(
            parent.name if parent is not None and parent.kind == "study" else folder.name,
            tuple(rows or ()),
            tuple(results or ()),
            run.params,
            made_of.get("config", {}),
            dict(_folders(chosen.root, made_of.get("runs", []), rows or results or [])),
        )


def _table(root: Path, folder: Path, run: Recorded) -> str | None:
    path = folder / TABLE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return read_artifact(root, run.run_id, TABLE)


def _made_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / DONE).read_text(encoding="utf-8"))["made_of"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _folders(root: Path, evaluated: Sequence[str], rows: Any) -> Iterator[tuple[str, Path]]:
    """Every run's folder: beside the evaluation's, or where it was when it was evaluated."""
    was = {Path(path).name: Path(path) for path in evaluated}
    for name in dict.fromkeys(row.run for row in rows if row.run):
        here = root / inner_name(name)
        yield name, here if here.is_dir() else was.get(name, here)


def inner_name(name: str) -> str:
    """A run's name as a folder's in the folder of runs. Names come from stores that others write, too: one that
    leads elsewhere is made harmless."""
    return name if name == Path(name).name and name != ".." else safe_name(name)
