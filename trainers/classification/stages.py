"""The classification recipes: from config and data to the stages that train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from configs import digest
from configs.backbone import load_backbone, load_classifier
from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.conditions import CASES
from models.inputs import Normalisation
from models.peft import Adapter, LoRA
from models.prompts import DualPrompts
from models.public import head_classes
from models.tuned import CaseModule, Tuned
from shards.class_order import find_class_order
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.schema import DATASET_FILE, DatasetInfo, feature_folder
from shards.store import url_of
from trainers.classification.augment import augment
from trainers.classification.config import AdapterConfig, CaseConfig, FinetuneConfig, LoraConfig, PromptConfig
from trainers.classification.detector import fit_detector, save_detector
from trainers.classification.items import FeatureItems, InputSpec, MediaItems
from trainers.classification.objective import CaseLoss, CompetentLoss
from trainers.classification.published import head_for, head_order, import_public, public_state
from trainers.classification.targets import Loss, TargetForm, several_labels
from trainers.config import TrainConfig
from trainers.data import Items, Split, dataset_info, open_split
from trainers.loop import Stage
from trainers.optimisation import Optimisation
from trainers.recipe import Fingerprints
from trainers.streams import Lanes

ItemsT = TypeVar("ItemsT", bound=Items)


def media_info(folder: Path, field: str = "data") -> DatasetInfo:
    """dataset.json of media shards.

    Raises:
        InputError: none there, or that of features.
    """
    info = dataset_info(folder)
    if info.kind != "media":
        remedy = f"give the folder of the media shards: {folder.parent.parent}"
        message = "these are feature shards; clips are wanted"
        raise InputError(message, file=folder, field=field, remedy=remedy)
    return info


def dataset_normalisation(info: DatasetInfo) -> Normalisation:
    """Statistics of a dataset's training split; the published value for a modality that it has none of.

    A channel that never varies is only centred.
    """
    audio, visual = info.normalisation.audio, info.normalisation.visual
    values: dict = {}
    if audio is not None:
        values |= {"audio_mean": audio.mean[0], "audio_std": audio.std[0] or 1.0}
    if visual is not None:
        values |= {"visual_mean": visual.mean, "visual_std": tuple(std or 1.0 for std in visual.std)}
    return Normalisation(**values)


def input_spec(backbone: Backbone) -> InputSpec:
    """Sizes and normalisation of a backbone's inputs."""
    config = backbone.net.config
    return InputSpec(config.target_length, config.image_size, backbone.normalisation)


def started_from(run: Path, info: DatasetInfo) -> Backbone:
    """The backbone of a finished run that knows all labels of a dataset.

    Raises:
        InputError: there is none, it does not, or it learnt densely.
    """
    backbone = load_classifier(run, "start")
    if unknown := sorted(set(info.labels) - set(backbone.labels)):
        message, remedy = f"does not know the labels {', '.join(unknown)}", "start from a run on the same labels"
        raise InputError(message, file=run, field="start", remedy=remedy)
    return backbone


def _start(config: FinetuneConfig, info: DatasetInfo) -> Backbone:
    """The backbone that fine-tuning starts from: a run's, a public file's, or a fresh one."""
    if config.start is not None:
        return started_from(config.start, info)
    normalisation = dataset_normalisation(info) if config.statistics == "dataset" else Normalisation()
    net = CAVMAE(config.backbone.build(), len(info.labels))
    if config.public is not None:
        _start_public(config, net, info.labels)
    return Backbone(net, info.labels, normalisation)


def _start_public(config: FinetuneConfig, net: CAVMAE, labels: tuple[str, ...]) -> None:
    """Take a public file's weights, and its head by the names of its classes.

    Raises:
        InputError: no such network in it; a head of as many classes of which nothing says which, or other ones.
    """
    assert config.public is not None
    state = public_state(config.public, "public")
    classes = head_classes(state)
    if config.public_head and config.public_labels is not None and classes is not None:
        order = head_order(config.public_labels, classes, config.public, "public_labels")
        state = head_for(state, order, labels, config.public)
    elif config.public_head and classes == len(labels):
        head_order(None, classes, config.public, "public_labels", "; public_head=false starts a fresh head")
    elif not config.public_head:
        state = {name: x for name, x in state.items() if not name.startswith("mlp_head.")}
    import_public(net, state, config.public, "choose backbone.preset (and its sizes) to match the file")


def loss_of(wanted: Loss | None, train: Split, backbone: Loss = "ce") -> Loss:
    """The loss that a config asks for, or the one that the backbone was trained by, or the training clips need."""
    if wanted is not None:
        return wanted
    return "bce" if backbone == "bce" or several_labels(train) else "ce"


def finetune_stages(config: FinetuneConfig) -> list[Stage]:
    """Full fine-tuning, one stage."""
    info = media_info(config.data)
    split = partial(open_split, config.data, stream=config.stream, info=info)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        backbone = _start(config, info)
    train = split("train")
    backbone = replace(backbone, loss=loss_of(config.loss, train, backbone.loss))
    if config.mixup and not info.preprocessing.get("wave"):
        message, remedy = "has no waveforms, which are what is mixed", "ingest the clips again with keep_wave=true"
        raise InputError(message, file=config.data, field="mixup", remedy=remedy)
    plain = TargetForm(several=backbone.loss == "bce")
    form = replace(plain, smoothing=config.smoothing, shares=config.mixup > 0)
    common = (backbone.labels, input_spec(backbone), CASES if config.noisy else ("complete",), config.noise.build())
    changes = (config.mixup, config.augment.grain)
    items = MediaItems(train, *common, config.seed, True, form, *changes, proportion=config.proportion)
    if config.balanced:
        items.weights = items.targets.balance()

    return [
        Stage(
            "finetune",
            CompetentLoss(backbone.net, config.solo_loss, backbone.loss),
            _along(config, items),
            _along(config, MediaItems(split("val"), *common, config.seed, form=plain))
            if "val" in info.splits
            else None,
            weights=backbone.net.state_dict,
            load=lambda weights: _load(backbone.net, weights),
            meta=backbone.meta(),
            augment=lambda batch, rng: augment(batch, config.augment, rng),
            unused_parameters=True,
            optimisation=Optimisation(
                config.betas,
                lambda name: config.head_lr if ".mlp_head." in f".{name}" else 1.0,
                config.halve_after,
                config.average_from,
            ),
        )
    ]


def _along(config: TrainConfig, items: ItemsT) -> ItemsT:
    """The items, read as the config wants it."""
    items.lanes = Lanes(config.lanes, config.shuffle_buffer) if config.stream else None
    return items


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
    data = url_of(config.data) or config.data
    command = f"avmend features --data {data} --backbone {config.backbone} --depth {config.depth}"
    if url_of(folder) is None and not (folder / DATASET_FILE).is_file():
        raise InputError("no feature shards here", file=folder, field="features", remedy=f"make them: {command}")
    info = dataset_info(folder)
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

    split = partial(open_split, folder, stream=config.stream, info=info)
    train = split("train")
    loss = loss_of(config.loss, train, backbone.loss)
    form = TargetForm(several=loss == "bce")

    def items(data: Split, missing: float) -> FeatureItems:
        return _along(config, FeatureItems(data, backbone.labels, case, config.seed, missing, form))

    meta = {
        "kind": config.recipe,
        "case": case,
        "backbone_fingerprint": backbone.fingerprint,
        "trained": sum(p.numel() for p in tuned.trained().values()),
        "parameters": parameters,
    } | ({"loss": loss} if loss != "ce" else {})
    return Stage(
        case,
        CaseLoss(tuned, config.depth, loss),
        items(train, config.missing),
        items(split("val"), 0.0) if "val" in info.splits else None,
        weights=tuned.trained,
        load=tuned.load_trained,
        meta=meta,
        unused_parameters=config.missing > 0 or bool(info.splits["train"].absent),
    )


def make_detector(config: CaseConfig, folder: Path) -> None:
    """Fit the quality detector of a case-wise run and save it as the run's checkpoint "detector"."""
    features, info = find_features(config, load_backbone(config.backbone))
    train = open_split(features, "train", config.stream, info)
    detector, fitted = fit_detector(train, config.seed, config.proportion)
    save_detector(folder, detector, config.depth, fitted)


def finetune_fingerprints(config: FinetuneConfig) -> Fingerprints:
    """Of the media shards, and of the run or public file that fine-tuning starts from.

    Raises:
        InputError: either is missing or of another kind.
    """
    if config.imported:
        message, remedy = "says that nothing is trained", "leave it out; avmend import makes such runs"
        raise InputError(message, field="imported", remedy=remedy)
    info = media_info(config.data)
    notes = tuple(_unsuitable(config, info))
    if config.start is not None:
        return Fingerprints(info.fingerprint(), started_from(config.start, info).fingerprint, notes)
    if config.public is not None:
        try:
            start = file_sha256(config.public)
        except OSError as error:
            remedy = "give a public CAV-MAE state dict (.pth or .safetensors)"
            raise InputError(
                f"can't be read: {error.strerror}", file=config.public, field="public", remedy=remedy
            ) from None
        if config.public_labels is not None:
            start = digest([start, list(find_class_order(config.public_labels))])
        return Fingerprints(info.fingerprint(), start, notes)
    return Fingerprints(info.fingerprint(), None, notes)


def case_fingerprints(config: CaseConfig) -> Fingerprints:
    """Of the media shards that a case-wise run's features were made from, and of its backbone.

    Raises:
        InputError: either is missing, or the features are, or the module has sizes that the backbone has not.
    """
    info, backbone = media_info(config.data), load_classifier(config.backbone, "backbone")
    build_case_module(config, backbone.net)  # refuses a depth beyond the backbone before anything is made
    find_features(config, backbone)
    return Fingerprints(info.fingerprint(), backbone.fingerprint)


def _unsuitable(config: FinetuneConfig, info: DatasetInfo) -> list[str]:
    """What the settings and the data make of each other that the user will hardly want."""
    out: list[str] = []
    if config.start is not None:
        return out
    sizes = config.backbone.build()
    durations = open_split(config.data, "train", config.stream, info).column("duration")
    seconds, side = float(np.median(durations)), info.preprocessing.get("image_size")
    if sizes.target_length > 200 * seconds:
        taken = f"{sizes.target_length / 100:g} s of sound"
        out.append(f"backbone.target_length={sizes.target_length} takes {taken}, the clips have {seconds:.3g} s")
    if side and sizes.image_size > side:
        out.append(f"backbone.image_size={sizes.image_size} enlarges pictures that were ingested at {side}")
    return out
