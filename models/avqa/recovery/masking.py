"""Masking: nothing is filled in, the network attends to what is present only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Recovered


class Masking(nn.Module):
    """Bypasses what is absent. No parameters, no losses.

    How a network attends around it is written in the head of the network's file. Trained on the three cases of
    Eq. 8, as the other methods: the baseline of a network that knows what it lacks (ours).
    """

    loss_names: ClassVar[Mapping[str, float]] = {}

    def __init__(self, spec: FeatureSpec, words: int):
        super().__init__()

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """What came, as it came: what is absent stays absent, and the network attends around it."""
        return Recovered(audio, visual, present)
