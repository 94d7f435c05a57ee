"""Memory of batches that is used again: fresh memory costs as much time as what is copied into it."""

from __future__ import annotations

import weakref

import numpy as np
import torch
from torch import Tensor

HALF = np.dtype(np.float16)
KEPT = 3  # of a shape: the batch in use, the next one, and one that is still on its way to a device


def huge_empty(*shape: int, dtype: np.dtype = HALF) -> Tensor:
    """A tensor, not filled, in huge pages where the system has them: numpy asks for them, torch does not, and
    copying is a quarter faster."""
    return torch.from_numpy(np.empty(shape, dtype))


class Buffers:
    """Tensors of one dtype, not filled. The memory of one is given out again only when no tensor, view or storage
    of it is left; whoever holds on to more than `KEPT` of a shape gets fresh ones. For one thread."""

    def __init__(self, dtype: np.dtype = HALF) -> None:
        self.dtype = dtype
        self._arrays: dict[tuple[int, ...], list[tuple[np.ndarray, weakref.ref]]] = {}

    def __reduce__(self) -> tuple[type[Buffers], tuple[np.dtype]]:
        return Buffers, (self.dtype,)  # another process has its own

    def empty(self, *shape: int) -> Tensor:
        """A tensor of that shape."""
        arrays = self._arrays.setdefault(shape, [])
        free = next((i for i, (_, holder) in enumerate(arrays) if holder() is None), len(arrays))
        array = arrays[free][0] if free < len(arrays) else np.empty(shape, self.dtype)
        holder = array.view()  # lives as long as the tensor's storage does
        if free < KEPT:
            arrays[free : free + 1] = [(array, weakref.ref(holder))]
        return torch.from_numpy(holder)
