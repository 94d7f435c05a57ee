"""The evaluations among the selected runs: their rows, and what they were computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shards.store import Place
from shards.stored_folder import is_stored
from trainers.evaluation_cache import RECORD, read_origin
from trainers.recipe import Task
from trainers.recipes import TASKS
from trainers.tables import read_rows
from trainers.tracking import Recorded, read_artifact
from tuning.report.run_selection import Chosen, inner_name

TABLE = "results.csv"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        name: of the study or of its folder.
        task: whose rows they are.
        rows: of results.csv.
        params: of its MLflow run: data, split, seed, ...
        config: what was evaluated, as the evaluation's folder has it; empty where that is not here.
        runs: by name, the folders of the runs that were evaluated.
        read: the text of another of its tables by file name, None where that is nowhere.
    """

    name: str
    task: Task
    rows: tuple[Any, ...]
    params: dict[str, str]
    config: dict[str, Any]
    runs: dict[str, Path]
    read: Callable[[str], str | None]


def evaluations(chosen: Chosen) -> Iterator[Evaluation | Recorded]:
    """The evaluations, newest first; the MLflow run itself where its table is nowhere to be found.

    The table is read from the evaluation's folder, or, where that is not here or was not finished, from the run's
    artifacts. Of several evaluations into one folder the last one counts.
    """
    last = {run.name: run for run in chosen.of("evaluation") if run.status == "FINISHED"}
    for run in reversed(last.values()):
        folder = chosen.folder(run.name.removeprefix("evaluate-"))
        read = partial(_table, chosen.root, folder, run)
        found = _rows(read(TABLE))
        if found is None:
            yield run
            continue
        task, rows = found
        parent, origin = chosen.parent(run), read_origin(folder)
        name = parent.name if parent is not None and parent.kind == "study" else folder.name
        folders = dict(_folders(chosen.place, origin.get("runs", []), rows))
        yield Evaluation(name, task, tuple(rows), run.params, origin.get("config", {}), folders, read)


def _rows(table: str | None) -> tuple[Task, list[Any]] | None:
    """A table's rows, and the task whose columns it has."""
    for task in TASKS.values():
        rows: list[Any] | None = read_rows(table, task.row) if table else None
        if rows:
            return task, rows
    return None


def _table(root: Path, folder: Path, run: Recorded, name: str) -> str | None:
    if (folder / RECORD).is_file():
        with suppress(FileNotFoundError):
            return (folder / name).read_text(encoding="utf-8")
    return read_artifact(root, run.run_id, name)


def _folders(runs: Place, evaluated: Sequence[str], rows: Any) -> Iterator[tuple[str, Path]]:
    """Every run's folder: beside the evaluation's, or where it was when it was evaluated."""
    was = {Path(path).name: Path(path) for path in evaluated}
    for name in dict.fromkeys(row.run for row in rows if row.run):
        here = runs / inner_name(name)
        there = here.is_dir() if isinstance(here, Path) else is_stored(here)
        beside = Path(str(here))
        yield name, beside if there else was.get(name, beside)
