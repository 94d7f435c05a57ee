"""A study of classification: from clips to the table of conditions.

corpus -> media shards -> for every seed: fine-tuned backbone, its features, every other recipe -> evaluation of all
of them on the same ruined input. Every step reuses what an earlier call finished.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from configs import config_to_dict
from configs.cluster import ray_session
from pipelines.features import extract
from shards.errors import InputError, nearest
from shards.store import Place, PlaceT
from trainers.classification.config import EvaluateConfig
from trainers.evaluate import evaluate
from trainers.identity import config_identity
from trainers.recipes import RECIPES, recipe_of
from trainers.train import train
from tuning.data import make_shards
from tuning.steps import Stages, config_at, open_study
from tuning.study_config import ClassificationStudyConfig


def check(config: ClassificationStudyConfig) -> None:
    """Build every recipe's config, so that a typo costs no hour.

    Raises:
        InputError: as `ClassificationStudyConfig.recipe`; the first recipe is no `finetune`, what is to adapt is no
            method of the study, or methods would meet different noise.
    """
    built = []
    for name in config.recipes:
        alone = config.recipes[name].get("recipe", name) == "finetune"  # which may start from the backbone, or fresh
        built.append(config.recipe(name, data=".", **({} if alone else on_backbone(config, name, Path()))))
    first, *_ = config.recipes
    if config.recipes[first].get("recipe", first) != "finetune":
        remedy = "put one first: it makes the backbone"
        raise InputError("the first recipe must be a finetune", field=f"recipes.{first}", remedy=remedy)
    evaluation = config_at("evaluate", EvaluateConfig, config.evaluate)
    evaluation.require_one_noise(built)
    methods = dict.fromkeys(recipe_of(recipe).run_name(recipe) for recipe in built)
    for name in evaluation.adapted or ():
        if name.partition(" ")[0] not in methods:
            remedy = f"{nearest(name, methods)}methods of this study: {', '.join(methods)}"
            raise InputError(f"no method '{name}'", field="evaluate.adapted", remedy=remedy)


def on_backbone(config: ClassificationStudyConfig, name: str, backbone: Path) -> dict[str, Path]:
    """The setting by which a recipe gets the backbone."""
    recipe = RECIPES.get(config.recipes[name].get("recipe", name))
    return {recipe.base: backbone} if recipe is not None and recipe.base else {}


def on_features(config: ClassificationStudyConfig, name: str) -> bool:
    """Whether a recipe of the study trains on the backbone's features."""
    recipe = RECIPES.get(config.recipes[name].get("recipe", name))
    return recipe is not None and recipe.on_features


def classification_study(name: str, config: ClassificationStudyConfig, data: Path, runs: PlaceT) -> PlaceT:
    """Run a study to its end.

    Args:
        name: of the study; names the results folder.
        data: folder for clips and shards.
        runs: folder for runs, results and the MLflow store, or the address of one on a store.

    Returns:
        the folder of the results, or its address.

    Raises:
        InputError: whatever a step refuses.
    """
    check(config)
    config.corpus.check_source("corpus")
    runs = runs.absolute()
    out = runs / f"{name}-{config_identity(config)}"
    stages = Stages(2 + len(config.seeds) * _stages_per_seed(config) + 1)
    params = {"study": name, "seeds": list(config.seeds), **config_to_dict(config.corpus)}
    with open_study(name, out, params, _session(config)) as (here, parent):
        shards = make_shards(config.corpus, config.ingest, data, stages)
        trained = []
        for seed in config.seeds:
            trained += _train_all(config, seed, shards, runs, stages, parent)
        settings = config_at("evaluate", EvaluateConfig, {**config.evaluate, "data": shards.absolute()})
        evaluate(trained, settings, here, runs, stages.next(), parent)
        parent.note((here / "results.md").read_text(encoding="utf-8"))
    return out


def _session(config: ClassificationStudyConfig) -> AbstractContextManager[Any]:
    """One Ray for all steps; none where every step says `workers: 0`."""
    steps = [config.ingest.workers, config.features.workers]
    recipes = [config.recipes[name].get("workers", 1) for name in config.recipes]
    return ray_session() if any(count != 0 for count in (*steps, *recipes)) else nullcontext()


def _depths(config: ClassificationStudyConfig) -> list[int]:
    return sorted({int(config.recipes[n].get("depth", 0)) for n in config.recipes if on_features(config, n)})


def _stages_per_seed(config: ClassificationStudyConfig) -> int:
    return len(config.recipes) + len(_depths(config))


def _train_all(
    config: ClassificationStudyConfig, seed: int, shards: Path, runs: Place, stages: Stages, parent: Any
) -> list[Place]:
    """Every recipe with one seed; features once per depth."""
    first, *others = config.recipes
    trained: Place = train(config.recipe(first, data=shards, seed=seed), runs, stages.next(), parent)
    out, backbone = [trained], Path(str(trained))
    for depth in _depths(config):
        extract(shards, backbone, config.features.model_copy(update={"depth": depth}), stage=stages.next())
    for name in others:
        recipe = config.recipe(name, data=shards, seed=seed, **on_backbone(config, name, backbone))
        out.append(train(recipe, runs, stages.next(), parent))
    return out
