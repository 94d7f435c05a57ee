"""Modality dropout: zeros in place of a missing modality's tokens, by a network that has met the missing cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.contract import Recovered
from models.avqa.recovery.filling import filled
from models.modality import all_present, lacking
from models.settings import BackboneConfig


class ModalityDropout(nn.Module):
    """Zeros stand for the tokens of what is absent, and the joint block sees as many tokens as ever.

    ModDrop (Neverova et al., PAMI 2016) zeroes a modality's features at random in training. Here the recipe shows each
    complete sample without either modality, too, so the network has met both cases; the zeros stand behind the
    encoders, and nothing is computed of what is missing. Beside `masking` it tells what leaving tokens out is worth.
    No parameters, no losses.
    """

    loss_names: ClassVar[Mapping[str, float]] = {}

    def __init__(self, config: BackboneConfig, classes: int):
        super().__init__()

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered:
        """Tokens [B, N, D], those of what is absent zero."""
        values = {"audio": audio, "visual": visual}
        for modality, rows in lacking(present).items():
            values[modality] = filled(values[modality], rows, 0.0)
        return Recovered(values["audio"], values["visual"], all_present(len(present), present.device))
