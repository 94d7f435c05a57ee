"""What the host knows of small tensors on a device: row sets and lengths without waiting for the device.

To read a value back, the host waits until the device has done all that was asked of it. So what decides the
shapes of a step (which modality is present, where a question ends) is read before it goes to the device, and
the values stay with the tensor. A tensor whose values are remembered must not be changed in place.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_NAME = "_values_on_host"


def on_host(x: Tensor) -> np.ndarray:
    """The values of a tensor: remembered, or read back where they are not."""
    if x.device.type == "cpu":
        return x.detach().numpy()
    known = getattr(x, _NAME, None)
    return known if known is not None else x.detach().cpu().numpy()


def remember(x: Tensor, values: np.ndarray) -> Tensor:
    """The tensor itself, whose values are these."""
    if x.device.type != "cpu":
        setattr(x, _NAME, values)
    return x


def moved(x: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device, its values remembered."""
    values = on_host(x)
    return remember(x.to(device, non_blocking=True), values)


def index(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows int64 [R] as an index on a device, without waiting for it."""
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    if len(rows) and step > 0 and (np.diff(rows) == step).all():
        out = torch.arange(int(rows[0]), int(rows[-1]) + 1, step, device=device)
        return remember(out, rows)
    return placed(rows, device)


def placed(values: np.ndarray, device: torch.device) -> Tensor:
    """Values of the host as a tensor on a device, without waiting for it."""
    out = torch.from_numpy(values)
    out = out.pin_memory() if device.type == "cuda" else out
    return remember(out.to(device, non_blocking=True), values)


def rows_of(rows: Tensor | np.ndarray) -> np.ndarray:
    """Rows as positions, int64 [R], given as these or as bool [B]."""
    known = on_host(rows) if isinstance(rows, Tensor) else rows
    return np.flatnonzero(known) if known.dtype == bool else known


def take(x: Tensor, rows: Tensor | np.ndarray) -> Tensor:
    """The rows of a tensor, [B, ...] -> [R, ...], its values remembered where they were; the tensor itself where
    these are all rows in their order."""
    positions = rows_of(rows)
    if np.array_equal(positions, np.arange(len(x))):
        return x
    chosen = x[index(positions, x.device)]
    return remember(chosen, on_host(x)[positions]) if hasattr(x, _NAME) else chosen
