"""Checkpoints: a folder with weights.safetensors, checkpoint.json and, to resume from, state.pt.

A checkpoint is written under another name, synced, and renamed into place. A kill at any point leaves either
the old or the new one whole: while the old one stands aside (``.<name>.old``) readers find it there. What training
resumes from keeps the one before it there, for disks that damage files.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shards.atomic import sync
from shards.errors import InputError
from shards.hashes import file_sha256

FORMAT = 1
LAST = "last"  # in a run's folder: what its training resumes from
WEIGHTS, META, STATE = "weights.safetensors", "checkpoint.json", "state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, on the CPU, and what the writer said about them (identity, metrics, ...)."""

    weights: dict[str, Tensor]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Resumable:
    """What training goes on from.

    Attributes:
        weights, meta, state: as they were saved.
        note: what to tell the user: empty, or that the newest state was damaged and this is the one before it.
    """

    weights: dict[str, Tensor]
    meta: dict[str, Any]
    state: dict[str, Any]
    note: str = ""


def save_checkpoint(
    folder: Path,
    weights: dict[str, Tensor],
    meta: dict[str, Any],
    state: dict[str, Any] | None = None,
    *,
    keep_previous: bool = False,
) -> None:
    """Write a checkpoint to ``folder``, replacing one that is there; one writer at a time.

    Args:
        weights: tensors of any device and dtype; those that are one tensor under several names stay one.
        meta: json values about the weights: identity, metrics, config.
        state: what resuming needs besides (optimizer, epoch, random states): tensors and plain Python values.
        keep_previous: leave the one that is replaced beside it, for `load_resumable`, should this one be damaged.

    Raises:
        TypeError: ``state`` holds something that ``torch.load(weights_only=True)`` would refuse.
    """
    folder = Path(folder)
    _refuse_unloadable(state)
    new, old = _aside(folder, "new"), _aside(folder, "old")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() and old.exists():  # an earlier writer was killed between its two renames
        old.rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    _write_files(new, weights, meta, state)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    if not keep_previous:
        shutil.rmtree(old, ignore_errors=True)


def to_ask(path: str) -> bool:
    """Whether a file of a run is needed to ask it: all but what training resumes from."""
    return not path.startswith(f"{LAST}/")


def checkpoint_in(folder: Path, name: str) -> Path:
    """The checkpoint ``name`` of a run's folder, or ``folder`` itself where that is the checkpoint's own."""
    return inner if has_checkpoint(inner := Path(folder) / name) else Path(folder)


def load_checkpoint(folder: Path, kind: str | None = None) -> Checkpoint:
    """Read weights and meta back, bit for bit, on the CPU.

    Args:
        kind: what its meta's "kind" must be; None: anything.

    Raises:
        InputError: no checkpoint there, a damaged one, or one of another kind.
    """
    folder = _whole(Path(folder))
    if kind is not None and (found := _read_record(folder)["meta"].get("kind")) != kind:
        raise InputError(f"is a checkpoint of '{found}', not of '{kind}'", file=folder, remedy=f"give one of '{kind}'")
    return _load_weights(folder)


def _load_weights(folder: Path) -> Checkpoint:
    record = _read_record(folder)
    path = _checked(folder, WEIGHTS, record)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from None
    for alias, name in record["tied"].items():
        weights[alias] = weights[name]
    return Checkpoint({name: weights[name] for name in record["shapes"]}, record["meta"])


def checkpoint_meta(folder: Path) -> tuple[dict[str, Any], int]:
    """What the writer said about a checkpoint, and how many numbers its weights are; reads no weights.

    Raises:
        InputError: no checkpoint there, or a damaged one.
    """
    record = _read_record(_whole(Path(folder)))
    names = record["shapes"].keys() - record["tied"].keys()
    return record["meta"], sum(math.prod(record["shapes"][name][1:]) for name in names)


def weights_sha256(folder: Path) -> str:
    """sha256 (hex) of a checkpoint's weights, as its record says.

    Raises:
        InputError: no checkpoint, or a damaged one.
    """
    return str(_read_record(_whole(Path(folder)))["sha256"][WEIGHTS])


def load_state(folder: Path) -> dict[str, Any]:
    """What was saved to resume from, on the CPU.

    Raises:
        InputError: no checkpoint, one without a state, or a damaged one.
    """
    return _load_state(_whole(Path(folder)))


def load_resumable(folder: Path) -> Resumable:
    """What training that saves to ``folder`` goes on from: the newest state, or, where that is damaged, the one
    that `save_checkpoint` kept before it. Nothing is changed on disk.

    Raises:
        InputError: neither can be read; says what to remove so that the same command begins anew.
    """
    folder = Path(folder)
    places = [place for place in (folder, _aside(folder, "old")) if place.is_dir()]
    errors: list[InputError] = []
    for place in places:
        try:
            found, state = _load_weights(place), _load_state(place)
        except InputError as error:
            errors.append(error)
            continue
        note = f"{errors[0].file} {errors[0].message}; training goes on from the state before it" if errors else ""
        return Resumable(found.weights, found.meta, state, note)
    if not errors:
        raise InputError("is no checkpoint: no such folder", file=folder, remedy="train first")
    remedy = f"remove {' and '.join(map(str, places))}; the same command then begins this stage anew"
    raise InputError(f"can't be resumed from: it {errors[0].message}", file=errors[0].file, remedy=remedy)


def _load_state(folder: Path) -> dict[str, Any]:
    record = _read_record(folder)
    if STATE not in record["sha256"]:
        remedy = "resume from a run's own checkpoint, or start a new run from its weights"
        raise InputError(f"has no {STATE}: it holds weights only", file=folder, remedy=remedy)
    path = _checked(folder, STATE, record)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _damaged(path, str(error)) from None


def has_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` holds a checkpoint (also one that a killed writer left aside)."""
    return any((place / META).is_file() for place in (Path(folder), _aside(Path(folder), "old")))


def _write_files(folder: Path, weights: dict[str, Tensor], meta: dict, state: dict | None) -> None:
    own, tied = _untie(weights)
    save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    if state is not None:
        torch.save(state, folder / STATE)
    names = [WEIGHTS] if state is None else [WEIGHTS, STATE]
    record = {
        "format": FORMAT,
        "meta": meta,
        "tied": tied,
        "sha256": {name: file_sha256(folder / name) for name in names},
        "shapes": {name: [str(t.dtype).removeprefix("torch."), *t.shape] for name, t in weights.items()},
    }
    (folder / META).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for path in (*(folder / name for name in names), folder / META, folder):
        sync(path)


def _untie(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no memory, and {alias: name} of those that are another one under a second name."""
    own: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple, str] = {}
    for name, tensor in weights.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        own[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return own, tied


def _refuse_unloadable(value: Any, where: str = "state") -> None:
    if type(value) in (dict, list, tuple):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_unloadable(inner, f"{where}[{name!r}]")
    elif not isinstance(value, Tensor) and type(value) not in (int, float, bool, str, bytes, type(None)):
        kind = type(value).__name__
        raise TypeError(f"{where} is a {kind}; a state holds tensors and plain values")


def _aside(folder: Path, role: str) -> Path:
    return folder.with_name(f".{folder.name}.{role}")


def _whole(folder: Path) -> Path:
    """The folder that holds the checkpoint now: a writer may be, or have been killed, between its renames."""
    for place in (folder, _aside(folder, "old"), folder):
        if (place / META).is_file():
            return place
    what = f"has no {META}" if folder.is_dir() else "no such folder"
    raise InputError(f"is no checkpoint: {what}", file=folder, remedy="give a checkpoint's folder, or train first")


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / META
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, repr(error)) from None
    if version != FORMAT:
        remedy = "load it with the version of avmend that wrote it"
        raise InputError(f"is of format {version}, this is {FORMAT}", file=path, field="format", remedy=remedy)
    return record


def _checked(folder: Path, name: str, record: dict[str, Any]) -> Path:
    path = folder / name
    if not path.is_file():
        raise _damaged(path, "it is missing")
    if file_sha256(path) != record["sha256"][name]:
        raise _damaged(path, f"its sha256 is not the one in {META}")
    return path


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(f"is damaged: {reason}", file=path, remedy="copy it again, or train again")
