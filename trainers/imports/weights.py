"""Tensors by name of a file that others made: safetensors, or what torch reads without running code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from configs.public import read_state
from shards.errors import InputError

NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # of DataParallel, torch.compile, and wrappers
State = dict[str, Tensor]


def read_tensors(path: Path) -> State:
    """A network's tensors, float32, by the names that it was built with.

    A state dict may lie within dicts (``state_dict``, ``model``, ``net``, ...); prefixes that all names share
    (``module.``) are dropped.

    Raises:
        InputError: no such file, a damaged one, one that only a pickle's code can restore, one without a state dict;
            values that are no finite numbers.
    """
    state = _bare(_state_in(path, _read(path)))
    if wrong := [name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()]:
        message = f"holds values that are no finite numbers: {few(wrong)}"
        raise InputError(message, file=path, remedy="copy the file again, or take another checkpoint")
    return {name: x.float() if x.is_floating_point() else x for name, x in state.items()}


def few(names: list[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _read(path: Path) -> Any:
    try:
        with path.open("rb"):
            pass
        return read_state(path)
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="check the path") from None
    except pickle.UnpicklingError:
        message = "holds Python objects, which only its own code can restore; it is not run here"
        remedy = (
            "where you trust it, load it with its own code and save its tensors alone:"
            " torch.save(module.state_dict(), 'weights.pt'); then import weights.pt"
        )
        raise InputError(message, file=path, remedy=remedy) from None
    except (RuntimeError, SafetensorError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        message = f"is no file of weights, or damaged: {reason}"
        raise InputError(message, file=path, remedy="give a .pt, .pth or .safetensors file; fetch it again") from None


def _state_in(path: Path, value: Any) -> Mapping[str, Tensor]:
    found = list(_dicts_of_tensors(value))
    if found:
        return found[0]
    keys = few([str(key) for key in value]) if isinstance(value, Mapping) else f"a {type(value).__name__}"
    remedy = f"give a state dict, by itself or under one of {', '.join(NESTED)}"
    raise InputError(f"has no state dict: {keys}", file=path, remedy=remedy)


def _dicts_of_tensors(value: Any) -> Iterator[Mapping[str, Tensor]]:
    """The value itself, or what lies under a name of `NESTED`, at any depth."""
    if not isinstance(value, Mapping):
        return
    if value and all(isinstance(x, Tensor) and isinstance(name, str) for name, x in value.items()):
        yield value
        return
    for name in NESTED:
        yield from _dicts_of_tensors(value.get(name))


def _bare(state: Mapping[str, Tensor]) -> State:
    names = dict(zip(state, state, strict=True))
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): full for name, full in names.items()}
    return {name: state[full] for name, full in names.items()}
