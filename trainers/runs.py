"""Finished runs, read from their folders."""

from __future__ import annotations

import json
from pathlib import Path

from shards.errors import InputError
from trainers.recipe import FinishedRun
from trainers.recipes import RECIPES

CONFIG_FILE = "config.json"
_RENAMED = {"in_turns": "alternate_missing"}  # settings of earlier versions


def read_run(folder: Path) -> FinishedRun:
    """What `avmend train` recorded about a run.

    Raises:
        InputError: this is no run's folder, or one of a recipe that this version lacks.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = {_RENAMED.get(name, name): value for name, value in record["config"].items()}
        recipe = RECIPES[settings["recipe"]]
        config = recipe.config.model_validate(settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "give the folder that 'avmend train' printed"
        raise InputError(f"no run here: {error}", file=path, field="runs", remedy=remedy) from None
    return FinishedRun(Path(folder), recipe, config, record["recipe"])
