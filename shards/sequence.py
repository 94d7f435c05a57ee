"""Sequence features: one row per time step of a clip, and what dataset.json says of their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pydantic

from shards.errors import InputError
from shards.schema import DatasetInfo, Frozen

SEQUENCE = "sequence"
DTYPE = "float16"  # of features, where dataset.json says nothing else
StepRule = Literal["middles", "starts"]


class SequenceSpec(Frozen):
    """Sizes of one clip's features: members ``audio`` [steps, audio] and ``visual`` [steps, rows, visual], float16 (or
    as `sequence_dtype` says).

    Attributes:
        audio: width of an audio step.
        visual: width of a place.
        steps: time steps of both.
        places: of a visual step, a square grid row by row.
        frame_token: one more row before the places: the whole frame's.
    """

    audio: int
    visual: int
    steps: int
    places: int
    frame_token: bool = False

    @property
    def rows(self) -> int:
        """Rows of a visual step, the frame token with them."""
        return self.places + self.frame_token


def sequence_spec(info: DatasetInfo) -> SequenceSpec:
    """Sizes of a dataset's sequence features.

    Raises:
        InputError: the dataset holds something else.
    """
    kind = info.preprocessing.get("features")
    try:
        if info.kind == "features" and kind == SEQUENCE:
            return SequenceSpec.model_validate(info.preprocessing["spec"])
    except (KeyError, pydantic.ValidationError):
        pass
    found = "tokens" if info.kind == "features" and kind is None else kind or info.kind
    remedy = "make sequence features: avmend features --extractor cavmae ..."
    raise InputError(f"holds {found}, not sequence features", field="features", remedy=remedy)


def sequence_dtype(info: DatasetInfo) -> str:
    """Of the features: float16, or float32 of imported ones that ask for it."""
    return str(info.preprocessing.get("dtype", DTYPE))


def chosen_steps(stored: int, steps: int, rule: StepRule) -> list[int]:
    """Which of the stored steps are taken where fewer are asked for: of as many equal parts the first step
    ("starts": 0, 6, ..., 54 of 60, as AVST's loader takes them) or the middle one ("middles": 3, 9, ..., 57).

    Raises:
        InputError: more are asked for than there are.
    """
    if steps > stored:
        remedy = f"choose 1 to {stored}, or leave it out"
        raise InputError(f"{steps} of {stored} steps", field="steps", remedy=remedy)
    half = 1 if rule == "middles" else 0
    return [(2 * i + half) * stored // (2 * steps) for i in range(steps)]


@dataclass(frozen=True)
class StepChoice:
    """Which time steps of the stored ones a run takes.

    Attributes:
        steps: how many; None: all.
        rule: which of as many equal parts: see `chosen_steps`.
    """

    steps: int | None = None
    rule: StepRule = "middles"

    def of(self, stored: int) -> list[int] | None:
        """Their numbers; None: all, as they are.

        Raises:
            InputError: more than there are.
        """
        return None if self.steps in (None, stored) else chosen_steps(stored, self.steps or stored, self.rule)


def sequence_folder(fingerprint: str, extractor: str, side: int | None = None) -> str:
    """Name, within a media dataset's ``features``, of the folder with the sequence features of one extractor
    (sha256 of its networks), averaged to a grid of `side` if that is given."""
    return f"{fingerprint[:12]}-{extractor.replace('+', '-')}" + (f"-{side}x{side}" if side else "")
