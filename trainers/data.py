"""From shards to batches: media with noise drawn on the fly, and cached features; one item type, NaN where
absent.

An item never depends on its neighbours or on the order it is read in: noise, frame and case come from (seed,
    epoch, key).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.batch import AVBatch
from models.noise import generator
from trainers.draws import hashed, shuffled

Item = tuple[Tensor, ...]  # the fields of a batch, one row


class Items(Dataset):
    """What a stage trains on, by position: one by one, or by the batch.

    Attributes:
        epoch: what random draws depend on besides the seed and the sample.
        weights: by which samples are drawn with replacement, float64 [S]; None: each comes once an epoch.
    """

    epoch: int = 0
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def names(self) -> Sequence[str]:
        """The samples' ids, each of them once: what order and augmentation depend on."""
        raise NotImplementedError

    @cached_property
    def ids(self) -> np.ndarray:
        """Hashes of the names, uint64 [len]."""
        return hashed(self.names)

    def __getitem__(self, i: int) -> Item:
        raise NotImplementedError

    def batch(self, positions: Sequence[int]) -> AVBatch:
        """The batch of these positions."""
        return collate([self[i] for i in positions])

    def make_resident(self, device: torch.device | None) -> None:
        """Hold everything on a device from now on, None: no longer; of items that can."""

    def gathered(self, order: Sequence[int], batch_size: int) -> Iterator[AVBatch] | None:
        """Batches that need no loader; None where items are read one by one."""
        return None


def collate(items: Sequence[Item]) -> AVBatch:
    """Items to a batch."""
    return AVBatch(*(torch.stack(column) for column in zip(*items, strict=True)))


def subset_size(size: int, proportion: float) -> int:
    """Samples that a proportion of `size` are: at least one."""
    return max(1, round(proportion * size))


def epoch_order(
    ids: np.ndarray,
    seed: int,
    epoch: int,
    proportion: float = 1.0,
    rank: int = 0,
    world: int = 1,
    taken: int = 0,
    weights: np.ndarray | None = None,
) -> list[int]:
    """Positions that one rank reads in one epoch: a seeded shuffle of a seeded subset, as many for every
    rank; without the first `taken` samples of the epoch, which all ranks together have read.

    Args:
        ids: `Items.ids`; the order is one of these, whatever their positions.
        weights: by which as many samples are drawn from the subset with replacement, float64 [size].
    """
    chosen = shuffled(ids, "subset", seed)[: subset_size(len(ids), proportion)]
    order = chosen[shuffled(ids[chosen], "order", seed, epoch)]
    if weights is not None:
        reached = np.cumsum(weights[order])
        drawn = generator("balanced", seed, epoch).random(len(order)) * reached[-1]
        order = order[np.searchsorted(reached, drawn, side="right").clip(max=len(order) - 1)]
    rest = order[taken:]
    evening = np.resize(order, -len(rest) % world)
    return np.concatenate([rest, evening])[rank::world].tolist()


def batches(items: Items, order: Sequence[int], batch_size: int, loaders: int, drop_last: bool) -> Iterator[AVBatch]:
    """Batches of `items` in the given order."""
    drop_last = drop_last and len(order) >= batch_size
    if not order:
        return iter(())
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    if (ready := items.gathered(order, batch_size)) is not None:
        return ready
    parts = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    return iter(DataLoader(_Batches(items, parts), batch_size=None, num_workers=loaders))


class _Batches(Dataset):
    """Batches of `items` by number: what a loader process makes is the whole batch."""

    def __init__(self, items: Items, parts: Sequence[Sequence[int]]):
        self.items, self.parts = items, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, i: int) -> AVBatch:
        return self.items.batch(self.parts[i])
