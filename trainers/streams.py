"""Epochs over shards that are read through (`shards.streaming`): the order of the samples, and batches in it.

The shards are shuffled, laid end to end and cut into lanes of as many samples; each lane is shuffled within a buffer;
a sample of each lane in turn makes the epoch's sequence. So a sequence depends on (seed, epoch), the shards, lanes and
buffer alone: ranks take every so-many-th sample of it and loader processes the lanes of their rank, whatever their
numbers. Ranks whose number divides that of the lanes read no shard twice, but for those at the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from models.batch import AVBatch
from shards.errors import InputError
from shards.positions import hashed, index_type
from shards.reader import Choose, Sample
from shards.stream_order import StreamOrder
from shards.streaming import StreamDataset
from trainers.draws import shuffled, uniform


@dataclass(frozen=True)
class Lanes:
    """How an epoch reads through shards.

    Attributes:
        count: lanes; fewer of fewer samples.
        buffer: samples, over all lanes, within which the order is shuffled.
    """

    count: int
    buffer: int


class StreamedItems(Protocol):
    """Items whose samples come from a stream."""

    @property
    def members(self) -> tuple[str, ...]:
        """Of a sample, what an item is made from."""
        ...

    @property
    def stream(self) -> StreamDataset: ...

    def choose(self, i: int) -> Choose:
        """What is wanted of a sample's arrays, as `ShardDataset.rows` takes it."""
        ...

    def item(self, i: int, sample: Sample) -> tuple[torch.Tensor, ...]:
        """The item that such a sample becomes."""
        ...


def shuffled_order(
    data: StreamDataset, ids: np.ndarray, lanes: Lanes, chosen: np.ndarray, seed: int, epoch: int
) -> StreamOrder:
    """The sequence of one epoch over all ranks: each of the chosen samples once.

    Args:
        ids: hashes of all samples' names, uint64 [S].
        chosen: positions of those that are used.
    """
    along = _through(data, shuffled(hashed(data.shard_names), "shards", seed, epoch), chosen)

    def delays(rows: np.ndarray) -> np.ndarray:
        return uniform(ids[along[rows]], 1, "stream", seed, epoch)[:, 0] * (lanes.buffer / lanes.count)

    return _in_lanes(along, delays, lanes.count)


def plain_order(data: StreamDataset, lanes: Lanes) -> StreamOrder:
    """All samples, in the order of the shards within each lane."""
    along = _through(data, np.arange(len(data.shard_names)), np.arange(len(data), dtype=index_type(len(data))))
    return _in_lanes(along, np.zeros_like, lanes.count)


def _through(data: StreamDataset, shards: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen positions as they come when the shards are read through in this order."""
    ends, wanted = data.shard_ends, np.zeros(len(data), bool)
    wanted[chosen] = True
    along, done = np.empty(len(chosen), chosen.dtype), 0
    for end, begin in zip(ends[shards].tolist(), np.concatenate([[0], ends[:-1]])[shards].tolist(), strict=True):
        own = np.flatnonzero(wanted[begin:end]) + begin
        along[done : done + len(own)] = own
        done += len(own)
    return along


def _in_lanes(along: np.ndarray, delays: Callable[[np.ndarray], np.ndarray], count: int) -> StreamOrder:
    """Cut into lanes, which differ by a sample at most; in each, none comes later than its delay, and a sample of each
    lane in turn.

    Args:
        delays: of some rows of `along`, in samples of a lane.
    """
    n, end = len(along), 0
    positions, arrival, lane = np.empty_like(along), np.empty_like(along), np.empty(n, np.int32)
    for number in range(min(count, n)):
        begin, end = end, end + len(lane[number::count])
        rows = np.arange(begin, end)
        rows = rows[np.argsort(rows + delays(rows), kind="stable")]
        positions[number::count], arrival[number::count], lane[number::count] = along[rows], rows, number
    return StreamOrder(positions, arrival, lane)


def rank_rows(size: int, rank: int, world: int, taken: int = 0) -> slice | np.ndarray:
    """What one rank takes of a sequence of which all ranks together have taken some: every so-many-th of the rest,
    and, so that every rank has as many, one from the sequence's beginning."""
    if rank < (spare := (size - taken) % world) or not spare:
        return slice(taken + rank, None, world)
    return np.append(np.arange(taken + rank, size, world), (rank - spare) % size)


def streamed_batches(
    items: StreamedItems, order: StreamOrder, size: int, loaders: int, collate: Callable[[Sequence], AVBatch]
) -> Iterator[AVBatch]:
    """Batches of `size` samples in the given order; the last one may be smaller.

    Args:
        loaders: processes; more than there are lanes are not started.
    """
    loaders = min(loaders, len(np.unique(order.lane)))
    parts = _Parts(items, order, size, collate)
    if not loaders:
        for part in parts:
            yield _merged([part])
        return
    loader = iter(DataLoader(parts, batch_size=None, num_workers=loaders, collate_fn=_as_it_is))
    for _ in range(-(-len(order) // size)):
        yield _merged([next(loader) for _ in range(loaders)])


@dataclass(frozen=True)
class _Part:
    """What one process makes of a batch: some of its rows, or why it can't."""

    rows: np.ndarray
    batch: AVBatch | None = None
    error: InputError | None = None


def _as_it_is(part: Any) -> Any:
    return part


class _Parts(IterableDataset):
    """One loader process's part of every batch: the samples of its lanes."""

    def __init__(
        self, items: StreamedItems, order: StreamOrder, size: int, collate: Callable[[Sequence], AVBatch]
    ) -> None:
        self.items, self.order, self.size, self.collate = items, order, size, collate

    def __iter__(self) -> Iterator[_Part]:
        info, order = get_worker_info(), self.order
        number, of = (info.id, info.num_workers) if info is not None else (0, 1)
        own = np.flatnonzero(np.isin(order.lane, np.unique(order.lane)[number::of]))
        samples = self.items.stream.read(order[own], self.items.members, self.items.choose)
        for begin in range(0, len(order), self.size):
            first, last = np.searchsorted(own, (begin, begin + self.size))
            rows = own[first:last] - begin
            try:
                items = [self.items.item(*next(samples)) for _ in rows]
            except InputError as error:  # a loader would hand on its text alone
                yield _Part(rows, error=error)
                return
            yield _Part(rows, self.collate(items) if items else None)


def _merged(parts: Sequence[_Part]) -> AVBatch:
    """The batch of all processes' parts."""
    for part in parts:
        if part.error is not None:
            raise part.error
    there = [(torch.from_numpy(part.rows), part.batch) for part in parts if part.batch is not None]
    if len(there) == 1:
        return there[0][1]
    whole, size = {}, sum(len(rows) for rows, _ in there)
    for name in (field.name for field in fields(there[0][1])):
        first = getattr(there[0][1], name)
        whole[name] = out = first.new_empty((size, *first.shape[1:]))
        for rows, batch in there:
            out[rows] = getattr(batch, name)
    return replace(there[0][1], **whole)
