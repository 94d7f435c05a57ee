"""Sequence features: one row per time step of a clip, and what dataset.json says of their sizes."""

from __future__ import annotations

import pydantic

from shards.errors import InputError
from shards.schema import DatasetInfo, Frozen

SEQUENCE = "sequence"


class SequenceSpec(Frozen):
    """Sizes of one clip's features: members ``audio`` float16 [steps, audio] and ``visual`` float16
    [steps, rows, visual].

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


def sequence_folder(fingerprint: str, extractor: str, side: int | None = None) -> str:
    """Name, within a media dataset's ``features``, of the folder with the sequence features of one extractor
    (sha256 of its networks), averaged to a grid of `side` if that is given."""
    return f"{fingerprint[:12]}-{extractor.replace('+', '-')}" + (f"-{side}x{side}" if side else "")
