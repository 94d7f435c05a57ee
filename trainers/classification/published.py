"""Published CAV-MAE checkpoints: read, and their heads matched with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from configs.public import read_state
from models.cavmae import CAVMAE
from models.public import import_state_dict, inner_state
from shards.class_order import KNOWN, find_class_order
from shards.errors import InputError


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
