"""What recovery methods share: which rows lack what, and filling them without reading what they hold."""

from __future__ import annotations

import torch
from torch import Tensor

from models.cavmae import MODALITIES, Modality

OTHER: dict[Modality, Modality] = {"audio": "visual", "visual": "audio"}


def missing(present: Tensor) -> dict[Modality, Tensor]:
    """Positions [R] of the samples that lack each modality, for those that some sample lacks.

    Args:
        present: bool [B, 2], in the order of `MODALITIES`.

    Raises:
        ValueError: a sample has neither modality.
    """
    if not present.any(dim=1).all():
        raise ValueError("a sample has neither audio nor visual: nothing to recover from")
    rows = {m: (~present[:, i]).nonzero().squeeze(1) for i, m in enumerate(MODALITIES)}
    return {m: r for m, r in rows.items() if len(r)}


def filled(values: Tensor, rows: Tensor, filling: Tensor | float) -> Tensor:
    """`values` [B, ...] with `filling` [R, ...] at `rows` [R].

    What stood at `rows` is not read, and no gradient goes to it: the other rows are copied, not masked.
    """
    keep = torch.ones(len(values), dtype=torch.bool, device=values.device)
    keep[rows] = False
    out = torch.zeros_like(values)
    out[keep] = values[keep]
    out[rows] = filling.to(values.dtype) if isinstance(filling, Tensor) else filling
    return out
