"""``avmend study --dry-run`` and ``sweep --dry-run``: config, what is there, what would be made, expected time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs import Config, config_hash
from configs.help import resolved
from shards.errors import InputError
from shards.schema import DATASET_FILE
from trainers.config import TrainConfig
from trainers.identity import git_commit, run_identity
from trainers.train import ROOT, prepare, recipe_name
from tuning.config import SweepConfig, corners
from tuning.config import check as check_sweep
from tuning.data import Corpus, corpus_folder, shards_folder
from tuning.question_data import QuestionData, ensembles_folder
from tuning.study_config import QuestionStudyConfig, StudyConfig

NEEDS = "needs what comes before it"


def describe_study(
    name: str, preset: Path | None, config: StudyConfig | QuestionStudyConfig, data: Path, runs: Path
) -> str:
    """What ``study`` would do, without making anything.

    Args:
        preset: its file, whose comments on top name the time that it took.

    Raises:
        InputError: a setting that is none, a source that is not there.
    """
    lines = [resolved(config), *header(preset)]
    runs = runs.absolute()
    if isinstance(config, QuestionStudyConfig):
        from tuning.avqa import check as check_questions

        check_questions(config)
        lines += _questions(config, data)
        trained: list[TrainConfig] = list(config.runs(data=".", questions="."))
        lines += [f"runs: {len(trained)} of avqa; {NEEDS}"]
    else:
        from tuning.study import check

        check(config)
        config.corpus.check_source("corpus")
        lines += _corpus(config.corpus, config.ingest, data)
        shards = shards_folder(config.corpus, config.ingest, data).absolute()
        lines += [line for seed in config.seeds for line in _recipes(config, shards, runs, seed)]
    out = runs / f"{name}-{config_hash(config)}"
    lines.append(f"results: {out / 'results.md'} ({_state(out / 'results.md')})")
    return "\n".join(lines)


def describe_sweep(name: str, preset: Path | None, config: SweepConfig, data: Path, runs: Path) -> str:
    """What ``sweep`` would do, without making anything.

    Raises:
        InputError: as `tuning.config.check`.
    """
    check_sweep(config)
    lines = [resolved(config), *header(preset)]
    source = config.data
    if source.corpus is not None:
        lines += _corpus(source.corpus, source.ingest, data)
    elif source.asked is not None:
        lines += _questions(source.asked, data)
    else:
        lines.append(f"media: {source.media} ({_state(Path(source.media or '.') / DATASET_FILE)})")
    lines += [
        f"before the trials: {name} ({settings.get('recipe', 'finetune')})" for name, settings in source.before.items()
    ]
    lines.append(f"trials: {config.total()} of {config.recipe}, such as {_point(corners(config)[0])}")
    out = runs.absolute() / f"{name}-{run_identity(config, '', None, git_commit(ROOT))}"
    ended = len(list(out.glob("trials/*/outcome.json")))
    lines.append(f"results: {out} ({f'{ended} trials have ended' if ended else 'would be made'})")
    return "\n".join(lines)


def header(preset: Path | None) -> Iterator[str]:
    """``expected`` and ``time`` of the comments on top of a preset."""
    if preset is None or not preset.is_file():
        return
    for line in preset.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        if line.startswith(("# expected:", "# time:")):
            yield f"{line.removeprefix('# ')} [preset]"


def _corpus(corpus: Corpus, ingest: Config, data: Path) -> Iterator[str]:
    made = corpus.kind != "manifest"
    manifest = corpus_folder(corpus, data) if made else Path(corpus.source or ".")
    yield f"clips: {manifest} ({_state(manifest)})"
    shards = shards_folder(corpus, ingest, data)  # type: ignore[arg-type]
    yield f"media shards: {shards} ({_state(shards / DATASET_FILE)})"


def _questions(config: QuestionData, data: Path) -> Iterator[str]:
    drawn = config.corpus.kind == "ensembles"
    manifest = ensembles_folder(config.corpus, data) if drawn else Path(config.corpus.source or ".")
    yield f"clips and questions: {manifest} ({_state(manifest)})"
    shards = shards_folder(config.corpus, config.ingest, data)
    yield f"media shards: {shards} ({_state(shards / DATASET_FILE)})"
    features = sorted((shards / "features").glob(f"*/{DATASET_FILE}"))
    yield f"features of {config.features.extractor}: {features[-1].parent if features else 'would be made'}"


def _recipes(config: StudyConfig, shards: Path, runs: Path, seed: int) -> Iterator[str]:
    """Every recipe of one seed, and whether its run is there."""
    first, *others = config.recipes
    backbone: Path | None = None
    for name in (first, *others):
        given: dict[str, Any] = {"data": shards, "seed": seed}
        if name != first:
            recipe = config.recipe(name, **given, **_on(config, name, backbone or Path()))
        else:
            recipe = config.recipe(name, **given)
        try:
            job = prepare(recipe, runs)
        except InputError:
            yield f"run {name}, seed {seed}: {recipe_name(recipe)} ({NEEDS})"
            continue
        backbone = job.folder if name == first and job.finished else backbone
        yield f"run {name}, seed {seed}: {job.folder} ({'already finished' if job.finished else 'would be trained'})"


def _on(config: StudyConfig, name: str, backbone: Path) -> dict[str, Path]:
    """The setting by which a recipe gets the backbone."""
    from tuning.study import takes_backbone

    return {"backbone" if takes_backbone(config, name) else "start": backbone}


def _point(params: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in params.items())


def _state(path: Path) -> str:
    return "there" if path.exists() else "would be made"
