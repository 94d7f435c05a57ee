"""Clips and questions of studies and sweeps, and how they become the sequence features that runs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pydantic

from configs import Config, config_hash
from pipelines.corpora.synthetic.ensemble_corpus import build_ensembles, build_solos
from pipelines.corpora.synthetic.ensembles import EnsemblesConfig
from pipelines.settings import TOKENS, FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.progress import Progress
from shards.questions import QUESTIONS_FILE
from trainers.config import FinetuneConfig
from tuning.data import shards_folder
from tuning.steps import Stages, config_at


class AnswerableQuestions(Config):
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
    def _complete(self) -> AnswerableQuestions:
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


class QuestionData(Config):
    """What question answering trains on; made once, for all runs.

    Attributes:
        corpus, ingest, features: data.
        solos: what makes the backbone of the features; None where they need none.
        weights: folder of public weights, for features of those.
    """

    corpus: AnswerableQuestions
    ingest: IngestConfig = IngestConfig(frames=5)
    features: FeatureConfig = FeatureConfig(extractor="cavmae")
    solos: Solos | None = None
    weights: Path | None = None

    @pydantic.model_validator(mode="after")
    def _has_a_backbone(self) -> QuestionData:
        if self.features.extractor == TOKENS:
            raise ValueError("questions are asked about sequence features: set features.extractor=cavmae")
        if self.features.needs_backbone and self.solos is None:
            raise ValueError(f"the features of {self.features.extractor} need solos, which make the backbone")
        return self

    @property
    def stages(self) -> int:
        """How many steps `make_sequences` has."""
        return 3 + 3 * (self.solos is not None)


def check_data(config: QuestionData, field: str = "") -> None:
    """Refuse what `make_sequences` would refuse late; `field` is where the config is held ("data.asked.").

    Raises:
        InputError: a setting that is none; a source that is not there.
    """
    if config.solos is not None:
        config_at(f"{field}solos.finetune", FinetuneConfig, {**config.solos.finetune, "data": "."})
    for name in ("source", "questions"):
        path = getattr(config.corpus, name)
        if path is not None and not path.exists():
            remedy = "correct the path, or fetch the data"
            raise InputError("there is nothing here", file=path, field=f"{field}corpus.{name}", remedy=remedy)


def make_sequences(config: QuestionData, data: Path, runs: Path, stages: Stages, parent: Any) -> tuple[Path, Path]:
    """Sequence features of the clips, and their questions; all made if they are not there."""
    from pipelines.features import extract  # here, for help without torch
    from pipelines.ingest import ingest

    backbone = _backbone(config.solos, config.corpus.size, data, runs, stages, parent) if config.solos else None
    manifest, questions = make_asked(config.corpus, data, stages.next())
    shards = shards_folder(config.corpus, config.ingest, data)
    ingest(manifest, shards, config.ingest, stage=stages.next())
    folder = extract(shards, backbone, config.features, stage=stages.next(), weights=config.weights)
    return folder, questions


def _backbone(config: Solos, size: int, data: Path, runs: Path, stages: Stages, parent: Any) -> Path:
    """The run of the backbone that solos taught."""
    from pipelines.ingest import ingest
    from trainers.train import train

    out = data / f"solos-{config.clips}-{size}-{config.seed}"
    drawn = EnsemblesConfig(config.clips, seed=config.seed, size=size)
    with Progress("solos", config.clips, stage=stages.next()) as progress:
        build_solos(out, drawn, jobs=os.cpu_count() or 1, advance=progress.advance)
    shards = data / f"shards-{out.name}-{config_hash(config.ingest)}"
    ingest(out / "manifest.csv", shards, config.ingest, stage=stages.next())
    settings = {**config.finetune, "data": shards.absolute()}
    return train(config_at("solos.finetune", FinetuneConfig, settings), runs, stages.next(), parent)


def ensembles_folder(config: AnswerableQuestions, data: Path) -> Path:
    """Where the clips and questions that are drawn are."""
    return data / f"ensembles-{config_hash(config)}"


def make_asked(config: AnswerableQuestions, data: Path, stage: str | None = None) -> tuple[Path, Path]:
    """Manifest and questions, which are made if they are not there."""
    if config.kind == "manifest":
        assert config.source is not None
        assert config.questions is not None
        return config.source, config.questions
    assert config.clips is not None
    out = ensembles_folder(config, data)
    drawn = EnsemblesConfig(config.clips, config.per_clip, config.seed, size=config.size)
    with Progress("ensembles", config.clips, stage=stage) as progress:
        build_ensembles(out, drawn, jobs=os.cpu_count() or 1, advance=progress.advance)
    return out / "manifest.csv", out / QUESTIONS_FILE
