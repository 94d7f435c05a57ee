"""Clips and questions of studies and sweeps, and how they become the sequence features that runs share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pydantic

from configs import Config
from pipelines.corpora.synthetic.solos import SolosConfig, build
from pipelines.settings import TOKENS, FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.progress import Progress
from shards.store import Place
from trainers.classification.config import DenseConfig, FinetuneConfig
from tuning.data import Corpus, folder_of_shards, make_files, shards_folder
from tuning.steps import Stages, config_at


class QuestionCorpus(Corpus):
    """The clips and questions of a study: as `Corpus`, of one that has questions.

    Attributes:
        kind: `ensembles` are drawn here; `manifest` is yours.
    """

    kind: str = "ensembles"

    @pydantic.model_validator(mode="after")
    def _has_questions(self) -> QuestionCorpus:
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
        dense: the backbone then learns densely from the train clips: settings over the defaults of the recipe `dense`,
            of which `side` is that of the features and `targets` the corpus's own; None: it does not.
        weights: folder of public weights, for features of those.
    """

    corpus: QuestionCorpus
    ingest: IngestConfig = IngestConfig(frames=5)
    features: FeatureConfig = FeatureConfig(extractor="cavmae")
    solos: Solos | None = None
    dense: dict[str, Any] | None = None
    weights: Path | None = None

    @pydantic.model_validator(mode="after")
    def _has_a_backbone(self) -> QuestionData:
        if self.features.extractor == TOKENS:
            raise ValueError("questions are asked about sequence features: set features.extractor=cavmae")
        if self.features.needs_backbone and self.solos is None:
            raise ValueError(f"the features of {self.features.extractor} need solos, which make the backbone")
        if self.dense is not None and not self.features.needs_backbone:
            raise ValueError(f"dense is for a backbone, the extractor {self.features.extractor} has none")
        if self.dense is not None and not self.corpus.record.dense and "targets" not in self.dense:
            raise ValueError(f"the corpus {self.corpus.kind} has no dense targets: set dense.targets to a file of them")
        return self

    @property
    def stages(self) -> int:
        """How many steps `make_sequences` has."""
        return 3 + 3 * (self.solos is not None) + (self.dense is not None)

    def dense_recipe(self, field: str, **given: Any) -> DenseConfig:
        """The config of the dense training; `field` is where this one is held.

        Raises:
            InputError: a setting that it has not.
        """
        side = {} if self.features.side is None else {"side": self.features.side}
        return config_at(f"{field}dense", DenseConfig, {**side, **given, **(self.dense or {})})


def check_data(config: QuestionData, field: str = "") -> None:
    """Refuse what `make_sequences` would refuse late; `field` is where the config is held ("data.question_data.").

    Raises:
        InputError: a setting that is none; a source that is not there.
    """
    if config.solos is not None:
        config_at(f"{field}solos.finetune", FinetuneConfig, {**config.solos.finetune, "data": "."})
    if config.dense is not None:
        found = config.dense_recipe(field, data=".", backbone=".", targets=".")
        if not found.targets.exists():
            remedy = "correct the path, or leave it out where the corpus has its own"
            raise InputError("there is nothing here", file=found.targets, field=f"{field}dense.targets", remedy=remedy)
    config.corpus.check_source(f"{field}corpus")


def make_sequences(config: QuestionData, data: Path, runs: Place, stages: Stages, parent: Any) -> tuple[Path, Path]:
    """Sequence features of the clips, and their questions; all made if they are not there."""
    from pipelines.features import extract  # here, for help without torch
    from pipelines.ingest import ingest
    from trainers.train import train

    backbone = _backbone(config.solos, config.corpus.size, data, runs, stages, parent) if config.solos else None
    files = make_files(config.corpus, data, stages.next())
    assert files.questions is not None, f"{config.corpus.kind} is registered as a corpus with questions, but made none"
    shards = shards_folder(config.corpus, config.ingest, data)
    ingest(files.manifest, shards, config.ingest, stage=stages.next())
    if config.dense is not None:
        given = {"data": shards.absolute(), "backbone": backbone, "targets": files.targets}
        backbone = Path(str(train(config.dense_recipe("", **given), runs, stages.next(), parent)))
    folder = extract(shards, backbone, config.features, stage=stages.next(), weights=config.weights)
    return folder, files.questions


def _backbone(config: Solos, size: int, data: Path, runs: Place, stages: Stages, parent: Any) -> Path:
    """The run of the backbone that solos taught."""
    from pipelines.ingest import ingest
    from trainers.train import train

    out = data / f"solos-{config.clips}-{size}-{config.seed}"
    drawn = SolosConfig(clips=config.clips, seed=config.seed, size=size)
    build(drawn, out, functools.partial(Progress, "solos", stage=stages.next()))
    shards = folder_of_shards(out.name, config.ingest, data)
    ingest(out / "manifest.csv", shards, config.ingest, stage=stages.next())
    settings = {**config.finetune, "data": shards.absolute()}
    trained = train(config_at("solos.finetune", FinetuneConfig, settings), runs, stages.next(), parent)
    return Path(str(trained))
