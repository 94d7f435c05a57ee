"""Zero fill: the mean of the training data, since features are standardised per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Recovered
from models.avqa.recovery.filling import filled
from models.modality import all_present, lacking
from models.settings import MODALITIES


class ZeroFill(nn.Module):
    """What a network without a recovery method receives; the AVQA paper leaves it open. No parameters."""

    loss_names: ClassVar[Mapping[str, float]] = {}

    def __init__(self, spec: FeatureSpec, words: int):
        super().__init__()

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities, zeros where one is absent; all of it counts as present."""
        return Recovered(*zero_filled(audio, visual, present), all_present(len(present), present.device))


def zero_filled(audio: Tensor, visual: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Both modalities, zeros where `present` [B, 2] lacks them.

    Raises:
        ValueError: a sample has neither.
    """
    values = dict(zip(MODALITIES, (audio, visual), strict=True))
    values |= {m: filled(values[m], rows, 0.0) for m, rows in lacking(present).items()}
    return values["audio"], values["visual"]
