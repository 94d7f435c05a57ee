"""Configs of the question-answering recipes: `avqa` (a network with a recovery method), `rmm`, `avr`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from configs import Config
from models.settings import MODALITIES, Modality
from shards.errors import nearest
from trainers.config import TrainConfig

NetworkName = Literal["avst", "avsd", "lavit", "pstp"]
RecoveryName = Literal["zero", "rmm", "avr", "rmm_avr"]
Part = Literal["network", "recovery"]


def check_sizes(kind: type, sizes: Mapping[str, Any]) -> None:
    """Refuse a size that `kind` is not built with.

    Raises:
        ValueError: names the nearest one it has.
    """
    from models.avqa.recovery import RECOVERIES  # here, for help without torch

    known = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in ("spec", "words", "answers")
    ]
    for name, size in sizes.items():
        if name in known and name in RECOVERIES and isinstance(size, Mapping):
            check_sizes(RECOVERIES[name], size)  # of a part of a composition
        if name not in known:
            raise ValueError(f"unknown size '{name}'; {nearest(name, known)}known: {', '.join(known) or 'none'}")


class LossWeights(Config):
    """Weights of the losses beside the cross-entropies (Eq. 8: l1 and l2 are 1; AVST's own: 0.5).

    Attributes:
        rmmr: the slot generator's (Eq. 3-4).
        ave: the diffusion's (Eq. 7).
        match: AVST's, whether sound and picture belong together.
    """

    rmmr: float = pydantic.Field(default=1.0, ge=0)
    ave: float = pydantic.Field(default=1.0, ge=0)
    match: float = pydantic.Field(default=0.5, ge=0)


class QuestionConfig(TrainConfig):
    """What the question-answering recipes share.

    Attributes:
        data: folder of the sequence features (dataset.json).
        questions: questions.jsonl about their clips.
        words: length of a question in words; None: that of the longest train question.
        resident: keep all features in memory; None: when the shards are below a GB.
        memorise: slots start from training samples instead of N(0, 1) (ours). Such slots are each other's
            noise: on drawn ensembles the RMMR of unseen clips was 2.8 after four epochs, from N(0, 1) 2.1,
            where the mean has 2.0.
        weights: of the losses.
    """

    questions: Path
    words: int | None = pydantic.Field(default=None, ge=1)
    resident: bool | None = None
    memorise: bool = False
    weights: LossWeights = LossWeights()
    batch_size: int = pydantic.Field(default=32, ge=1)
    lr: float = pydantic.Field(default=3e-4, gt=0)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)


class AVQAConfig(QuestionConfig):
    """A network with a recovery method in front of it, trained jointly (Eq. 8).

    Attributes:
        network: which one.
        sizes: of the network, over the paper's.
        recovery: what fills in a missing modality; zero fill puts the mean of the training data there.
        recovery_sizes: of the method, over its defaults (addressing, slots, steps, ...).
        missing: the modalities that are taken away, one at a time, besides training on what is there; None:
            none for zero fill, either for the other methods.
        alternate_missing: each sample of a batch loses one of `missing`, in turns, instead of being seen without
            each of them: the same expectation of Eq. 8 for less work.
        absent: this modality is never there, in training or after: the *specialist* for its absence.
        network_from, recovery_from: runs whose network or recovery method to start from; several recovery
            runs each give the parts that they have.
        freeze: parts that do not train.
        label: name of the method in tables; None: the recovery method's.
    """

    recipe: Literal["avqa"] = "avqa"
    network: NetworkName = "avst"
    sizes: dict[str, Any] = pydantic.Field(default_factory=dict)
    recovery: RecoveryName = "zero"
    recovery_sizes: dict[str, Any] = pydantic.Field(default_factory=dict)
    missing: tuple[Modality, ...] | None = None
    alternate_missing: bool = False
    absent: Modality | None = None
    network_from: Path | None = None
    recovery_from: tuple[Path, ...] = ()
    freeze: tuple[Part, ...] = ()
    label: str | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> AVQAConfig:
        from models.avqa.networks import NETWORKS
        from models.avqa.recovery import RECOVERIES

        _sized("sizes", NETWORKS[self.network], self.sizes)
        _sized("recovery_sizes", RECOVERIES[self.recovery], self.recovery_sizes)
        if self.absent is not None and (self.recovery != "zero" or self.missing):
            raise ValueError("absent is for a specialist: it has nothing to recover or to take away")
        if self.alternate_missing and self.batch_size < len(self.taken):
            raise ValueError(f"alternate_missing: batch_size is at least {len(self.taken)}, a sample for each turn")
        return self

    @property
    def taken(self) -> tuple[Modality, ...]:
        """The modalities that training takes away, one at a time."""
        if self.missing is not None:
            return self.missing
        return () if self.recovery == "zero" else MODALITIES

    @property
    def method(self) -> str:
        """Its name in tables."""
        return self.label or ("specialist" if self.absent else self.recovery)


class RecoveryConfig(QuestionConfig):
    """A recovery method alone, by its own losses.

    Attributes:
        sizes: of the method, over its defaults.
    """

    sizes: dict[str, Any] = pydantic.Field(default_factory=dict)

    @property
    def recovery(self) -> RecoveryName:
        """Which method."""
        return self.recipe  # type: ignore[attr-defined]

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> RecoveryConfig:
        from models.avqa.recovery import RECOVERIES

        _sized("sizes", RECOVERIES[self.recovery], self.sizes)
        return self


class RMMConfig(RecoveryConfig):
    """The slot generator by the RMMR loss (Eq. 3-4)."""

    recipe: Literal["rmm"] = "rmm"


class AVRConfig(RecoveryConfig):
    """The diffusion model by the AVE loss (Eq. 7)."""

    recipe: Literal["avr"] = "avr"


def _sized(field: str, kind: type, sizes: Mapping[str, Any]) -> None:
    try:
        check_sizes(kind, sizes)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
