"""Finished runs, read from their folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shards.checkpoint import to_ask
from shards.errors import InputError
from shards.store import Place, place, url_of
from shards.stored_folder import is_stored, reading
from trainers.config import TrainConfig
from trainers.identity import is_paths
from trainers.recipe import NO_DATA, FinishedRun
from trainers.recipes import RECIPES

CONFIG_FILE = "config.json"
_RENAMED = {"in_turns": "alternate_missing"}  # settings of earlier versions


def read_run(where: str | Place) -> FinishedRun:
    """What `avmend train` recorded about a run, in a folder or on a store. Relative paths in its config, as a run that
    was handed on has them, begin at its folder.

    Raises:
        InputError: this is no run's folder, or one of a recipe that this version lacks.
    """
    folder = reading(where, to_ask)
    path = folder / CONFIG_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = {_RENAMED.get(name, name): value for name, value in record["config"].items()}
        recipe = RECIPES[settings["recipe"]]
        config = recipe.config.model_validate(settings)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        remedy = "give the folder that 'avmend train' printed"
        raise InputError(f"no run here: {error}", file=path, field="runs", remedy=remedy) from None
    imported = bool(record.get("imported") or settings.get("imported"))  # the latter of an earlier CAV-MAE
    return FinishedRun(folder, recipe, from_folder(config, folder), record["recipe"], imported=imported)


def is_run(where: str | Place) -> bool:
    """Whether there is a run, in a folder or on a store."""
    found = place(where)
    return (found / CONFIG_FILE).is_file() if isinstance(found, Path) else is_stored(found)


def paths_of(config: TrainConfig) -> list[Path]:
    """All paths that a config names."""
    several = (path for _, value in config if is_paths(value) for path in value)
    return [*(value for _, value in config if isinstance(value, Path)), *several]


def from_folder(config: TrainConfig, folder: Path) -> TrainConfig:
    """A config whose relative paths begin at `folder`."""

    def placed(path: Path) -> Path:
        return path if path == NO_DATA or url_of(path) else Path(os.path.normpath(folder.absolute() / path))

    one: dict[str, Any] = {k: placed(v) for k, v in config if isinstance(v, Path)}
    several = {k: tuple(map(placed, v)) for k, v in config if is_paths(v)}
    return config.model_copy(update={**one, **several})
