"""Filling rows without reading what they hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.host import index, on_host


def filled(values: Tensor, rows: Tensor, filling: Tensor | float) -> Tensor:
    """`values` [B, ...] with `filling` [R, ...] at `rows` [R].

    What stood at `rows` is not read, and no gradient goes to it: the other rows are copied, not masked.
    """
    keep = index(np.setdiff1d(np.arange(len(values)), on_host(rows)), values.device)
    out = torch.zeros_like(values)
    out[keep] = values[keep]
    out[rows] = filling.to(values.dtype) if isinstance(filling, Tensor) else filling
    return out
