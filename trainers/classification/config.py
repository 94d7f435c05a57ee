"""Configs of the classification recipes: `finetune`, `fuse`, `prompt`, `lora`, `adapter`; and of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from configs import Config
from configs.names import AdaptationName, ConditionName, FusionName, ProtocolName
from configs.noise import Noise
from models.conditions import CASES, CONDITIONS, PROTOCOLS, PUBLISHED, Case, Condition
from models.fusion import FUSIONS
from models.settings import BACKBONES, SEVERITIES, BackboneConfig, PromptSize
from shards.errors import InputError
from trainers.config import TrainConfig
from trainers.method_settings import check_names, checked_weights, settings_of

Severity = Annotated[int, pydantic.Field(ge=1, le=5)]


class Sizes(Config):
    """The backbone: a preset, with any of its sizes changed."""

    preset: Literal["tiny", "base"] = "tiny"
    """Sizes to begin with: `base` is the published CAV-MAE (dim 768, depth 11), `tiny` is for small corpora."""
    dim: int | None = None
    """Width of the tokens, a multiple of 4 and of `heads`; None: the preset's, here as below."""
    heads: int | None = None
    """Attention heads of every block."""
    mlp_ratio: float | None = None
    """Hidden width of a block's MLP over `dim`."""
    depth: int | None = None
    """Blocks of each modality's encoder."""
    joint_depth: int | None = None
    """Blocks of the joint encoder."""
    target_length: int | None = None
    """Fbank frames (10 ms each) per sample, a multiple of 16."""
    image_size: int | None = None
    """Side of the square picture in pixels, a multiple of 16."""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Sizes:
        self.build()
        return self

    def build(self) -> BackboneConfig:
        """The preset with the sizes that are changed."""
        changed = {k: v for k, v in self.model_dump(exclude={"preset"}).items() if v is not None}
        return BackboneConfig(**{**BACKBONES[self.preset].as_dict(), **changed})


class Augment(Config):
    """Clean-data augmentation of fine-tuning (sound and picture stay a pair).

    Attributes:
        frequency_mask, time_mask: widest SpecAugment masks, in mel bins and frames (published: 48 and 192 of
            1024).
        time_shift: furthest roll in frames.
        rotate, scale, shift: largest turn (radians), relative size and relative offset of the picture.
        grain: largest noise added to the spectrogram: uniform in 0..1 times a uniform share of this (published: 0.1).
    """

    frequency_mask: int = pydantic.Field(default=24, ge=0, le=127)
    time_mask: int = pydantic.Field(default=16, ge=0)
    time_shift: int = pydantic.Field(default=8, ge=0)
    rotate: float = pydantic.Field(default=0.2, ge=0, le=3.2)
    scale: float = pydantic.Field(default=0.15, ge=0, lt=1)
    shift: float = pydantic.Field(default=0.1, ge=0, lt=1)
    grain: float = pydantic.Field(default=0.0, ge=0)


class FinetuneConfig(TrainConfig):
    """Full fine-tuning: the baseline, and what makes the backbone.

    Attributes:
        backbone: sizes, when starting fresh or from a public file.
        start: a run's folder to start from; None starts fresh.
        public: a public CAV-MAE checkpoint (.pth, .safetensors) to import.
        public_labels: the classes of its head in their order, `audioset`, `vggsound` or a file of them; the head's
            rows are then taken by name.
        public_head: take its head over; a fresh one else.
        noisy: train on the four cases, one drawn per sample and epoch, instead of on clean data.
        solo_loss: weight of the losses of each modality alone (they keep both encoders competent, and serve
            missing modalities).
        statistics: normalisation from this dataset, or the published AudioSet/ImageNet values, which are the default
            with `public`.
        loss: cross-entropy, or binary cross-entropy per class, for clips with several labels; None: the latter where
            a training clip has several.
        imported: nothing was trained: `avmend import` wrote the run.
        smoothing: of labels: every class gets this over the number of classes, a clip's own ones 1 minus this.
        mixup: share of clips that are mixed with another one, waveforms and pictures, by Beta(10, 10); needs shards
            with waveforms (`keep_wave`).
        balanced: draw clips with replacement, those of rare classes more often; each time with draws of its own.
        average_from: first epoch of those whose weights are averaged into the result; None: the last epoch's weights.
        head_lr: the head's learning rate over `lr`.
        halve_after: epochs at the full rate, each later one at half of the one before; None: warm-up and cosine.
        betas: of AdamW.
    """

    by_position = ""
    recipe: Literal["finetune"] = "finetune"
    backbone: Sizes = Sizes()
    start: Path | None = None
    public: Path | None = None
    public_labels: Path | None = None
    public_head: bool = True
    noisy: bool = False
    solo_loss: float = pydantic.Field(default=1.0, ge=0)
    statistics: Literal["dataset", "published"] = "dataset"
    loss: Literal["ce", "bce"] | None = None
    imported: bool = False
    augment: Augment = Augment()
    smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    mixup: float = pydantic.Field(default=0.0, ge=0, le=1)
    balanced: bool = False
    average_from: int | None = pydantic.Field(default=None, ge=1)
    head_lr: float = pydantic.Field(default=1.0, gt=0)
    halve_after: int | None = pydantic.Field(default=None, ge=1)
    betas: tuple[float, float] = (0.9, 0.999)

    def resolved(self) -> dict[str, Any]:
        """As of every config, with the backbone's sizes filled in."""
        sizes = {"preset": self.backbone.preset, **self.backbone.build().as_dict()}
        return {**super().resolved(), "backbone": sizes}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _published_statistics(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("public") is not None:
            return {"statistics": "published", **values}
        return values

    @pydantic.model_validator(mode="after")
    def _one_start(self) -> FinetuneConfig:
        if self.start is not None and self.public is not None:
            raise ValueError("give start or public, not both")
        if self.stream and self.mixup:
            raise ValueError("mixup mixes with any other clip, which a stream does not have at hand; leave stream out")
        if self.stream and self.balanced:
            raise ValueError("balanced draws any clip at any time, which a stream can't; leave stream out")
        if self.average_from is not None and self.average_from > self.epochs:
            raise ValueError(f"average_from={self.average_from} is beyond the last of {self.epochs} epochs")
        return self


class DenseConfig(TrainConfig):
    """Dense training of a fine-tuned backbone: what each second and each place of ensembles holds.

    Attributes:
        backbone: folder of the fine-tuned run that it starts from.
        targets: JSON Lines by clip, `targets.jsonl` of a corpus: who sounds in which second and how loud, who is seen
            where. Only clips of the train split are learnt from.
        side: of the grid of cells that the picture is told in; None: the network's own.
        level: weight of the levels beside who sounds.
    """

    recipe: Literal["dense"] = "dense"
    backbone: Path
    targets: Path
    side: int | None = pydantic.Field(default=3, ge=1)
    level: float = pydantic.Field(default=1.0, ge=0)
    epochs: int = pydantic.Field(default=3, ge=1)
    batch_size: int = pydantic.Field(default=16, ge=1)
    lr: float = pydantic.Field(default=1e-3, gt=0)


class FuseConfig(TrainConfig):
    """A method between the encoders and the joint block, trained with all of a fine-tuned run.

    Attributes:
        start: folder of the `finetune` run to start from.
        method: what stands behind the encoders where a modality is missing.
        sizes: of the method, over its defaults.
        weights: of the losses that the method declares, over their defaults, as `weights.shared_l1=0.2`.
        noisy: train on the four cases, one drawn per sample and epoch, instead of on clean data.
        missing_loss: weight of the losses of complete samples without sound and without picture.
        method_lr: the method's learning rate over `lr`.
        loss: as of `finetune`; None: that of the run it starts from, or what the training clips need.
        label: name of the method in tables; None: the method's.
    """

    recipe: Literal["fuse"] = "fuse"
    start: Path
    method: FusionName
    sizes: dict[str, Any] = pydantic.Field(default_factory=dict)
    weights: dict[str, float] = pydantic.Field(default_factory=dict)
    noisy: bool = True
    missing_loss: float = pydantic.Field(default=1.0, ge=0)
    method_lr: float = pydantic.Field(default=1.0, gt=0)
    loss: Literal["ce", "bce"] | None = None
    augment: Augment = Augment()
    lr: float = pydantic.Field(default=3e-4, gt=0)
    label: str | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        """Every loss has its weight, so that a record of the config says them all."""
        kind = FUSIONS[self.method]
        try:
            check_names(self.sizes, settings_of(kind, ("config", "classes")))
        except ValueError as error:
            raise ValueError(f"sizes: {error}") from None
        self.__dict__["weights"] = checked_weights(self.weights, kind.loss_names)  # the one change of a frozen config
        return self


class CaseConfig(TrainConfig):
    """What the case-wise recipes share: a frozen backbone, one small module per case, cached features.

    Attributes:
        backbone: folder of the fine-tuned run whose weights are frozen.
        features: folder of its feature shards; None finds or makes the ones for `depth` beside the media
            shards.
        depth: encoder block k from which training runs live; features before it are cached.
        cases: which cases to train.
        head: train a copy of the classification head too (published: frozen).
        missing: share of each noisy case's training samples from which the ruined modality is taken away
            altogether.
        resident: keep all tokens of the case in training on the device that trains (small corpora).
        loss: as of `finetune`; None: binary cross-entropy where the backbone was trained by it, or a training clip
            has several labels.
    """

    by_position = ""
    backbone: Path
    features: Path | None = None
    depth: int = pydantic.Field(default=0, ge=0)
    cases: tuple[Case, ...] = CASES
    head: bool = False
    missing: float = pydantic.Field(default=0.0, ge=0, le=1)
    resident: bool = False
    loss: Literal["ce", "bce"] | None = None
    weight_decay: float = pydantic.Field(default=0.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _resident_or_streamed(self) -> CaseConfig:
        if self.stream and self.resident:
            raise ValueError("resident keeps all tokens in memory, stream passes them by; leave one of them out")
        return self


class PromptConfig(CaseConfig):
    """Dual-level prompts (*Prompt the Missing*); see `models.settings.PromptSize`."""

    recipe: Literal["prompt"] = "prompt"
    lr: float = pydantic.Field(default=1e-2, gt=0)
    length: int = pydantic.Field(default=4, ge=1)
    """Prompt tokens per level and modality (published: 16)."""
    deep: bool = False
    """Own tokens for every block from `depth` on, instead of one set that travels through."""
    input_level: bool = True
    """Prompt tokens among the encoders' input tokens."""
    attention_level: bool = True
    """Prompt tokens among the keys and values of the fusion."""

    def size(self) -> PromptSize:
        """Size of a prompt set."""
        return PromptSize(self.length, self.depth, self.deep, self.input_level, self.attention_level)


class LoraConfig(CaseConfig):
    """LoRA on the qkv projections."""

    recipe: Literal["lora"] = "lora"
    rank: int = pydantic.Field(default=2, ge=1)
    """Rank of the added matrices."""
    alpha: float = pydantic.Field(default=4.0, gt=0)
    """The added product is scaled by `alpha` / `rank`."""


class AdapterConfig(CaseConfig):
    """Bottleneck adapters after the MLPs."""

    recipe: Literal["adapter"] = "adapter"
    width: int = pydantic.Field(default=4, ge=1)
    """Hidden width of an adapter."""


class Stream(Config):
    """How test samples come to a network that adapts to them, in an order drawn from the run's seed and their ids."""

    batch_size: int = pydantic.Field(default=64, ge=1)
    """Samples that it adapts to at once (published: 64)."""
    lr: float | None = pydantic.Field(default=None, gt=0)
    """Learning rate; None: the adaptation's own (read 1e-4, tent and prompts 1e-3)."""
    steps: int = pydantic.Field(default=1, ge=1)
    """Steps of every batch."""
    episodic: bool = False
    """Every batch begins with the trained network; else only every condition does."""


class EvaluateConfig(Config):
    """What is evaluated.

    Attributes:
        data: folder of the media shards; None: the first run's.
        split: whose samples.
        protocol: a published choice of `conditions`, `severities` and `noise`; None: as they are given.
        conditions: names of `models.conditions.CONDITIONS`; a corruption stands for all of `severities`.
        severities: of the corruptions among the conditions, 1 to 5.
        noise: kinds and severities, or a preset's name (`ours`, `released`, `released_kinds`); None: those that the
            runs were trained with, all of them the same.
        recordings: folder of the sounds that corruptions mix in (`rain/*.wav` or `rain*.wav`, ...).
        overlays: folder of the pictures that corruptions lay over (`frost*.png`, `crowd*.png`).
        frames: the middle picture of a clip, or all that its shard holds, probabilities averaged (published: 10).
        alone: the way of a modality whose other one is missing, see `models.settings.BackboneConfig`; None: as each
            backbone has it.
        batch_size, loaders: of the forward passes.
        abstain_below: answers with a lower probability are not given; the tables tell the coverage, and the error of
            the others.
        audit: folder of `avmend audit` (or its audit.csv) about these clips; accuracy with and without what it flagged.
        baseline: method that the others are compared with; None: `finetune_noisy`, or `finetune` without it.
        adapt: test-time adaptations; each run that has what one adapts gets a further row, such as "finetune + READ".
        adapted: the methods that adapt, by the name of their runs or as tables have it; None: all that can.
        adaptation: how samples come to a network that adapts, and the optimizer's settings.
    """

    data: Path | None = None
    split: str = "test"
    protocol: ProtocolName | None = None
    conditions: tuple[ConditionName, ...] = pydantic.Field(default=tuple(c.name for c in PUBLISHED), min_length=1)
    severities: tuple[Annotated[int, pydantic.Field(ge=1, le=5)], ...] = pydantic.Field(
        default=SEVERITIES, min_length=1
    )
    noise: Noise | None = None
    frames: Literal["middle", "all"] = "middle"
    alone: Literal["own", "averaged"] | None = None
    recordings: Path | None = None
    overlays: Path | None = None
    batch_size: int = pydantic.Field(default=128, ge=1)
    loaders: int = pydantic.Field(default=0, ge=0)
    abstain_below: float | None = pydantic.Field(default=None, ge=0, le=1)
    audit: Path | None = None
    baseline: str | None = None
    adapt: tuple[AdaptationName, ...] = ()
    adapted: tuple[str, ...] | None = None
    adaptation: Stream = Stream()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_protocol(cls, values: Any) -> Any:
        protocol = PROTOCOLS.get(str(values.get("protocol"))) if isinstance(values, dict) else None
        if protocol is None:
            return values
        own = {
            "conditions": list(protocol.conditions),
            "severities": list(protocol.severities),
            "noise": protocol.noise,
        }
        return {**{name: value for name, value in own.items() if value is not None}, **values}

    @pydantic.model_validator(mode="after")
    def _once_each(self) -> EvaluateConfig:
        for name in ("conditions", "severities", "adapt"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: one is given twice")
        return self

    def applied(self) -> list[Condition]:
        """The conditions, a corruption once per severity."""
        return [rung for name in self.conditions for rung in CONDITIONS[name].ladder(self.severities)]

    def require_one_noise(self, trained: Iterable[TrainConfig]) -> None:
        """Refuse runs of which each would meet another noise under one condition.

        Args:
            trained: configs of the runs.

        Raises:
            InputError: a condition draws noise, none is named, and the runs were not all trained with the same.
        """
        drawn = any(condition.noisy and condition.corruption is None for condition in self.applied())
        if drawn and self.noise is None and len({config.noise.build() for config in trained}) > 1:
            message = "these runs were trained with different noise, and each would meet its own"
            remedy = "name one that all of them meet: --set noise=ours (of a study: evaluate: {noise: ours})"
            raise InputError(message, field="noise", remedy=remedy)
