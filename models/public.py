"""Import of public checkpoints: by name, whole or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from models.cavmae import CAVMAE
from models.settings import MEL_BINS, PATCH, BackboneConfig

_OWN = ("fusion_a.", "fusion_v.")  # not in public checkpoints; start as the identity
_HEAD = "mlp_head."
_DECODER = ("decoder_", "mask_token")
_INSIDE = ("state_dict", "model", "model_state_dict", "module")  # where a file that holds more keeps its weights
_HEAD_WIDTH = 64  # of published CAV-MAE's attention heads


def inner_state(state: Mapping) -> dict[str, Tensor]:
    """The state dict of a public file, which may lie inside a larger one (``state_dict``, ``model``), by names without
    a `module.` prefix (saved from DataParallel).

    Raises:
        ValueError: no state dict.
    """
    for name in _INSIDE:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping):
        raise ValueError(f"not a state dict but a {type(state).__name__}")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def head_classes(state: Mapping[str, Tensor]) -> int | None:
    """Classes of the head in an `inner_state`; None: it has none (pre-trained)."""
    weight = state.get(f"{_HEAD}1.weight")
    return len(weight) if isinstance(weight, Tensor) and weight.dim() == 2 else None


def public_sizes(state: Mapping[str, Tensor], heads: int | None = None) -> BackboneConfig:
    """Sizes of the network that an `inner_state` belongs to, from its names and shapes.

    Args:
        heads: attention heads, which no shape tells; None: of 64 channels each, as published.

    Raises:
        ValueError: names or shapes that no CAV-MAE has.
    """
    try:
        _, audio, dim = state["pos_embed_a"].shape
        side = math.isqrt(state["pos_embed_v"].shape[1])
        ratio = len(state["blocks_u.0.mlp.fc1.weight"]) / dim
    except (KeyError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"no CAV-MAE: {error}") from None

    def blocks(stack: str) -> int:
        return len({name.split(".")[1] for name in state if name.startswith(f"{stack}.")})

    return BackboneConfig(
        dim=dim,
        heads=heads or max(1, dim // _HEAD_WIDTH),
        mlp_ratio=ratio,
        depth=blocks("blocks_a"),
        joint_depth=blocks("blocks_u"),
        target_length=audio * PATCH * PATCH // MEL_BINS,
        image_size=side * PATCH,
    )


def import_state_dict(model: CAVMAE, state: Mapping[str, Tensor]) -> list[str]:
    """Load a public (or own) state dict into `model`, in place, only when every tensor fits.

    A `module.` prefix (saved from DataParallel) is dropped, so is a pre-training decoder; the head is loaded
    when it is there with the model's label count, else the model's own fresh head stays. Whose classes the head has
    is for the caller to know.

    Returns:
        names of the model's parameters that the checkpoint did not hold (head, fusion): they are to be
        trained.

    Raises:
        ValueError: no state dict; names missing, unknown or of another shape, listed; `model` is unchanged.
    """
    state = {name: tensor for name, tensor in inner_state(state).items() if not name.startswith(_DECODER)}
    own = model.state_dict()
    if any(name in own and name.startswith(_HEAD) and _shape(t) != own[name].shape for name, t in state.items()):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD)}
    absent = [name for name in own if name not in state]
    fresh = _OWN if any(name.startswith(_HEAD) for name in state) else (*_OWN, _HEAD)
    load_exactly(model, state, "this backbone", fresh)
    return absent


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], what: str, fresh: tuple[str, ...] = ()) -> None:
    """Load `state` into `model`, in place, only when every tensor fits; `model` may keep those whose names
    begin with one of `fresh`.

    Args:
        what: the model's name, for the message.

    Raises:
        ValueError: names missing, unknown or of another shape, listed; `model` is unchanged.
    """
    own = model.state_dict()
    problems = {
        "missing": [n for n in own if n not in state and not n.startswith(fresh)],
        "unknown": [n for n in state if n not in own],
        "other shapes:": [
            f"{n} is {_shape(t)}, expected {_shape(own[n])}"
            for n, t in state.items()
            if n in own and own[n].shape != _shape(t)
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind} {_few(names)}" for kind, names in problems.items() if names)
        raise ValueError(f"not a checkpoint of {what}: {listed}")
    model.load_state_dict(dict(state), strict=False)


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else f"no tensor ({type(value).__name__})"


def _few(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
