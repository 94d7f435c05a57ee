"""A published, fine-tuned CAV-MAE as a finished run of `finetune`, which stays as it is."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.inputs import Normalisation
from models.public import head_classes, public_sizes
from models.settings import BackboneConfig
from shards.errors import InputError
from shards.hashes import file_sha256
from trainers.classification.config import FinetuneConfig, Sizes
from trainers.classification.published import head_order, import_public, public_state
from trainers.classification.targets import Loss
from trainers.imports.job import save_imported
from trainers.recipe import NO_DATA

AUDIOSET = 527  # classes; the head of no other corpus is multi-label


def take_in(arguments: argparse.Namespace) -> Path:
    """What ``avmend import cavmae`` does; see `trainers.imports.kinds.ImportKind`.

    Raises:
        InputError: no such network in the file, no head, or no list of its classes.
    """
    path = Path(arguments.file)
    state = public_state(path, "FILE")
    if (classes := head_classes(state)) is None:
        remedy = f"fine-tune it: avmend train finetune public={path} data=DIR backbone.preset=base"
        raise InputError("has no head: it is pre-trained", file=path, field="FILE", remedy=remedy)
    order = head_order(arguments.labels, classes, path, "--labels")
    net = _network(state, path, classes, arguments.heads, arguments.alone)
    loss: Loss = arguments.loss or ("bce" if classes == AUDIOSET else "ce")
    backbone = Backbone(net, order, Normalisation(), loss=loss)
    if unused := [name for name in state if name not in net.state_dict()]:
        print(f"note: {len(unused)} tensors are of its decoder and not used: {unused[0]}, ...", file=sys.stderr)
    return _save(backbone, path, arguments)


def _network(state: dict[str, Tensor], path: Path, classes: int, heads: int | None, alone: str) -> CAVMAE:
    """The published network, its fusion ready for prompts."""
    try:
        sizes = replace(public_sizes(state, heads), fusion="prompts", alone=alone)  # type: ignore[arg-type]
    except ValueError as error:
        remedy = "give a fine-tuned CAV-MAE, and --heads if its attention has not 64 channels a head"
        raise InputError(str(error), file=path, field="FILE", remedy=remedy) from None
    net = CAVMAE(sizes, classes)
    import_public(net, state, path, "give a fine-tuned CAV-MAE, with the published names", "FILE")
    net.start_fusion()
    return net


def _save(backbone: Backbone, path: Path, arguments: argparse.Namespace) -> Path:
    """The run's folder."""
    config = FinetuneConfig(
        data=NO_DATA if arguments.data is None else Path(arguments.data).absolute(),
        backbone=_sizes(backbone.net.config),
        public=path.absolute(),
        statistics="published",
        loss=backbone.loss,
        imported=True,
    )
    content = [file_sha256(path), list(backbone.labels), backbone.net.config.as_dict()]
    source = {"kind": arguments.kind, "file": path.name}
    return save_imported(config, Path(arguments.runs), content, source, backbone.net.state_dict(), backbone.meta())


def _sizes(config: BackboneConfig) -> Sizes:
    fields = ("dim", "heads", "mlp_ratio", "depth", "joint_depth", "target_length", "image_size")
    return Sizes(preset="base", **{name: getattr(config, name) for name in fields})
