"""Published CAV-MAE checkpoints: read, their heads matched with labels, and taken in as runs that stay as they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from configs import digest
from configs.public import read_state
from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.inputs import Normalisation
from models.public import head_classes, import_state_dict, inner_state, public_sizes
from models.settings import BackboneConfig
from shards.checkpoint import save_checkpoint
from shards.class_order import KNOWN, find_class_order
from shards.errors import InputError
from shards.hashes import file_sha256
from trainers.classification.config import FinetuneConfig, Sizes
from trainers.classification.targets import Loss
from trainers.identity import git_commit
from trainers.job import ROOT, Job
from trainers.recipe import NO_DATA, Fingerprints
from trainers.recipes import FINETUNE

AUDIOSET = 527  # classes; the head of no other corpus is multi-label


def public_state(path: Path, field: str) -> dict[str, Tensor]:
    """The state dict of a public file, without prefixes; no code of the file is run.

    Raises:
        InputError: it can't be read, or is none.
    """
    try:
        return inner_state(read_state(path))
    except Exception as error:  # whatever a damaged file makes of the readers
        remedy = "give a public CAV-MAE state dict (.pth or .safetensors)"
        raise InputError(f"can't be read: {error}", file=path, field=field, remedy=remedy) from None


def import_public(
    net: CAVMAE, state: Mapping[str, Tensor], path: Path, remedy: str, field: str = "public"
) -> list[str]:
    """`models.public.import_state_dict`, with errors that name the file.

    Raises:
        InputError: names missing, unknown or of another shape, listed.
    """
    try:
        return import_state_dict(net, state)
    except ValueError as error:
        raise InputError(str(error), file=path, field=field, remedy=remedy) from None


def head_order(labels: str | Path | None, classes: int, file: Path, field: str, remedy: str = "") -> tuple[str, ...]:
    """The classes of a head.

    Args:
        labels: of `shards.class_order.find_class_order`.
        remedy: another way out where there is no list.

    Raises:
        InputError: no list, or one of another length.
    """
    if labels is None:
        message = (
            f"its head has {classes} classes, and nothing says which: one order taken for another is silently wrong"
        )
        remedy = f"give {field}={' or '.join(KNOWN)}, or a file of its classes in their order{remedy}"
        raise InputError(message, file=file, field=field, remedy=remedy)
    order = find_class_order(labels)
    if len(order) != classes:
        message = f"its head has {classes} classes, the list '{labels}' {len(order)}"
        raise InputError(message, file=file, field=field, remedy="give the list that the head was trained with")
    return order


def head_for(state: dict[str, Tensor], order: Sequence[str], labels: Sequence[str], file: Path) -> dict[str, Tensor]:
    """The state dict with the head's rows for other labels, by their names.

    Raises:
        InputError: labels that the head does not know.
    """
    place = {label: i for i, label in enumerate(order)}
    if unknown := [label for label in labels if label not in place]:
        message = f"its head does not know {len(unknown)} of {len(labels)} labels: {', '.join(unknown[:5])}"
        remedy = "spell the labels as its list does, or set public_head=false for a fresh head"
        raise InputError(message, file=file, field="public_labels", remedy=remedy)
    rows = [place[label] for label in labels]
    return {name: x[rows] if name.startswith("mlp_head.1.") else x for name, x in state.items()}


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
    sizes, sha256 = backbone.net.config, file_sha256(path)
    config = FinetuneConfig(
        data=NO_DATA if arguments.data is None else Path(arguments.data).absolute(),
        backbone=_sizes(sizes),
        public=path.absolute(),
        statistics="published",
        loss=backbone.loss,
        imported=True,
    )
    identity = digest([sha256, list(backbone.labels), sizes.as_dict(), backbone.loss])
    folder = Path(arguments.runs).absolute() / f"{FINETUNE.run_name(config)}-{identity}"
    job = Job(config, FINETUNE, folder, identity, Fingerprints("", sha256), git_commit(ROOT))
    if not job.finished:
        job.begin()
        save_checkpoint(folder / "finetune", backbone.net.state_dict(), backbone.meta())
    return folder


def _sizes(config: BackboneConfig) -> Sizes:
    fields = ("dim", "heads", "mlp_ratio", "depth", "joint_depth", "target_length", "image_size")
    return Sizes(preset="base", **{name: getattr(config, name) for name in fields})
