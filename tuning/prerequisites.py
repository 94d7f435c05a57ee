"""What a sweep's trials are given, made once: shards, questions, runs to start from, features."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pipelines.features import extract
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from trainers.classification.targets import several_labels
from trainers.train import train
from tuning.config import SweepConfig, build_before, corners
from tuning.data import make_shards
from tuning.question_data import make_sequences
from tuning.steps import Stages


def make_prerequisites(config: SweepConfig, data: Path, runs: Path, parent: Any = None) -> tuple[dict[str, Path], str]:
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
    asked = config.data.question_data
    first = asked.stages if asked is not None else 2 * (config.data.corpus is not None)
    stages = Stages(first + len(config.data.before) + len(sources) + 1)
    given = _shards(config, data, runs, stages, parent)
    if config.data.question_data is None:
        check_metric(config, given["data"])
    for name, settings in config.data.before.items():
        recipe = build_before(config.data, name, settings, given)
        given[name] = train(recipe, runs, stages.next(), parent)
    for backbone, depth in sources:
        wanted = config.data.features.model_copy(update={"depth": depth})
        extract(given["data"], Path(backbone) if backbone else given["backbone"], wanted, stages.next())
    return given, stages.next()


def check_metric(config: SweepConfig, media: Path) -> None:
    """Refuse to choose trials by an accuracy that clips with several labels have not, before any is trained.

    Raises:
        InputError: names the metric that they have.
    """
    info = DatasetInfo.load(media)
    if config.search.metric != "val_accuracy" or info.kind != "media" or "val" not in info.splits:
        return
    if several_labels(ShardDataset(media, "val", info=info)):
        message, remedy = "clips with several labels have no accuracy", "set search.metric=val_mAP"
        raise InputError(message, file=media, field="search.metric", remedy=remedy)


def _shards(config: SweepConfig, data: Path, runs: Path, stages: Stages, parent: Any) -> dict[str, Path]:
    """Media shards, or sequence features and questions."""
    source = config.data
    if source.question_data is not None:
        features, questions = make_sequences(source.question_data, data, runs, stages, parent)
        return {"data": features.absolute(), "questions": questions.absolute()}
    if source.corpus is not None:
        return {"data": make_shards(source.corpus, source.ingest, data, stages)}
    assert source.media is not None
    return {"data": source.media.absolute()}


def _features(config: SweepConfig) -> list[tuple[str, int]]:
    """Every (backbone, depth) that a trial may need; backbone "" for the one that the sweep trains."""
    if not config.kind().on_features:
        return []
    first, space = corners(config)[0], config.space
    axes = {name: space[name].every() or () for name in ("backbone", "depth") if name in space}
    found: set[tuple[str, int]] = set()
    for values in itertools.product(*axes.values()):
        params = {**first, **dict(zip(axes, values, strict=True))}
        recipe: Any = config.trial(params, **config.placeholders())
        if recipe.features is None:
            named = "backbone" in space or "backbone" not in config.data.before
            found.add((str(recipe.backbone.absolute()) if named else "", recipe.depth))
    return sorted(found)
