"""Import of public checkpoints: by name, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.cavmae import CAVMAE

_OWN = ("fusion_a.", "fusion_v.")  # not in public checkpoints; start as the identity
_HEAD = "mlp_head."
_DECODER = ("decoder_", "mask_token")


def import_state_dict(model: CAVMAE, state: Mapping[str, Tensor]) -> list[str]:
    """Load a public (or own) state dict into `model`, in place, only when every tensor fits.

    A `module.` prefix (saved from DataParallel) is dropped, so is a pre-training decoder; the head is loaded
    when it is there with the model's label count, else the model's own fresh head stays.

    Returns:
        names of the model's parameters that the checkpoint did not hold (head, fusion): they are to be
        trained.

    Raises:
        ValueError: no state dict; names missing, unknown or of another shape, listed; `model` is unchanged.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"not a state dict but a {type(state).__name__}")
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODER)}
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
