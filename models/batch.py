"""The one type that carries a batch, and the missing-modality contract it keeps.

Rows of an absent modality hold NaN from the moment the loader applies the mask until a network or a recovery
method leaves them out or replaces them. A model that peeks turns its output into NaN, so a leak cannot hide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor

from models.cavmae import MODALITIES, Modality


@dataclass(frozen=True)
class AVBatch:
    """B samples of both modalities.

    Attributes:
        audio: fbank [B, F, 128] or cached tokens [B, N, D]; NaN where absent.
        visual: picture [B, 3, H, W] or cached tokens [B, N, D]; NaN where absent.
        present: bool [B, 2], in the order of `MODALITIES`.
        label: int64 [B].
        index: int64 [B], the samples' positions in their split.
    """

    audio: Tensor
    visual: Tensor
    present: Tensor
    label: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device | str) -> Self:
        moved = {k: v.to(device, non_blocking=True) for k, v in vars(self).items() if v is not None}
        return replace(self, **moved)

    def select(self, rows: Tensor) -> Self:
        """The samples at `rows` (positions int64 [R], or bool [B])."""
        return replace(self, **{k: v[rows] for k, v in vars(self).items() if v is not None})

    def groups(self) -> list[tuple[tuple[Modality, ...], Tensor]]:
        """Which modalities there are, with the rows [R] that have just these; at most three groups."""
        out = []
        for pattern in self.present.unique(dim=0):
            rows = (self.present == pattern).all(dim=1).nonzero().squeeze(1)
            out.append((tuple(m for m, there in zip(MODALITIES, pattern.tolist(), strict=True) if there), rows))
        return out


Batch = TypeVar("Batch", bound=AVBatch)


def take_away(batch: Batch, modality: Modality, rows: Tensor | None = None) -> Batch:
    """The batch without `modality` (in `rows` [B] bool, or everywhere): NaN in its place, `present` False."""
    rows = torch.ones(len(batch), dtype=torch.bool) if rows is None else rows
    present = batch.present.clone()
    present[rows, MODALITIES.index(modality)] = False
    values = getattr(batch, modality).clone()
    values[rows] = float("nan")
    return replace(batch, **{modality: values}, present=present)
