"""Stores for tests of the report: MLflow runs and folders as studies, evaluations and sweeps leave them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import config_to_dict
from trainers.kept import write_rows
from trainers.results import Row
from trainers.tracking import Run, Store
from tuning.config import SweepConfig
from tuning.outcome import Outcome, keep


def a_row(method: str, seed: int, condition: str, accuracy: float, **changes: Any) -> Row:
    """One figure of an evaluation of classification."""
    given: dict[str, Any] = {
        "selection": "",
        "samples": 100,
        "trained": 1000,
        "parameters": 1000,
        "epoch_seconds": 2.0,
        "peak_memory_mb": 50.0,
        "run": f"{method}-{seed:012x}",
    }
    return Row(method=method, seed=seed, condition=condition, accuracy=accuracy, **{**given, **changes})


def ended_run(
    store: Store,
    name: str,
    params: Mapping[str, Any],
    *,
    parent: Run | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    status: str = "FINISHED",
    folder: Path | None = None,
) -> Run:
    """A run of the store that has ended."""
    run = store.open(name, "study-t", params, tags, parent, folder=folder or store.root / name / "mlflow")
    if metrics:
        run.summary(metrics)
    run.close(status)
    return run


def trained_run(store: Store, recipe: str, seed: int, accuracy: float, **more: Any) -> Run:
    """A training run; `more` are params over a few usual ones, and `name`, `parent`, `status`, `tags`."""
    named = {key: more.pop(key) for key in ("parent", "status") if key in more}
    tags = {"commit": "c0ffee123456", "dataset": "d" * 64, **more.pop("tags", {})}
    name = more.pop("name", None)
    params = {"recipe": recipe, "seed": seed, "lr": 0.01, "workers": 1, "data": "/data/clips", **more}
    identity = hashlib.sha256(json.dumps(params).encode()).hexdigest()[:12]
    metrics = {"val_accuracy": accuracy, "epoch_seconds": 2.0, "peak_memory_mb": 50.0}
    return ended_run(store, name or f"{recipe}-{identity}", params, tags=tags, metrics=metrics, **named)


def evaluation(store: Store, name: str, rows: Sequence[Any], params: Mapping[str, Any], **more: Any) -> Path:
    """An evaluation's run and its folder with results.csv."""
    folder = store.root / name
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "results.csv", rows)
    ended_run(store, f"evaluate-{name}", {"data": "/data/clips", "split": "test", **params}, **more)
    return folder


def a_sweep(store: Store, name: str, config: SweepConfig, outcomes: Sequence[Outcome]) -> Path:
    """A sweep's run and its folder with the trials' outcomes; the trials' runs are left out."""
    folder = store.root / name
    for found in outcomes:
        place = folder / "trials" / f"{found.number:03d}-{found.name}"
        place.mkdir(parents=True)
        keep(place, found)
    record = {"name": name, "commit": "c0ffee123456", "config": config_to_dict(config)}
    (folder / "sweep.json").write_text(json.dumps(record))
    ended_run(store, name, {"sweep": name, "recipe": config.recipe}, folder=folder)
    return folder
