"""What goes through a question-answering network: sizes of the features, a batch, the two interfaces.

Shapes: B questions, T time steps, P places of a square grid (row by row), L words, A answers; Da, Dv widths
of audio and visual features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from models.batch import AVBatch


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
    absent; `label` is the answer.

    Attributes:
        question: int64 [B, L], word ids; 0 pads.
        negative: [B, T, rows, Dv], frames of other clips (AVST's match loss); training only.
        allowed: bool [B, A], answers to choose from (multiple choice); None: all.
    """

    question: Tensor
    negative: Tensor | None = None
    allowed: Tensor | None = None


class Network(Protocol):
    """A question-answering network: built as `Kind(spec, words, answers, **sizes)`.

    It never sees NaN: a recovery method stands in front of it. One sample's output depends on that sample
    alone. `aux` has per-sample losses [B] by name (such as "match", when `negative` is given).
    """

    def __call__(
        self, audio: Tensor, visual: Tensor, question: Tensor, negative: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """logits [B, A], aux."""
        ...


@dataclass(frozen=True)
class Recovered:
    """Features without NaN, for the network: `audio` [B, T, Da], `visual` [B, T, rows, Dv]."""

    audio: Tensor
    visual: Tensor


class Recovery(Protocol):
    """What stands in front of a network: built as `Kind(spec, words, **sizes)`.

    Called with NaN in the rows that `present` says are absent, it reads nothing of them. `losses` takes
    complete samples and gives the method's own losses, per sample [B], by name ("rmmr", "ave").
    """

    def __call__(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered: ...

    def losses(self, audio: Tensor, visual: Tensor, question: Tensor) -> dict[str, Tensor]: ...
