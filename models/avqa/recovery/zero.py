"""Zero fill: the mean of the training data, since features are standardised per channel."""

from __future__ import annotations

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec, Recovered
from models.avqa.recovery.filling import filled, missing


class ZeroFill(nn.Module):
    """What a network without a recovery method receives; the AVQA paper leaves it open. No parameters."""

    def __init__(self, spec: FeatureSpec, words: int):
        super().__init__()

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        values = {"audio": audio, "visual": visual}
        values |= {m: filled(values[m], rows, 0.0) for m, rows in missing(present).items()}
        return Recovered(**values)

    def losses(self, audio: Tensor, visual: Tensor, question: Tensor) -> dict[str, Tensor]:
        return {}
