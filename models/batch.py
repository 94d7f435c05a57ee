"""The one type that carries a batch, and the missing-modality contract it keeps.

Rows of an absent modality hold NaN from the moment the loader applies the mask until a network or a recovery
method leaves them out or replaces them. A model that peeks turns its output into NaN, so a leak cannot hide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from models.host import index, moved, on_host, placed, rows_of, take
from models.modality import Group, groups
from models.settings import MODALITIES, Modality


@dataclass(frozen=True)
class AVBatch:
    """B samples of both modalities.

    Attributes:
        audio: fbank [B, F, 128] or cached tokens [B, N, D]; NaN where absent.
        visual: picture [B, 3, H, W] or cached tokens [B, N, D]; NaN where absent.
        present: bool [B, 2], in the order of `MODALITIES`.
        label: int64 [B]; or float32 [B, C], the share of every class (of clips with several labels, and of mixtures).
        index: int64 [B], the samples' positions in their split.
    """

    ON_HOST: ClassVar[tuple[str, ...]] = ("present",)  # whose values decide shapes: the host keeps them

    audio: Tensor
    visual: Tensor
    present: Tensor
    label: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device | str) -> Self:
        """The batch on a device; what decides shapes is remembered on the host."""
        values = {
            k: moved(v, device) if k in self.ON_HOST else v.to(device, non_blocking=True)
            for k, v in vars(self).items()
            if v is not None
        }
        return replace(self, **values)

    def select(self, rows: Tensor | np.ndarray) -> Self:
        """The samples at `rows` (positions int64 [R], or bool [B])."""
        positions = rows_of(rows)
        if np.array_equal(positions, np.arange(len(self))):
            return self
        on_device = index(positions, self.present.device)
        values = {
            k: take(v, positions) if k in self.ON_HOST else v[on_device] for k, v in vars(self).items() if v is not None
        }
        return replace(self, **values)

    def groups(self) -> list[Group]:
        """Which modalities there are, with the rows [R] that have just these; at most three groups.

        Raises:
            ValueError: a sample has neither modality.
        """
        return groups(self.present)


Batch = TypeVar("Batch", bound=AVBatch)


def take_away(batch: Batch, modality: Modality, rows: Tensor | None = None) -> Batch:
    """The batch without `modality` (in `rows` [B] bool, or everywhere): NaN in its place, `present` False."""
    column, values = MODALITIES.index(modality), getattr(batch, modality)
    known = on_host(batch.present).copy()
    if rows is None:
        known[:, column], less = False, torch.full_like(values, float("nan"))
    else:
        known[on_host(rows), column] = False
        away = moved(rows, values.device).view(-1, *[1] * (values.dim() - 1))
        less = values.masked_fill(away, float("nan"))
    return replace(batch, **{modality: less}, present=placed(known, values.device))
