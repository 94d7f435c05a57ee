"""From shards to batches: media with noise drawn on the fly, and cached features; one item type, NaN where
absent.

An item never depends on its neighbours or on the order it is read in: noise, frame and case come from (seed,
    epoch, key).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from models.batch import AVBatch
from models.noise import generator
from shards.positions import hashed, index_type
from shards.reader import Choose, Sample, ShardDataset
from shards.remote import fetch
from shards.schema import DatasetInfo
from shards.store import url_of
from shards.stream_order import StreamOrder
from shards.streaming import StreamDataset
from trainers.draws import again, shuffled
from trainers.streams import Lanes, plain_order, rank_rows, shuffled_order, streamed_batches

Item = tuple[Tensor, ...]  # the fields of a batch, one row
Order = Sequence[int] | np.ndarray | StreamOrder  # positions as they are read
Split = ShardDataset | StreamDataset
CHUNK = 1 << 16  # samples that are drawn together


def dataset_info(folder: Path) -> DatasetInfo:
    """dataset.json of a folder or of a URL.

    Raises:
        InputError: none there, or of another schema.
    """
    url = url_of(folder)
    return DatasetInfo.load(fetch(url, splits=(), shards=False) if url else folder)


def at_hand(folder: Path, *splits: str) -> Path:
    """The folder itself, or where these splits (none: all) of a URL lie after they were fetched.

    Raises:
        InputError: as `shards.remote.fetch`.
    """
    url = url_of(folder)
    return fetch(url, splits=splits or None) if url else folder.absolute()


def open_split(folder: Path, split: str, stream: bool = False, info: DatasetInfo | None = None) -> Split:
    """A split of a folder or of a URL: each sample where it lies, after fetching all of it from a URL, or, with
    `stream`, shard after shard.

    Raises:
        InputError: as `ShardDataset` and `StreamDataset`.
    """
    if stream:
        return StreamDataset(folder, split, info=info)
    return ShardDataset(folder, split, info=info)


class Items(Dataset):
    """What a stage trains on, by position: one by one, or by the batch.

    Attributes:
        epoch: what random draws depend on besides the seed and the sample.
        lanes: how the shards are read through; None: each sample is read where it lies.
        weights: by which samples are drawn with replacement, float64 [S]; None: each comes once an epoch. One that
            comes again is asked for by its position plus `len` for each time before, and has draws of its own.
    """

    epoch: int = 0
    weights: np.ndarray | None = None
    lanes: Lanes | None = None

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

    def drawn_by(self, positions: np.ndarray) -> np.ndarray:
        """What augmentation depends on, uint64 [B]: the ids, and how often their samples came before in the epoch."""
        times, at = np.divmod(positions, len(self))
        return again(self.ids[at], times)

    def __getitem__(self, i: int) -> Item:
        raise NotImplementedError

    def batch(self, positions: Sequence[int]) -> AVBatch:
        """The batch of these positions."""
        return collate([self[i] for i in positions])

    def make_resident(self, device: torch.device | None) -> None:
        """Hold everything on a device from now on, None: no longer; of items that can."""

    @property
    def stream(self) -> StreamDataset:
        """What is read through, of items that have `lanes`."""
        raise NotImplementedError

    @property
    def members(self) -> tuple[str, ...]:
        """Of a sample, what an item is made from."""
        raise NotImplementedError

    def choose(self, i: int) -> Choose:
        """What an item takes of a sample's arrays, as `ShardDataset.rows` takes it."""
        raise NotImplementedError

    def item(self, i: int, sample: Sample) -> Item:
        """The item that such a sample becomes."""
        raise NotImplementedError

    def gathered(self, parts: Sequence[Sequence[int]]) -> Iterator[AVBatch] | None:
        """Batches of these positions that need no loader; None where items are read one by one."""
        return None


def collate(items: Sequence[Item]) -> AVBatch:
    """Items to a batch."""
    return AVBatch(*(torch.stack(column) for column in zip(*items, strict=True)))


def subset_size(size: int, proportion: float) -> int:
    """Samples that a proportion of `size` are: at least one."""
    return max(1, round(proportion * size))


def subset(ids: np.ndarray, seed: int, proportion: float) -> np.ndarray:
    """Positions of the samples that are trained on, a seeded choice of so many; nothing is drawn from the others.

    Args:
        ids: `Items.ids`.
    """
    size = subset_size(len(ids), proportion)
    if size >= len(ids):
        return np.arange(len(ids), dtype=index_type(len(ids)))
    return shuffled(ids, "subset", seed)[:size]


def shuffled_subset(ids: np.ndarray, seed: int, proportion: float, purpose: str) -> np.ndarray:
    """Positions of the samples that are trained on, in an order for one purpose; arguments as `subset`."""
    order = shuffled(ids, purpose, seed)
    return order[np.isin(order, subset(ids, seed, proportion))]


def epoch_order(
    ids: np.ndarray,
    seed: int,
    epoch: int,
    proportion: float = 1.0,
    rank: int = 0,
    world: int = 1,
    taken: int = 0,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Positions that one rank reads in one epoch: a seeded shuffle of a seeded subset, as many for every
    rank; without the first `taken` samples of the epoch, which all ranks together have read.

    Args:
        ids: `Items.ids`; the order is one of these, whatever their positions.
        weights: by which as many samples are drawn from the subset with replacement, float64 [size]; the position of
            one that comes again is `size` higher for each time before.
    """
    order = _subset_shuffled(ids, seed, epoch, proportion)
    if weights is not None:
        order = _drawn(order, weights, seed, epoch)
        order = order + len(ids) * _times_before(order)
    return np.ascontiguousarray(order[rank_rows(len(order), rank, world, taken)])  # not what the other ranks read


def _subset_shuffled(ids: np.ndarray, seed: int, epoch: int, proportion: float) -> np.ndarray:
    """The samples of all ranks, each once."""
    if subset_size(len(ids), proportion) >= len(ids):
        return shuffled(ids, "order", seed, epoch)  # without a copy of all ids
    chosen = subset(ids, seed, proportion)
    return chosen[shuffled(ids[chosen], "order", seed, epoch)]


def _drawn(order: np.ndarray, weights: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many of the samples, drawn with replacement by their weights."""
    reached = np.cumsum(weights[order])
    rng, places = generator("balanced", seed, epoch), np.empty_like(order)
    for at in range(0, len(order), CHUNK):
        drawn = rng.random(len(places[at : at + CHUNK])) * reached[-1]
        places[at : at + CHUNK] = np.searchsorted(reached, drawn, side="right").clip(max=len(order) - 1)
    return order[places]


def _times_before(order: np.ndarray) -> np.ndarray:
    """How often each position of an order comes before, int64 [n]."""
    along = np.argsort(order, kind="stable")
    first = np.flatnonzero(np.diff(order[along], prepend=-1))
    times = np.empty(len(order), np.int64)
    times[along] = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return times


def training_order(
    items: Items, seed: int, epoch: int, proportion: float = 1.0, rank: int = 0, world: int = 1, taken: int = 0
) -> Order:
    """What one rank reads in one epoch: `epoch_order`, or of the same samples the order of `trainers.streams`."""
    if items.lanes is None:
        return epoch_order(items.ids, seed, epoch, proportion, rank, world, taken, items.weights)
    chosen = subset(items.ids, seed, proportion)
    order = shuffled_order(items.stream, items.ids, items.lanes, chosen, seed, epoch)
    return order[rank_rows(len(order), rank, world, taken)]


def validation_order(items: Items, rank: int = 0, world: int = 1) -> Order:
    """What one rank reads to validate, each sample once."""
    if items.lanes is None:
        return shuffled(items.ids, "val")[rank::world]
    return plain_order(items.stream, items.lanes)[slice(rank, None, world)]


def batches(items: Items, order: Order, batch_size: int, loaders: int, drop_last: bool) -> Iterator[AVBatch]:
    """Batches of `items` in the given order."""
    drop_last = drop_last and len(order) >= batch_size
    if not len(order):
        return iter(())
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    if isinstance(order, StreamOrder):
        return streamed_batches(items, order, batch_size, loaders, collate)
    parts = _Parts(np.asarray(order), batch_size)
    if (ready := items.gathered(parts)) is not None:
        return ready
    return iter(DataLoader(_Batches(items, parts), batch_size=None, num_workers=loaders))


class _Parts(Sequence[list[int]]):
    """An order [n] cut into batches; the positions of one are made when it is asked for."""

    def __init__(self, order: np.ndarray, size: int):
        self._order, self._size = order, size

    def __len__(self) -> int:
        return -(-len(self._order) // self._size)

    def __getitem__(self, i: Any) -> Any:
        at = range(len(self))[i] * self._size
        return self._order[at : at + self._size].tolist()


class _Batches(Dataset):
    """Batches of `items` by number: what a loader process makes is the whole batch."""

    def __init__(self, items: Items, parts: Sequence[Sequence[int]]):
        self.items, self.parts = items, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, i: int) -> AVBatch:
        return self.items.batch(self.parts[i])
