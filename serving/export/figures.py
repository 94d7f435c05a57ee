"""What evaluations said of a run, for its card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import InputError
from shards.store import Place
from shards.stored_folder import reading
from trainers.evaluation_cache import RECORD
from trainers.recipe import FinishedRun
from trainers.tables import SHARES


@dataclass(frozen=True)
class Figures:
    """One evaluation's figures of one run.

    Attributes:
        methods: the figure, 0 to 1, by method (and its way of choosing) and condition.
        metric: what it is, one of `trainers.tables.SHARES`.
        split: whose samples.
        samples: how many, at most.
        dataset: fingerprint of what it was evaluated on.
        noise: kinds and severities, as plain values; empty where there was none.
        other: whether that is other data than it was trained on.
    """

    methods: Mapping[str, Mapping[str, float]]
    metric: str
    split: str
    samples: int
    dataset: str
    noise: Mapping[str, Any]
    other: bool = False


def evaluations(run: FinishedRun, folders: Sequence[Place] | None = None) -> list[Figures]:
    """What was evaluated of a run, in the given folders or (None) in those beside it, of a run on a disk; by name of
    the run.

    Raises:
        InputError: a given folder holds no evaluation, or none of this run.
    """
    beside = run.folder.absolute().parent.glob(f"*/{RECORD}")
    places = sorted(path.parent for path in beside) if folders is None else [reading(folder) for folder in folders]
    found = [(place, _figures(run, place)) for place in places]
    if folders is not None and (without := [place for place, figures in found if figures is None]):
        message, remedy = "holds no evaluation of this run", "give a folder that 'avmend evaluate' wrote of it"
        raise InputError(message, file=without[0], field="--results", remedy=remedy)
    unique = {json.dumps(figures.methods): figures for _, figures in found if figures is not None}
    return list(unique.values())


def _figures(run: FinishedRun, place: Path) -> Figures | None:
    task, name = run.recipe.task, run.folder.absolute().name
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        rows = [task.row(**row) for row in record["rows"] if row["run"] == name]
        inputs = dict(record["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not rows:
        return None
    metrics = {line.name: line.metrics() for line in task.summarise(rows)}
    metric = next(name for name in SHARES if any(_by_condition(found, name) for found in metrics.values()))
    methods = {line: _by_condition(found, metric) for line, found in metrics.items()}
    settings, samples = inputs.get("config", {}), max(row.samples for row in rows)
    split, noise = str(settings.get("split", "test")), settings.get("noise", {})
    return Figures(methods, metric, split, samples, str(inputs.get("dataset", "")), noise, _is_other(run, inputs))


def _by_condition(metrics: Mapping[str, float], metric: str) -> dict[str, float]:
    prefix = f"{metric}/"
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _is_other(run: FinishedRun, inputs: Mapping[str, Any]) -> bool:
    recorded = json.loads((run.folder / "config.json").read_text(encoding="utf-8")).get("dataset", "")
    return not run.recipe.task.asks and recorded != inputs.get("dataset", "")
