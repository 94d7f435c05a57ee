"""Masking: nothing is filled in, the joint block attends to what is present only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from models.avqa.contract import Recovered
from models.settings import BackboneConfig


class Masking(nn.Module):
    """Leaves out what is absent: the joint block sees the tokens that there are, a lone modality with its own norms.

    That is how a CAV-MAE treats a missing modality anyway, so `fuse method=masking` computes what `finetune noisy=true`
    does. No parameters, no losses.
    """

    loss_names: ClassVar[Mapping[str, float]] = {}

    def __init__(self, config: BackboneConfig, classes: int):
        super().__init__()

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered:
        """Tokens [B, N, D] as they came: what is absent stays absent."""
        return Recovered(audio, visual, present)
