"""Import of public CAV-MAE checkpoints: by name, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

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
        ValueError: names missing, unknown or of another shape, all listed; `model` is unchanged.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODER)}
    own = model.state_dict()
    if any(
        name in own and name.startswith(_HEAD) and own[name].shape != t.shape for name, t in state.items()
    ):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_HEAD)}
    absent = [name for name in own if name not in state]
    problems = [f"missing {n}" for n in absent if not n.startswith((*_OWN, _HEAD))]
    problems += [f"unknown {n}" for n in state if n not in own]
    problems += [
        f"{n} is {tuple(t.shape)}, expected {tuple(own[n].shape)}"
        for n, t in state.items()
        if n in own and own[n].shape != t.shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"not a checkpoint of this backbone: {'; '.join(problems[:8])}{more}")
    model.load_state_dict(state, strict=False)
    return absent
