"""``avmend study --dry-run`` and ``sweep --dry-run``: config, what is there, what would be made, expected time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.help import resolved
from configs.presets import preset_file
from pipelines.settings import IngestConfig
from shards.errors import InputError
from shards.schema import DATASET_FILE, DatasetInfo
from shards.store import Place
from shards.stored_folder import is_stored
from trainers.identity import config_identity
from trainers.job import prepare
from trainers.recipes import recipe_of
from tuning.config import SweepConfig, check_inputs, corners
from tuning.config import check as check_sweep
from tuning.data import Corpus, corpus_folder, shards_folder
from tuning.question_data import QuestionData
from tuning.studies import Study
from tuning.study_config import ClassificationStudyConfig, QuestionStudyConfig

NEEDS = "needs what comes before it"


def describe_study(study: Study, preset: str, config: Any, data: Path, runs: Place) -> str:
    """What ``study`` would do, without making anything.

    Args:
        preset: a name or a file, whose comments on top name the time that it took.

    Raises:
        InputError: a setting that is none, a source that is not there.
    """
    lines = [resolved(config), *header(preset_file(preset)), *study.describe(config, data, runs.absolute())]
    out = runs.absolute() / f"{Path(preset).stem}-{config_identity(config)}"
    there = is_stored(out) or (isinstance(out, Path) and (out / "results.md").exists())
    return "\n".join([*lines, f"results: {out / 'results.md'} ({_said(there)})"])


def classification_lines(config: ClassificationStudyConfig, data: Path, runs: Place) -> list[str]:
    """Clips, shards and runs of a study of classification."""
    from tuning.classification_study import check

    check(config)
    config.corpus.check_source("corpus")
    shards = shards_folder(config.corpus, config.ingest, data).absolute()
    recipes = [line for seed in config.seeds for line in _recipes(config, shards, runs, seed)]
    return [*_corpus(config.corpus, config.ingest, data), *recipes]


def question_lines(config: QuestionStudyConfig, data: Path, runs: Place) -> list[str]:
    """Clips, questions, shards and runs of a study of question answering."""
    from tuning.question_study import check

    check(config)
    total = sum(1 for _ in config.runs(data=".", questions="."))
    return [*_questions(config, data), f"runs: {total} of avqa; {NEEDS}"]


def describe_sweep(name: str, preset: Path | None, config: SweepConfig, data: Path, runs: Path) -> str:
    """What ``sweep`` would do, without making anything.

    Raises:
        InputError: as `tuning.config.check`.
    """
    check_sweep(config)
    check_inputs(config)
    lines = [resolved(config), *header(preset)]
    source = config.data
    if source.corpus is not None:
        lines += _corpus(source.corpus, source.ingest, data)
    elif source.question_data is not None:
        lines += _questions(source.question_data, data)
    else:
        lines.append(f"media: {source.media} ({_state(Path(source.media or '.') / DATASET_FILE)})")
    lines += [
        f"before the trials: {name} ({settings.get('recipe', 'finetune')})" for name, settings in source.before.items()
    ]
    lines.append(f"trials: {config.total()} of {config.recipe}, such as {_point(corners(config)[0])}")
    out = runs.absolute() / f"{name}-{config_identity(config)}"
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


def _clips(corpus: Corpus, data: Path) -> Path:
    """The folder of a corpus that is made, or the manifest of one's own clips."""
    return corpus_folder(corpus, data) if corpus.kind != "manifest" else Path(corpus.settings.model_dump()["source"])


def _corpus(corpus: Corpus, ingest: IngestConfig, data: Path) -> Iterator[str]:
    clips, shards = _clips(corpus, data), shards_folder(corpus, ingest, data)
    yield f"clips: {clips} ({_state(clips)})"
    yield f"media shards: {shards} ({_state(shards / DATASET_FILE)})"


def _questions(config: QuestionData, data: Path) -> Iterator[str]:
    clips, shards = _clips(config.corpus, data), shards_folder(config.corpus, config.ingest, data)
    yield f"clips and questions: {clips} ({_state(clips)})"
    yield f"media shards: {shards} ({_state(shards / DATASET_FILE)})"
    if config.solos is not None:
        learnt = "solos" if config.dense is None else "solos, then dense on the train clips"
        yield f"backbone: finetune on {config.solos.clips} {learnt}; {NEEDS}"
    made = [path.parent for path in sorted((shards / "features").glob(f"*/{DATASET_FILE}")) if _is_of(path, config)]
    of = f"features of {config.features.extractor} with these settings{', of any backbone' if config.solos else ''}"
    yield f"{of}: {', '.join(map(str, made)) or 'would be made'}"


def _is_of(file: Path, config: QuestionData) -> bool:
    return config.features.content().items() <= DatasetInfo.load(file.parent).preprocessing.items()


def _recipes(config: ClassificationStudyConfig, shards: Path, runs: Place, seed: int) -> Iterator[str]:
    """Every recipe of one seed, and whether its run is there."""
    from tuning.classification_study import on_backbone

    first, *others = config.recipes
    backbone: Path | None = None
    for name in (first, *others):
        given: dict[str, Any] = {"data": shards, "seed": seed}
        if name != first:
            recipe = config.recipe(name, **given, **on_backbone(config, name, backbone or Path()))
        else:
            recipe = config.recipe(name, **given)
        try:
            job = prepare(recipe, runs)
        except InputError:
            yield f"run {name}, seed {seed}: {recipe_of(recipe).run_name(recipe)} ({NEEDS})"
            continue
        backbone = Path(str(job.place)) if name == first and job.finished else backbone
        yield f"run {name}, seed {seed}: {job.place} ({'already finished' if job.finished else 'would be trained'})"


def _point(params: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in params.items())


def _state(path: Path) -> str:
    return _said(path.exists())


def _said(there: bool) -> str:
    return "there" if there else "would be made"
