"""RMM + AVR, the AVQA paper's method: recall what is missing, then enhance it together with what is there."""

from __future__ import annotations

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec, Recovered
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.filling import missing
from models.avqa.recovery.rmm import RMM


class RMMAVR(nn.Module):
    """Slots recall the missing modality, the pair goes through the diffusion, both enhanced features replace
    the inputs (Eq. 8). Complete samples pass unchanged.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary.
        rmm, avr: sizes of either, by name.
    """

    def __init__(self, spec: FeatureSpec, words: int, rmm: dict | None = None, avr: dict | None = None):
        super().__init__()
        self.rmm = RMM(spec, words, **(rmm or {}))
        self.avr = AVR(spec, words, **(avr or {}))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        recalled = self.rmm(audio, visual, present, question)
        return self.avr.enhance_rows(recalled, list(missing(present).values()))

    def losses(self, audio: Tensor, visual: Tensor, question: Tensor) -> dict[str, Tensor]:
        """`rmmr` and `ave` of complete samples, [B] each; the diffusion learns from real pairs."""
        return self.rmm.losses(audio, visual, question) | self.avr.losses(audio, visual, question)
