"""Configs of the question-answering recipes: `avqa` (a network with a recovery method), `rmm`, `avr`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from configs import Config
from configs.names import Registered
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.settings import MODALITIES, Modality
from shards.sequence import StepChoice, StepRule
from trainers.config import TrainConfig
from trainers.method_settings import check_names, checked_weights, settings_of

NetworkName = Annotated[str, Registered(NETWORKS)]
RecoveryName = Annotated[str, Registered(RECOVERIES)]
RECORDED = {"rmmr": 1.0, "ave": 1.0, "match": 0.5}  # in each record of an earlier run, whether there or not
Part = Literal["network", "recovery"]


class TrainMissing(Config):
    """What training clips are made to lack, as if it had never been recorded: a seeded table, nested in the rates.

    Attributes:
        audio, visual: percent of the clips (of those that have both) that lack it; what is missing is never read.
        balanced: exactly so many clips (rounded down), equally many of either, in place of a draw for each clip.
        both: a clip may lack both, and is left out of training then; otherwise none does.
        seed: of the table, with the clip's id.
    """

    audio: int = pydantic.Field(default=0, ge=0, le=100)
    visual: int = pydantic.Field(default=0, ge=0, le=100)
    balanced: bool = False
    both: bool = False
    seed: int = 0

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Self:
        if self.balanced and self.audio != self.visual:
            raise ValueError(
                f"balanced: as many lack either, so audio ({self.audio}) and visual ({self.visual}) are equal"
            )
        if not self.both and (total := self.audio + self.visual) > 100:
            raise ValueError(f"{total} % of the clips can't lack one modality alone; at most 100, or both=true")
        return self

    @property
    def rates(self) -> dict[Modality, int]:
        """Percent by modality."""
        return {"audio": self.audio, "visual": self.visual}

    @property
    def taken(self) -> bool:
        """Whether anything is."""
        return any(self.rates.values())

    @property
    def said(self) -> str:
        """In tables: "" for nothing, "audio 15 %, visual 15 %"."""
        return ", ".join(f"{m} {rate} %" for m, rate in self.rates.items() if rate)


def check_sizes(kind: type, sizes: Mapping[str, Any]) -> None:
    """Refuse a size that `kind` is not built with.

    Raises:
        ValueError: names the nearest one it has.
    """
    known = settings_of(kind, ("spec", "words", "answers"))
    for name, size in sizes.items():
        if name in known and name in RECOVERIES and isinstance(size, Mapping):
            check_sizes(RECOVERIES[name], size)  # of a part of a composition
    check_names(sizes, known)


def declared_losses(network: str | None, recovery: str) -> dict[str, float]:
    """The losses that a network and a recovery method declare, with their default weights."""
    own = {} if network is None else NETWORKS[network].loss_names
    return {**RECOVERIES[recovery].loss_names, **own}


class QuestionConfig(TrainConfig):
    """What the question-answering recipes share.

    Attributes:
        data: folder of the sequence features (dataset.json).
        questions: questions.jsonl about their clips.
        words: length of a question in words; None: that of the longest train question.
        steps: time steps of a clip that are taken of those stored; None: all.
        steps_at: of as many equal parts, their "middles" (rows 3, 9, ..., 57 of 60 for 10) or their "starts" (rows 0,
            6, ..., 54, as AVST's loader takes them).
        standardise: features to mean 0 and deviation 1 per channel of the train split; the published loaders do not.
        resident: keep all features in memory; None: when the shards are below a GB.
        train_missing: what training clips are made to lack (validation clips lack nothing by it).
        memorise: slots start from training samples instead of N(0, 1) (ours). Such slots are each other's
            noise: on drawn ensembles the RMMR of unseen clips was 2.8 after four epochs, from N(0, 1) 2.1,
            where the mean has 2.0.
        weights: of the losses that network and recovery method declare, over their defaults (rmmr and ave: 1,
            match: 0.5), as `weights.rmmr=0.5`.
    """

    by_position = "questions come back to the same clips in any order, many times an epoch"
    questions: Path
    words: int | None = pydantic.Field(default=None, ge=1)
    steps: int | None = pydantic.Field(default=None, ge=1)
    steps_at: StepRule = "middles"
    standardise: bool = True
    resident: bool | None = None
    train_missing: TrainMissing = TrainMissing()
    memorise: bool = False
    weights: dict[str, float] = pydantic.Field(default_factory=dict)
    batch_size: int = pydantic.Field(default=32, ge=1)
    lr: float = pydantic.Field(default=3e-4, gt=0)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)

    @property
    def choice(self) -> StepChoice:
        """Which of the stored time steps are taken."""
        return StepChoice(self.steps, self.steps_at)

    @property
    def declared(self) -> dict[str, float]:
        """The losses that there are beside the cross-entropies, with their default weights."""
        raise NotImplementedError

    @pydantic.model_validator(mode="after")
    def _weighted(self) -> Self:
        """Every loss has its weight, so that a record of the config says them all."""
        declared = self.declared
        given = {k: v for k, v in self.weights.items() if k in declared or RECORDED.get(k) != v}
        self.__dict__["weights"] = checked_weights(given, declared)  # the one change of a frozen config
        return self


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
        distillation: weight of the divergence of the answers without a modality from those of the complete sample,
            which teaches them (ours).
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
    distillation: float = pydantic.Field(default=0.0, ge=0)
    absent: Modality | None = None
    network_from: Path | None = None
    recovery_from: tuple[Path, ...] = ()
    freeze: tuple[Part, ...] = ()
    label: str | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> AVQAConfig:
        _sized("sizes", NETWORKS[self.network], self.sizes)
        _sized("recovery_sizes", RECOVERIES[self.recovery], self.recovery_sizes)
        if self.absent is not None and (self.recovery != "zero" or self.missing):
            raise ValueError("absent is for a specialist: it has nothing to recover or to take away")
        if self.alternate_missing and self.batch_size < len(self.taken):
            raise ValueError(f"alternate_missing: batch_size is at least {len(self.taken)}, a sample for each turn")
        if self.distillation and not self.taken:
            raise ValueError("distillation: training takes no modality away, so there is nobody to teach; give missing")
        return self

    @property
    def declared(self) -> dict[str, float]:
        """The losses of network and recovery method, with their default weights."""
        return declared_losses(self.network, self.recovery)

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
        recovery: which method; one that declares losses.
        sizes: of the method, over its defaults.
    """

    recovery: RecoveryName
    sizes: dict[str, Any] = pydantic.Field(default_factory=dict)

    @property
    def declared(self) -> dict[str, float]:
        """The recovery method's losses, with their default weights."""
        return declared_losses(None, self.recovery)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.declared:
            having = ", ".join(name for name, kind in RECOVERIES.items() if kind.loss_names)
            raise ValueError(f"recovery '{self.recovery}' has no loss of its own to train by; these have: {having}")
        _sized("sizes", RECOVERIES[self.recovery], self.sizes)
        return self


class AnyRecoveryConfig(RecoveryConfig):
    """Any recovery method that declares losses, by these alone; `rmm` and `avr` are names for two of them."""

    recipe: Literal["recovery"] = "recovery"


class RMMConfig(RecoveryConfig):
    """The slot generator by the RMMR loss (Eq. 3-4)."""

    recipe: Literal["rmm"] = "rmm"
    recovery: Literal["rmm"] = "rmm"


class AVRConfig(RecoveryConfig):
    """The diffusion model by the AVE loss (Eq. 7)."""

    recipe: Literal["avr"] = "avr"
    recovery: Literal["avr"] = "avr"


def _sized(field: str, kind: type, sizes: Mapping[str, Any]) -> None:
    try:
        check_sizes(kind, sizes)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


class QuestionEvaluation(Config):
    """What is evaluated.

    Attributes:
        data: folder of the sequence features; None: the first run's.
        questions: questions.jsonl; None: the first run's.
        split: whose questions.
        rates: percent of the clips that lack a modality, besides 0 and 100.
        seed: of the masks.
        batch_size, loaders, resident: of the forward passes.
        abstain_below: answers with a lower probability are not given; the tables tell the coverage, and the error of
            the others.
        audit: folder of `avmend audit` (or its audit.csv) about these clips; accuracy with and without what it flagged.
        baseline: method that the others of its network are compared with; None: `dropout`, or `zero` without it.
    """

    data: Path | None = None
    questions: Path | None = None
    split: str = "test"
    rates: tuple[int, ...] = (20, 40, 60, 80)
    seed: int = 0
    batch_size: int = pydantic.Field(default=64, ge=1)
    loaders: int = pydantic.Field(default=0, ge=0)
    resident: bool | None = None
    abstain_below: float | None = pydantic.Field(default=None, ge=0, le=1)
    audit: Path | None = None
    baseline: str | None = None

    @pydantic.field_validator("rates")
    @classmethod
    def _percent(cls, rates: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [rate for rate in rates if not 0 <= rate <= 100]:
            raise ValueError(f"a missing rate is 0 to 100 percent, not {wrong[0]}")
        return tuple(sorted({0, *rates, 100}))
