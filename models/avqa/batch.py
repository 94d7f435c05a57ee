"""What goes through a question-answering network: sizes of the features, and a batch.

Shapes: B questions, T time steps, P places of a square grid (row by row), L words, A answers; Da, Dv widths
of audio and visual features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.batch import AVBatch

NO_ANSWER = -1  # label of an answer that training never gave: always wrong, and outside the loss


@dataclass(frozen=True)
class FeatureSpec:
    """Sizes of the features of one clip.

    Attributes:
        audio: Da, width of an audio step.
        visual: Dv, width of a place.
        steps: T, time steps of both.
        places: P, places of a step; a square number.
        frame_token: the visual features hold one more row before the places, [T, 1 + P, Dv]: the whole
            frame's (CLIP's class token).
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

    @property
    def side(self) -> int:
        """Side of the grid of places."""
        side = round(self.places**0.5)
        if side * side != self.places:
            raise ValueError(f"{self.places} places are no square grid")
        return side


@dataclass(frozen=True)
class AVQABatch(AVBatch):
    """B questions, each with its clip's features: `audio` [B, T, Da], `visual` [B, T, rows, Dv], NaN where
    absent; `label` is the answer, or `NO_ANSWER`.

    Attributes:
        question: int64 [B, L], word ids; 0 pads.
        negative: [B, T, rows, Dv], frames of other clips (AVST's match loss); training only.
        allowed: bool [B, A], answers to choose from (multiple choice), at least one; None: all.
    """

    ON_HOST: ClassVar[tuple[str, ...]] = ("present", "question")

    question: Tensor
    negative: Tensor | None = None
    allowed: Tensor | None = None
