"""Features as stored to unit scale, where they are used: batches travel in float16, networks see float32.

Shapes: B questions, T time steps, R rows of a visual step; Da, Dv widths.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.avqa.batch import AVQABatch
from models.settings import MODALITIES, Modality


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation per channel over the training clips.

    Attributes:
        audio, visual: (mean, std), each with as many values as the modality's width.
    """

    audio: tuple[tuple[float, ...], tuple[float, ...]]
    visual: tuple[tuple[float, ...], tuple[float, ...]]

    def tensors(self, modality: Modality) -> tuple[Tensor, Tensor]:
        """Mean and 1 / std, [D]; a channel that never varies is only centred."""
        mean, std = (torch.tensor(x) for x in getattr(self, modality))
        return mean, torch.where(std > 0, 1 / std, 1.0)


class Standardise(nn.Module):
    """A batch of features as stored, standardised in float32 on its own device; NaN stays NaN.

    Checkpoints hold the scale in their JSON, so its buffers are not among the weights.
    """

    def __init__(self, scale: Scale):
        super().__init__()
        for m in MODALITIES:
            for name, values in zip(("mean", "inverse"), scale.tensors(m), strict=True):
                self.register_buffer(f"{m}_{name}", values, persistent=False)

    def forward(self, batch: AVQABatch) -> AVQABatch:
        """The batch with `audio` [B, T, Da], `visual` and `negative` [B, T, R, Dv] of unit scale."""
        negative = None if batch.negative is None else self._standard("visual", batch.negative)
        values = {m: self._standard(m, getattr(batch, m)) for m in MODALITIES}
        return replace(batch, **values, negative=negative)

    def _standard(self, modality: Modality, x: Tensor) -> Tensor:
        mean, inverse = getattr(self, f"{modality}_mean"), getattr(self, f"{modality}_inverse")
        return x.to(torch.float32, copy=True).sub_(mean).mul_(inverse)
