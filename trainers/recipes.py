"""The recipes: what each one trains, from config and data to stages. Adding a case-wise method is one builder
here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.backbone import load_backbone
from models.backbone import Backbone
from models.batch import AVBatch
from models.cavmae import CAVMAE
from models.conditions import CASES
from models.inputs import Normalisation
from models.peft import Adapter, LoRA
from models.prompts import DualPrompts
from models.public import import_state_dict
from models.tuned import CaseModule, Tuned
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, feature_folder
from trainers.avqa.config import AnyRecoveryConfig, AVQAConfig, AVRConfig, QuestionConfig, RMMConfig
from trainers.avqa.stages import question_fingerprints, question_stages
from trainers.classification.augment import augment
from trainers.config import AdapterConfig, CaseConfig, FinetuneConfig, LoraConfig, PromptConfig, TrainConfig
from trainers.data import FeatureItems, InputSpec, MediaItems
from trainers.loop import Stage


class CompetentLoss(nn.Module):
    """Cross-entropy of the pair plus `weight` times that of each modality alone, over the same encoder
    outputs.

    The solo terms keep both encoders good on their own, as a pre-trained CAV-MAE's are, and train the
    single-modality path that serves missing modalities. A sample that has one modality contributes that path
    alone.
    """

    def __init__(self, net: CAVMAE, weight: float):
        super().__init__()
        self.net, self.weight = net, weight

    def forward(self, batch: AVBatch) -> tuple[Tensor, Tensor]:
        total = batch.label.new_zeros((), dtype=torch.float32)
        logits = total.new_empty(len(batch), self.net.classes)
        for modalities, rows in batch.groups():
            tokens = {m: self.net.encode(m, self.net.embed(m, getattr(batch, m)[rows])) for m in modalities}
            label, joint = batch.label[rows], self.net.join(tokens).float()
            total = total + F.cross_entropy(joint, label, reduction="sum")
            if len(modalities) == 2 and self.weight and self.training:
                for m in modalities:
                    alone = self.net.join({m: tokens[m]}).float()
                    total = total + self.weight * F.cross_entropy(alone, label, reduction="sum")
            logits = logits.index_copy(0, rows, joint)
        return total / len(batch), logits.detach()


class CaseLoss(nn.Module):
    """Cross-entropy of a frozen backbone with one case's module, on tokens cached before block `depth`."""

    def __init__(self, tuned: Tuned, depth: int):
        super().__init__()
        self.tuned, self.depth = tuned, depth

    def forward(self, batch: AVBatch) -> tuple[Tensor, Tensor]:
        logits = self.tuned(batch.audio, batch.visual, batch.present, self.depth).float()
        return F.cross_entropy(logits, batch.label), logits.detach()


def dataset_normalisation(info: DatasetInfo) -> Normalisation:
    """Statistics of a dataset's training split; the published value for a modality that it has none of."""
    audio, visual = info.normalisation.audio, info.normalisation.visual
    values: dict = {}
    if audio is not None:
        values |= {"audio_mean": audio.mean[0], "audio_std": audio.std[0]}
    if visual is not None:
        values |= {"visual_mean": visual.mean, "visual_std": visual.std}
    return Normalisation(**values)


def input_spec(backbone: Backbone) -> InputSpec:
    config = backbone.net.config
    return InputSpec(config.target_length, config.image_size, backbone.normalisation)


def _start(config: FinetuneConfig, info: DatasetInfo) -> Backbone:
    """The backbone that fine-tuning starts from: a run's, a public file's, or a fresh one."""
    if config.start is not None:
        backbone = load_backbone(config.start)
        if unknown := sorted(set(info.labels) - set(backbone.labels)):
            remedy = "start from a run on the same labels"
            raise InputError(
                f"does not know the labels {', '.join(unknown)}",
                file=config.start,
                field="start",
                remedy=remedy,
            )
        return backbone
    normalisation = dataset_normalisation(info) if config.statistics == "dataset" else Normalisation()
    net = CAVMAE(config.backbone.build(), len(info.labels))
    if config.public is not None:
        _import_public(net, config.public)
    return Backbone(net, info.labels, normalisation)


def _import_public(net: CAVMAE, path: Path) -> None:
    from safetensors.torch import load_file

    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:
        remedy = "give a public CAV-MAE state dict (.pth or .safetensors)"
        raise InputError(f"can't be read: {error}", file=path, field="public", remedy=remedy) from None
    try:
        import_state_dict(net, state)
    except ValueError as error:
        remedy = "choose backbone.preset (and its sizes) to match the file"
        raise InputError(str(error), file=path, field="public", remedy=remedy) from None


def finetune_stages(config: FinetuneConfig) -> list[Stage]:
    """Full fine-tuning, one stage."""
    info = DatasetInfo.load(config.data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = _start(config, info)
    spec = input_spec(backbone)
    conditions = CASES if config.noisy else ("complete",)

    def items(split: str, random_frame: bool) -> MediaItems:
        data = ShardDataset(config.data, split, info=info)
        return MediaItems(data, backbone.labels, spec, conditions, config.noise.build(), config.seed, random_frame)

    return [
        Stage(
            "finetune",
            CompetentLoss(backbone.net, config.solo_loss),
            items("train", True),
            items("val", False) if "val" in info.splits else None,
            weights=backbone.net.state_dict,
            load=lambda weights: _load(backbone.net, weights),
            meta=backbone.meta(),
            augment=lambda batch, rng: augment(batch, config.augment, rng),
        )
    ]


def _load(net: nn.Module, weights: dict[str, Tensor]) -> None:
    net.load_state_dict(weights)


def build_case_module(config: CaseConfig, net: CAVMAE) -> CaseModule:
    """A fresh module of a case-wise recipe.

    Raises:
        InputError: sizes that the backbone has not.
    """
    builders: Mapping[type, Callable[[], CaseModule]] = {
        PromptConfig: lambda: DualPrompts(net.config, config.size()),  # type: ignore[attr-defined]
        LoraConfig: lambda: LoRA(net, config.rank, config.alpha, config.depth),  # type: ignore[attr-defined]
        AdapterConfig: lambda: Adapter(net, config.width, config.depth),  # type: ignore[attr-defined]
    }
    try:
        return builders[type(config)]()
    except ValueError as error:
        remedy = f"choose 0 to {net.config.depth - 1}"
        raise InputError(str(error), file=config.backbone, field="depth", remedy=remedy) from None


def find_features(config: CaseConfig, backbone: Backbone) -> tuple[Path, DatasetInfo]:
    """The feature shards that a case-wise run trains on.

    Raises:
        InputError: none there, or those of another backbone or depth.
    """
    folder = config.features or feature_folder(config.data, backbone.fingerprint, config.depth)
    command = f"avmend features --data {config.data} --backbone {config.backbone} --depth {config.depth}"
    if not (folder / "dataset.json").is_file():
        raise InputError("no feature shards here", file=folder, field="features", remedy=f"make them: {command}")
    info = DatasetInfo.load(folder)
    made = info.backbone
    if made is None or made.fingerprint != backbone.fingerprint:
        raise InputError("made by another backbone", file=folder, field="features", remedy=f"make new ones: {command}")
    if made.depth != config.depth:
        message = f"hold tokens at depth {made.depth}, the run asks for {config.depth}"
        raise InputError(message, file=folder, field="depth", remedy=f"set depth={made.depth}, or {command}")
    return folder, info


def case_stages(config: CaseConfig) -> list[Stage]:
    """One stage per case: a small module beside the frozen backbone, on cached features."""
    backbone = load_backbone(config.backbone)
    folder, info = find_features(config, backbone)
    parameters = sum(p.numel() for p in backbone.net.parameters())
    backbone.net.drop_before(config.depth)
    return [_case_stage(config, backbone, parameters, folder, info, case) for case in config.cases]


def _case_stage(
    config: CaseConfig, backbone: Backbone, parameters: int, folder: Path, info: DatasetInfo, case: str
) -> Stage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        tuned = Tuned(backbone.net, build_case_module(config, backbone.net), config.head)

    def items(split: str, missing: float) -> FeatureItems:
        return FeatureItems(ShardDataset(folder, split, info=info), backbone.labels, case, config.seed, missing)

    meta = {
        "kind": config.recipe,  # type: ignore[attr-defined]
        "case": case,
        "backbone_fingerprint": backbone.fingerprint,
        "trained": sum(p.numel() for p in tuned.trained().values()),
        "parameters": parameters,
    }
    return Stage(
        case,
        CaseLoss(tuned, config.depth),
        items("train", config.missing),
        items("val", 0.0) if "val" in info.splits else None,
        weights=tuned.trained,
        load=tuned.load_trained,
        meta=meta,
    )


RECIPES: dict[str, type[TrainConfig]] = {
    "finetune": FinetuneConfig,
    "prompt": PromptConfig,
    "lora": LoraConfig,
    "adapter": AdapterConfig,
    "avqa": AVQAConfig,
    "recovery": AnyRecoveryConfig,
    "rmm": RMMConfig,
    "avr": AVRConfig,
}


def stages(config: TrainConfig) -> list[Stage]:
    """What a recipe trains, in order."""
    if isinstance(config, FinetuneConfig):
        return finetune_stages(config)
    if isinstance(config, QuestionConfig):
        return question_stages(config)
    assert isinstance(config, CaseConfig)
    return case_stages(config)


def stage_names(config: TrainConfig) -> tuple[str, ...]:
    """Names of a recipe's stages, without loading anything."""
    return config.cases if isinstance(config, CaseConfig) else (config.recipe,)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Fingerprints:
    """What a run depends on besides its config and code.

    Attributes:
        dataset: of the shards, and of the questions where there are any.
        backbone: of the weights that it starts from.
        notes: what the user should know before it starts.
    """

    dataset: str
    backbone: str | None
    notes: tuple[str, ...] = ()


def fingerprints(config: TrainConfig) -> Fingerprints:
    """Of the dataset and, for case-wise recipes and runs that start from others, of those weights.

    Raises:
        InputError: either is missing, or what a run needs besides is, or its sizes can't be.
    """
    dataset = DatasetInfo.load(config.data).fingerprint()
    if isinstance(config, QuestionConfig):
        return Fingerprints(*question_fingerprints(config, dataset))
    if isinstance(config, CaseConfig):
        backbone = load_backbone(config.backbone)
        build_case_module(config, backbone.net)  # refuses a depth beyond the backbone before anything is made
        find_features(config, backbone)
        return Fingerprints(dataset, backbone.fingerprint)
    assert isinstance(config, FinetuneConfig)
    if config.start is not None:
        return Fingerprints(dataset, load_backbone(config.start).fingerprint)
    return Fingerprints(dataset, None)
