"""Clips and questions of studies and sweeps, and how they become the sequence features that runs share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pydantic

from configs import Config, config_hash
from pipelines.corpora.synthetic.solos import SolosConfig, build
from pipelines.features import extract
from pipelines.ingest import ingest
from pipelines.settings import TOKENS, FeatureConfig, IngestConfig
from shards.progress import Progress
from trainers.config import FinetuneConfig
from trainers.train import train
from tuning.data import Corpus, make_files, shards_folder
from tuning.steps import Stages, config_at


class AnswerableQuestions(Corpus):
    """The clips and questions of a study: as `Corpus`, of one that has questions.

    Attributes:
        kind: `ensembles` are drawn here; `manifest` is yours.
    """

    kind: str = "ensembles"

    @pydantic.model_validator(mode="after")
    def _has_questions(self) -> AnswerableQuestions:
        if not self.record.asks:
            raise ValueError(f"the corpus {self.kind} has no questions")
        if self.kind == "manifest" and self.settings.model_dump()["questions"] is None:
            raise ValueError("manifest needs source and questions")
        return self

    @property
    def size(self) -> int:
        """Pixels, width and height of the frames, where the corpus draws them."""
        return getattr(self.settings, "size", SolosConfig.model_fields["size"].default)


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
    config.corpus.check_source(f"{field}corpus")


def make_sequences(config: QuestionData, data: Path, runs: Path, stages: Stages, parent: Any) -> tuple[Path, Path]:
    """Sequence features of the clips, and their questions; all made if they are not there."""
    backbone = _backbone(config.solos, config.corpus.size, data, runs, stages, parent) if config.solos else None
    manifest, questions = make_asked(config.corpus, data, stages.next())
    shards = shards_folder(config.corpus, config.ingest, data)
    ingest(manifest, shards, config.ingest, stage=stages.next())
    folder = extract(shards, backbone, config.features, stage=stages.next(), weights=config.weights)
    return folder, questions


def _backbone(config: Solos, size: int, data: Path, runs: Path, stages: Stages, parent: Any) -> Path:
    """The run of the backbone that solos taught."""
    out = data / f"solos-{config.clips}-{size}-{config.seed}"
    drawn = SolosConfig(clips=config.clips, seed=config.seed, size=size)
    build(drawn, out, functools.partial(Progress, "solos", stage=stages.next()))
    shards = data / f"shards-{out.name}-{config_hash(config.ingest)}"
    ingest(out / "manifest.csv", shards, config.ingest, stage=stages.next())
    settings = {**config.finetune, "data": shards.absolute()}
    return train(config_at("solos.finetune", FinetuneConfig, settings), runs, stages.next(), parent)


def make_asked(config: AnswerableQuestions, data: Path, stage: str | None = None) -> tuple[Path, Path]:
    """Manifest and questions, which are made if they are not there."""
    manifest, questions = make_files(config, data, stage)
    assert questions is not None, f"{config.kind} is registered as a corpus with questions, but made none"
    return manifest, questions
