"""``avmend study NAME``: from clips to the results table, with one command.

Of classification: corpus -> media shards -> for every seed: fine-tuned backbone, its features, every other
recipe -> evaluation of all of them on the same ruined input. Of question answering: see `tuning.avqa`. Every
step keeps what an earlier call finished, so the same command continues after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import config_hash, config_to_dict, load_config, read_preset
from configs.cluster import lasting, ray_session
from configs.presets import preset_file
from pipelines.features import extract
from shards.atomic import stamps
from shards.command import command
from shards.errors import InputError
from shards.progress import format_seconds
from trainers.config import CaseConfig, TrainConfig
from trainers.evaluate import evaluate
from trainers.evaluation_config import EvaluateConfig
from trainers.recipes import RECIPES
from trainers.train import train
from tuning.command_line import study_parser
from tuning.data import make_shards
from tuning.steps import Stages, config_at
from tuning.study_config import QuestionStudyConfig, StudyConfig


def check(config: StudyConfig) -> None:
    """Build every recipe's config, so that a typo costs no hour.

    Raises:
        InputError: as `StudyConfig.recipe`; or the first recipe is no `finetune`.
    """
    for name in config.recipes:
        needs = {"data": ".", "backbone": "."} if takes_backbone(config, name) else {"data": "."}
        config.recipe(name, **needs)
    first, *_ = config.recipes
    if config.recipes[first].get("recipe", first) != "finetune":
        remedy = "put one first: it makes the backbone"
        raise InputError("the first recipe must be a finetune", field=f"recipes.{first}", remedy=remedy)
    config_at("evaluate", EvaluateConfig, {**config.evaluate, "data": "."})


def takes_backbone(config: StudyConfig, name: str) -> bool:
    """Whether a recipe of the study trains beside the backbone, instead of starting from it."""
    kind = config.recipes[name].get("recipe", name)
    return issubclass(RECIPES.get(kind, TrainConfig), CaseConfig)


def study(name: str, config: StudyConfig, data: Path, runs: Path) -> Path:
    """Run a study to its end.

    Args:
        name: of the study; names the results folder.
        data: folder for clips and shards.
        runs: folder for runs, results and the MLflow store.

    Returns:
        the folder of the results.

    Raises:
        InputError: whatever a step refuses.
    """
    from trainers.tracking import Store

    check(config)
    config.corpus.check_source("corpus")
    runs = runs.absolute()
    out = runs / f"{name}-{config_hash(config)}"
    stages = Stages(2 + len(config.seeds) * _stages_per_seed(config) + 1)
    params = {"study": name, "seeds": list(config.seeds), **config_to_dict(config.corpus)}
    with ray_session(), Store(runs).run(out.name, f"study-{name}", params, None, None, folder=out) as parent:
        shards = make_shards(config.corpus, config.ingest, data, stages)
        trained = []
        for seed in config.seeds:
            trained += _train_all(config, seed, shards, runs, stages, parent)
        settings = config_at("evaluate", EvaluateConfig, {**config.evaluate, "data": shards.absolute()})
        evaluate(trained, settings, out, runs, stages.next(), parent)
        parent.note((out / "results.md").read_text(encoding="utf-8"))
    return out


def _depths(config: StudyConfig) -> list[int]:
    return sorted({int(config.recipes[n].get("depth", 0)) for n in config.recipes if takes_backbone(config, n)})


def _stages_per_seed(config: StudyConfig) -> int:
    return len(config.recipes) + len(_depths(config))


def _train_all(config: StudyConfig, seed: int, shards: Path, runs: Path, stages: Stages, parent: Any) -> list[Path]:
    """Every recipe with one seed; features once per depth."""
    first, *others = config.recipes
    backbone = train(config.recipe(first, data=shards, seed=seed), runs, stages.next(), parent)
    for depth in _depths(config):
        extract(shards, backbone, config.features.model_copy(update={"depth": depth}), stage=stages.next())
    out = [backbone]
    for name in others:
        key = "backbone" if takes_backbone(config, name) else "start"
        recipe = config.recipe(name, data=shards, seed=seed, **{key: backbone})
        out.append(train(recipe, runs, stages.next(), parent))
    return out


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = study_parser().parse(argv)
    begin = time.monotonic()
    data, runs = lasting(args.data, "--data"), lasting(args.runs, "--runs")
    if args.dry_run:
        print(_dry_run(args.preset, args.overrides, data, runs))
        return 0
    before = stamps(runs.glob("*/results.md"))
    out = _study_kind(args.preset, args.overrides, data, runs)
    print(f"\n{(out / 'results.md').read_text()}")
    if stamps([out / "results.md"]).items() <= before.items():
        print(f"already finished: {out}")
    print(f"done in {format_seconds(time.monotonic() - begin)}: {out}")
    print(f"compare the runs in a browser: avmend ui --store {args.runs}")
    return 0


def _dry_run(preset: str, overrides: Sequence[str], data: Path, runs: Path) -> str:
    from tuning.dry_run import describe_study

    asks = read_preset(preset)[0].get("study") == "avqa"
    kind: type[StudyConfig | QuestionStudyConfig] = QuestionStudyConfig if asks else StudyConfig
    return describe_study(Path(preset).stem, preset_file(preset), load_config(kind, preset, overrides), data, runs)


def _study_kind(preset: str, overrides: Sequence[str], data: Path, runs: Path) -> Path:
    """Run a preset as the kind of study that it says it is."""
    from tuning.avqa import question_study

    name = Path(preset).stem
    if read_preset(preset)[0].get("study") == "avqa":
        return question_study(name, load_config(QuestionStudyConfig, preset, overrides), data, runs)
    return study(name, load_config(StudyConfig, preset, overrides), data, runs)


if __name__ == "__main__":
    raise SystemExit(main())
