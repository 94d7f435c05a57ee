"""The two modalities, and which of them the samples of a batch have.

Shapes: B samples; the columns of `present`, bool [B, 2], are in the order of `MODALITIES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.host import index, on_host, remember
from models.settings import MODALITIES, Modality

OTHER: dict[Modality, Modality] = {"audio": "visual", "visual": "audio"}
Group = tuple[tuple[Modality, ...], Tensor]  # the modalities there are, and the rows [R] that have just these


def groups(present: Tensor) -> list[Group]:
    """Samples by the modalities that they have; at most three groups.

    Raises:
        ValueError: a sample has neither modality.
    """
    known = _known(present)
    out: list[Group] = []
    for pattern in np.unique(known, axis=0):
        rows = np.flatnonzero((known == pattern).all(axis=1))
        there = tuple(m for m, has in zip(MODALITIES, pattern.tolist(), strict=True) if has)
        out.append((there, index(rows, present.device)))
    return out


def complete(present: Tensor) -> np.ndarray:
    """Rows that have both modalities, int64 [R] on the host."""
    return np.flatnonzero(on_host(present).all(axis=1))


def lacking(present: Tensor) -> dict[Modality, Tensor]:
    """Rows [R] that lack each modality, for those modalities that some sample lacks.

    Raises:
        ValueError: a sample has neither modality.
    """
    known = _known(present)
    rows = {m: np.flatnonzero(~known[:, i]) for i, m in enumerate(MODALITIES)}
    return {m: index(r, present.device) for m, r in rows.items() if len(r)}


def having(present: Tensor, column: int) -> Tensor:
    """Rows [R] that have the modality of a column."""
    return index(np.flatnonzero(on_host(present)[:, column]), present.device)


def all_present(samples: int, device: torch.device) -> Tensor:
    """`present` [B, 2] of complete samples."""
    return remember(torch.ones(samples, 2, dtype=torch.bool, device=device), np.ones((samples, 2), dtype=bool))


def by_group(present: Tensor, compute: Callable[[tuple[Modality, ...], Tensor | None], Tensor]) -> Tensor:
    """What `compute` gives each group of samples, [R, ...], put together: [B, ...].

    Args:
        compute: takes the modalities that there are, and the group's rows [R]; None: all of them. What the
            group lacks it can't read.

    Raises:
        ValueError: a sample has neither modality.
    """
    found = groups(present)
    if len(found) == 1:
        return compute(found[0][0], None)
    parts = [compute(there, rows) for there, rows in found]
    out = parts[0].new_empty(len(present), *parts[0].shape[1:])
    for (_, rows), part in zip(found, parts, strict=True):
        out = out.index_copy(0, rows, part.to(out.dtype))
    return out


def _known(present: Tensor) -> np.ndarray:
    known = on_host(present)
    if not known.any(axis=1).all():
        raise ValueError("a sample has neither audio nor visual: nothing to work with")
    return known
