"""An imported run in MLflow, so that `report` and ``avmend ui`` show it beside trained ones."""

from __future__ import annotations

from pathlib import Path

from trainers.config import TrainConfig
from trainers.journal import logs
from trainers.recipe import NO_DATA
from trainers.recipes import recipe_of
from trainers.tracking import Store, is_closed

WITHOUT_DATA = "imported"  # experiment of runs that were given no clips


def mirror(folder: Path, config: TrainConfig, kind: str) -> None:
    """A finished MLflow run of the run's folder, once, with its config and ``imported: KIND``."""
    recipe = recipe_of(config)
    place = logs(folder, recipe.stage_names(config)[0])
    if is_closed(place):
        return
    experiment = WITHOUT_DATA if config.data == NO_DATA else recipe.task.experiment(config)
    with Store(folder.parent).run(folder.name, experiment, config.resolved(), {"imported": kind}, folder=place):
        pass  # nothing is trained
