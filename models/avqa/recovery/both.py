"""RMM + AVR, the AVQA paper's method: recall what is missing, then enhance it together with what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.avr import AVR, Pair
from models.avqa.recovery.rmm import RMM
from models.modality import lacking


class RMMAVR(nn.Module):
    """Slots recall the missing modality, the pair goes through the diffusion, both enhanced features replace
    the inputs (Eq. 8). Complete samples pass unchanged.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary.
        rmm, avr: sizes of either, by name.

    Its losses are `rmmr` and `ave`, each with the paper's weight 1.
    """

    loss_names: ClassVar[Mapping[str, float]] = {**RMM.loss_names, **AVR.loss_names}

    def __init__(self, spec: FeatureSpec, words: int, rmm: dict | None = None, avr: dict | None = None):
        super().__init__()
        self.rmm = RMM(spec, words, **(rmm or {}))
        self.avr = AVR(spec, words, **(avr or {}))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Its losses are those of both, of complete samples; the diffusion learns from real pairs."""
        recalled = self.rmm(audio, visual, present, question)
        enhanced = self.avr.enhance_rows(Pair(recalled.audio, recalled.visual), list(lacking(present).values()))

        def losses() -> Losses:
            return recalled.losses() | self.avr.complete_losses(audio, visual, present)

        return Recovered(enhanced.audio, enhanced.visual, recalled.present, losses)
