"""What a sweep's trials are given: media shards, runs to start from, features of every depth; made once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pipelines.features import extract
from trainers.config import CaseConfig
from trainers.train import train
from tuning.config import SweepConfig, build_before, corners
from tuning.data import Stages, make_shards


def make_given(
    config: SweepConfig, data: Path, runs: Path, parent: Any = None
) -> tuple[dict[str, Path], str]:
    """Make what is not there yet.

    Args:
        data: folder for clips and shards.
        runs: folder for the runs.
        parent: the sweep's MLflow run.

    Returns:
        the settings that every trial gets, and the place of the trials in the sweep ("6/6").

    Raises:
        InputError: whatever a step refuses.
    """
    sources = _features(config)
    stages = Stages(2 * (config.data.corpus is not None) + len(config.data.before) + len(sources) + 1)
    given = {"data": _media(config, data, stages)}
    for name, settings in config.data.before.items():
        recipe = build_before(config.data, name, settings, given["data"], given)
        given[name] = train(recipe, runs, stages.next(), parent)
    for backbone, depth in sources:
        wanted = config.data.features.model_copy(update={"depth": depth})
        extract(given["data"], Path(backbone) if backbone else given["backbone"], wanted, stages.next())
    return given, stages.next()


def _media(config: SweepConfig, data: Path, stages: Stages) -> Path:
    if config.data.corpus is not None:
        return make_shards(config.data.corpus, config.data.ingest, data, stages)
    assert config.data.media is not None
    return config.data.media.absolute()


def _features(config: SweepConfig) -> list[tuple[str, int]]:
    """Every (backbone, depth) that a trial may need; backbone "" for the one that the sweep trains."""
    if not config.case_wise():
        return []
    first, space = corners(config)[0], config.space
    axes = {name: space[name].every() or () for name in ("backbone", "depth") if name in space}
    found: set[tuple[str, int]] = set()
    for values in itertools.product(*axes.values()):
        params = {**first, **dict(zip(axes, values, strict=True))}
        recipe = config.trial(params, data=".", **dict.fromkeys(config.data.before, "."))
        assert isinstance(recipe, CaseConfig)
        if recipe.features is None:
            named = "backbone" in space or "backbone" not in config.data.before
            found.add((str(recipe.backbone.absolute()) if named else "", recipe.depth))
    return sorted(found)
