"""Published names of weights to ours: whole or not at all, and what does not fit is told by the published names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from shards.errors import InputError, nearest_name
from trainers.imports.weights import State, few


def begins(name: str, prefix: str) -> bool:
    """Whether a dotted name is that of a part, or of something within it."""
    return name == prefix or name.startswith(f"{prefix}.")


@dataclass(frozen=True)
class Names:
    """How a published network's parts are called here.

    Attributes:
        parts: published name of a part to ours.
        unused: published names of parts that have no effect on its answers.
    """

    parts: Mapping[str, str]
    unused: tuple[str, ...] = ()

    def published(self, own: str) -> str:
        """The published name of one of our weights."""
        part, ours = next((p, o) for p, o in self._longest_first() if begins(own, o))
        return part + own.removeprefix(ours)

    def taken(self, path: Path, what: str, state: State, own: Mapping[str, Tensor]) -> tuple[State, list[str]]:
        """The weights by our names, and the published names that are left out.

        Args:
            path: of the file, for the message.
            what: the network's name, for the message.
            own: our weights that the file must have.

        Raises:
            InputError: names missing, unknown or of another shape.
        """
        wanted = {self.published(name): name for name in own}
        left = [name for name in state if name not in wanted]
        problems = _problems(wanted, {p: own[o] for p, o in wanted.items()}, state, self._strange(left))
        if problems:
            remedy = f"give the weights of {what} as they were saved, whole"
            raise InputError(f"is no {what}: {'; '.join(problems)}", file=path, remedy=remedy)
        return {ours: state[published] for published, ours in wanted.items()}, left

    def _strange(self, left: Iterable[str]) -> list[str]:
        return [name for name in left if not any(begins(name, part) for part in self.unused)]

    def _longest_first(self) -> list[tuple[str, str]]:
        return sorted(self.parts.items(), key=lambda pair: -len(pair[1]))


def _problems(wanted: Iterable[str], ours: Mapping[str, Tensor], state: State, strange: list[str]) -> list[str]:
    missing = [name for name in wanted if name not in state]
    shapes = [
        f"{name} is {list(state[name].shape)}, expected {list(ours[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != ours[name].shape
    ]
    found = {
        "missing": [_hinted(name, strange) for name in missing],
        "unknown": [_hinted(name, missing) for name in strange],
        "other shapes:": shapes,
    }
    return [f"{kind} {few(names)}" for kind, names in found.items() if names]


def _hinted(name: str, among: Iterable[str]) -> str:
    near = nearest_weight(name, among)
    return f"{name} (nearest: {near})" if near else name


def nearest_weight(name: str, among: Iterable[str]) -> str | None:
    """The name that is most alike as a whole: that both end in ``.weight`` says nothing."""
    spaced = {known.replace(".", " "): known for known in among}
    near = nearest_name(name.replace(".", " "), spaced, cutoff=0.85)
    return None if near is None else spaced[near]


def shape_of(path: Path, what: str, state: State, name: str, dims: int) -> tuple[int, ...]:
    """The shape of one of the file's tensors, from which sizes are read.

    Raises:
        InputError: it has none of that name, or of other dimensions.
    """
    found = state.get(name)
    if found is not None and found.dim() == dims:
        return tuple(found.shape)
    near = nearest_weight(name, state)
    said = f"{name} is {list(found.shape)}" if found is not None else f"it has no {name}"
    remedy = f"did you mean '{near}'? " if near and found is None else ""
    message = f"is no {what}: {said} ({len(state)} tensors: {few(list(state), 3)})"
    raise InputError(message, file=path, remedy=f"{remedy}give the weights of {what} as they were saved")
