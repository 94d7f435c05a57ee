"""Backbones that `avmend train finetune` and `dense` left on disk."""

from __future__ import annotations

from pathlib import Path

from models.backbone import Backbone
from shards.checkpoint import checkpoint_in, has_checkpoint, load_checkpoint, to_ask
from shards.errors import InputError
from shards.stored_folder import reading

STAGES = ("finetune", "dense")  # of the recipes whose checkpoint is a backbone


def has_backbone(folder: Path) -> bool:
    """Whether a run's folder holds a backbone."""
    return any(has_checkpoint(Path(folder) / stage) for stage in STAGES)


def load_backbone(folder: Path) -> Backbone:
    """The backbone of a `finetune` or `dense` run, on the CPU: `folder` is the run's, or the checkpoint's own, here or
    on a store.

    Raises:
        InputError: nothing there, a damaged one, or a checkpoint of something else; names the folder.
    """
    here = reading(folder, to_ask)
    own = next((stage for stage in STAGES if has_checkpoint(here / stage)), STAGES[0])
    checkpoint = load_checkpoint(checkpoint_in(here, own), kind="backbone")
    try:
        return Backbone.from_checkpoint(checkpoint.weights, checkpoint.meta)
    except (ValueError, KeyError, TypeError) as error:
        remedy = "give the run of 'avmend train finetune', or train again"
        raise InputError(f"is no usable backbone: {error}", file=folder, remedy=remedy) from None


def load_classifier(folder: Path, field: str) -> Backbone:
    """A backbone all of which learnt to classify; see `load_backbone`.

    Args:
        field: the setting that names the folder.

    Raises:
        InputError: as `load_backbone`; or it learnt densely.
    """
    backbone = load_backbone(folder)
    if backbone.dense:
        message, remedy = "learnt densely, for sequence features; its joint encoder did not", "give a 'finetune' run"
        raise InputError(message, file=folder, field=field, remedy=remedy)
    return backbone
