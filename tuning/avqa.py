"""A study of question answering: from clips and questions to the table of missing modalities.

corpus with questions -> media shards -> sequence features by a backbone that solos taught -> for every
network, seed and row: a run -> evaluation of all of them on the same masks. Every step keeps what an earlier
call finished.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from configs import Config, config_hash, config_to_dict
from configs.cluster import ray_session
from pipelines.corpora.ensemble_corpus import build_ensembles, build_solos
from pipelines.corpora.ensembles import EnsemblesConfig
from pipelines.features import extract
from pipelines.ingest import ingest
from pipelines.settings import FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import QUESTIONS_FILE
from trainers.avqa.config import AVQAConfig
from trainers.avqa.evaluate import QuestionEvaluation, evaluate_questions
from trainers.config import FinetuneConfig
from trainers.train import train
from tuning.steps import Stages, within


class Asked(Config):
    """The clips and questions of a study.

    Attributes:
        kind: `ensembles` are drawn here; `manifest` is yours.
        clips, per_clip: how many ensembles, and most questions about each.
        seed, size: of the drawing, and of the frame in pixels.
        source, questions: paths of your manifest and questions.jsonl.
    """

    kind: Literal["ensembles", "manifest"] = "ensembles"
    clips: int | None = pydantic.Field(default=None, ge=1)
    per_clip: int = pydantic.Field(default=5, ge=1, le=9)
    seed: int = pydantic.Field(default=0, ge=0)
    size: int = pydantic.Field(default=96, ge=64)
    source: Path | None = None
    questions: Path | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self) -> Asked:
        if self.kind == "ensembles" and self.clips is None:
            raise ValueError("ensembles needs clips: how many to draw")
        if self.kind == "manifest" and (self.source is None or self.questions is None):
            raise ValueError("manifest needs source and questions")
        return self


class Solos(Config):
    """The clips that the features' backbone learns from: one performer each.

    Attributes:
        clips, seed: how many, and of the drawing; their size is that of the ensembles.
        ingest: as `avmend ingest` takes it.
        finetune: settings of the backbone's training over the defaults of `finetune`.
    """

    clips: int = pydantic.Field(ge=1)
    seed: int = pydantic.Field(default=0, ge=0)
    ingest: IngestConfig = IngestConfig()
    finetune: dict[str, Any] = pydantic.Field(default_factory=dict)


class QuestionStudyConfig(Config):
    """All of a study of question answering.

    Attributes:
        study: which kind it is.
        corpus, ingest, features: data.
        solos: what makes the backbone of the features; None where they need none.
        weights: folder of public weights, for features of those.
        seeds: every row is trained once per seed.
        training: settings that all runs share, over the defaults of `avqa`.
        networks: by name of the network, settings over `training`; `seeds` there replaces the seeds.
        rows: by name in the tables, settings over those of the network; `label` there is another name.
        evaluate: settings over the defaults of `trainers.avqa.evaluate.QuestionEvaluation`.
    """

    study: Literal["avqa"]
    corpus: Asked
    ingest: IngestConfig = IngestConfig(frames=5)
    features: FeatureConfig = FeatureConfig(extractor="cavmae")
    solos: Solos | None = None
    weights: Path | None = None
    seeds: tuple[int, ...] = pydantic.Field(default=(0,), min_length=1)
    training: dict[str, Any] = pydantic.Field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    rows: dict[str, dict[str, Any]] = pydantic.Field(min_length=1)
    evaluate: dict[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _has_a_backbone(self) -> QuestionStudyConfig:
        if self.features.needs_backbone and self.solos is None:
            raise ValueError(f"the features of {self.features.extractor} need solos, which make the backbone")
        return self

    def runs(self, **given: Any) -> Iterator[AVQAConfig]:
        """Every run's config: network by network, seed by seed, row by row.

        Raises:
            InputError: a setting that `avqa` has not, naming its place in the study.
        """
        for network, own in self.networks.items():
            seeds = own.get("seeds", self.seeds)
            shared = laid_over(self.training, {k: v for k, v in own.items() if k != "seeds"})
            for seed in seeds:
                for row, settings in self.rows.items():
                    values = laid_over({"network": network, "label": row, **shared}, settings)
                    yield within(
                        f"networks.{network} with rows.{row}", AVQAConfig, {**values, **given, "seed": seed}
                    )


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping."""
    out = dict(below)
    for name, value in above.items():
        inner = out.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        out[name] = laid_over(inner, value) if both else value  # type: ignore[arg-type]
    return out


def check(config: QuestionStudyConfig) -> None:
    """Build every run's config, so that a typo costs no hour.

    Raises:
        InputError: a setting that is none; a source that is not there.
    """
    list(config.runs(data=".", questions="."))
    within("evaluate", QuestionEvaluation, config.evaluate)
    if config.solos is not None:
        within("solos.finetune", FinetuneConfig, {**config.solos.finetune, "data": "."})
    for field in ("source", "questions"):
        path = getattr(config.corpus, field)
        if path is not None and not path.exists():
            remedy = "correct the path, or fetch the data"
            raise InputError("there is nothing here", file=path, field=f"corpus.{field}", remedy=remedy)


def question_study(name: str, config: QuestionStudyConfig, data: Path, runs: Path) -> Path:
    """Run a study to its end; arguments, result and errors as `tuning.study.study`."""
    from trainers.tracking import Store

    check(config)
    runs = runs.absolute()
    out = runs / f"{name}-{config_hash(config)}"
    total = sum(1 for _ in config.runs(data=".", questions="."))
    stages = Stages(4 + 3 * (config.solos is not None) + total)
    params = {"study": name, **config_to_dict(config.corpus)}
    with ray_session(), Store(runs).run(out.name, f"study-{name}", params, None, None, folder=out) as parent:
        features, questions = _features(config, data, runs, stages, parent)
        trained = [
            train(run, runs, stages.next(), parent)
            for run in config.runs(data=features.absolute(), questions=questions.absolute())
        ]
        settings = within("evaluate", QuestionEvaluation, config.evaluate)
        evaluate_questions(trained, settings, out, runs, stages.next(), parent)
        parent.note((out / "results.md").read_text(encoding="utf-8"))
    return out


def _features(
    config: QuestionStudyConfig, data: Path, runs: Path, stages: Stages, parent: Any
) -> tuple[Path, Path]:
    """Sequence features of the study's clips, and its questions; all made if they are not there."""
    backbone = (
        _backbone(config.solos, config.corpus.size, data, runs, stages, parent) if config.solos else None
    )
    manifest, questions = make_asked(config.corpus, data, stages.next())
    shards = data / f"shards-{config_hash(config.corpus)}-{config_hash(config.ingest)}"
    ingest(manifest, shards, config.ingest, stage=stages.next())
    folder = extract(shards, backbone, config.features, stage=stages.next(), weights=config.weights)
    return folder, questions


def _backbone(config: Solos, size: int, data: Path, runs: Path, stages: Stages, parent: Any) -> Path:
    """The run of the backbone that solos taught."""
    out = data / f"solos-{config.clips}-{size}-{config.seed}"
    drawn = EnsemblesConfig(config.clips, seed=config.seed, size=size)
    with Progress("solos", config.clips, stage=stages.next()) as progress:
        build_solos(out, drawn, jobs=os.cpu_count() or 1, advance=progress.advance)
    shards = data / f"shards-{out.name}-{config_hash(config.ingest)}"
    ingest(out / "manifest.csv", shards, config.ingest, stage=stages.next())
    settings = {**config.finetune, "data": shards.absolute()}
    return train(within("solos.finetune", FinetuneConfig, settings), runs, stages.next(), parent)


def make_asked(config: Asked, data: Path, stage: str | None = None) -> tuple[Path, Path]:
    """Manifest and questions of a study, which are made if they are not there."""
    if config.kind == "manifest":
        assert config.source is not None
        assert config.questions is not None
        return config.source, config.questions
    assert config.clips is not None
    out = data / f"ensembles-{config_hash(config)}"
    drawn = EnsemblesConfig(config.clips, config.per_clip, config.seed, size=config.size)
    with Progress("ensembles", config.clips, stage=stage) as progress:
        build_ensembles(out, drawn, jobs=os.cpu_count() or 1, advance=progress.advance)
    return out / "manifest.csv", out / QUESTIONS_FILE
