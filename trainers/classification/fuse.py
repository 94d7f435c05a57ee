"""The recipe `fuse`: a method between a fine-tuned backbone's encoders and its joint block, all of it training on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.conditions import CASES
from models.fusion import FUSIONS
from models.fusion.net import FusedNet
from models.inputs import Normalisation
from models.settings import BackboneConfig
from shards.checkpoint import checkpoint_in, load_checkpoint
from shards.errors import InputError
from shards.reader import ShardDataset
from trainers.classification.augment import augment
from trainers.classification.config import FuseConfig
from trainers.classification.items import MediaItems
from trainers.classification.objective import FuseLoss
from trainers.classification.stages import input_spec, loss_of, media_info, started_from
from trainers.classification.targets import TargetForm
from trainers.loop import Stage
from trainers.optimisation import Optimisation
from trainers.recipe import Fingerprints

KIND = "fused"


def fused_net(net: CAVMAE, method: str, sizes: Mapping[str, Any]) -> FusedNet:
    """A backbone with a fresh method.

    Raises:
        InputError: sizes that can't be.
    """
    try:
        return FusedNet(net, FUSIONS[method](net.config, net.classes, **sizes))  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        remedy = "choose other sizes, or leave them out"
        raise InputError(f"{method} can't be built: {error}", field="sizes", remedy=remedy) from None


def fuse_stages(config: FuseConfig) -> list[Stage]:
    """The one stage of `fuse`.

    Raises:
        InputError: data or the run to start from are missing, or do not belong together; sizes that can't be.
    """
    info = media_info(config.data)
    backbone = started_from(config.start, info)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = fused_net(backbone.net, config.method, config.sizes)
    train = ShardDataset(config.data, "train", info=info)
    backbone = replace(backbone, loss=loss_of(config.loss, train, backbone.loss))
    form = TargetForm(several=backbone.loss == "bce")
    common = (backbone.labels, input_spec(backbone), CASES if config.noisy else ("complete",), config.noise.build())
    return [
        Stage(
            "fuse",
            FuseLoss(net, config.missing_loss, config.weights, backbone.loss),
            MediaItems(train, *common, config.seed, True, form),
            MediaItems(ShardDataset(config.data, "val", info=info), *common, config.seed, form=form)
            if "val" in info.splits
            else None,
            weights=net.state_dict,
            load=lambda weights: _load(net, weights),
            meta={**backbone.meta(), "kind": KIND, "method": config.method, "sizes": dict(config.sizes)},
            augment=lambda batch, rng: augment(batch, config.augment, rng),
            unused_parameters=True,
            optimisation=Optimisation(faster=lambda name: config.method_lr if ".method." in f".{name}" else 1.0),
        )
    ]


def _load(net: FusedNet, weights: dict[str, torch.Tensor]) -> None:
    net.load_state_dict(weights)


def fuse_fingerprints(config: FuseConfig) -> Fingerprints:
    """Of the media shards and of the run that it starts from.

    Raises:
        InputError: either is missing or of another kind, or the method can't be built on it.
    """
    info = media_info(config.data)
    backbone = started_from(config.start, info)
    fused_net(backbone.net, config.method, config.sizes)  # refuses sizes before anything is made
    return Fingerprints(info.fingerprint(), backbone.fingerprint)


def fused_run(folder: Path) -> tuple[Backbone, FusedNet]:
    """The network of a finished run, and its backbone with labels and normalisation, on the CPU.

    Raises:
        InputError: nothing there, a damaged one, or a checkpoint of something else.
    """
    checkpoint = load_checkpoint(checkpoint_in(folder, "fuse"), kind=KIND)
    meta = checkpoint.meta
    try:
        net = CAVMAE(BackboneConfig(**meta["backbone"]), len(meta["labels"]))
        fused = fused_net(net, meta["method"], meta["sizes"])
        fused.load_state_dict(checkpoint.weights)
        normalisation = Normalisation.from_dict(meta["normalisation"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"is no usable network: {error}", file=folder, remedy="train it again") from None
    return Backbone(net, tuple(meta["labels"]), normalisation, loss=meta.get("loss", "ce")), fused
