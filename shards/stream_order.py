"""The order in which samples of a stream are wanted, known before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

CHUNK = 4096


@dataclass(frozen=True)
class StreamOrder:
    """Samples as they are wanted, n of them.

    Attributes:
        positions: of the samples in their split, int32 or int64 [n].
        arrival: where each comes when its lane's shards are read through, likewise [n]; of samples of one shard in
            the shard's own order.
        lane: in which of the lanes, int32 [n].
    """

    positions: np.ndarray
    arrival: np.ndarray
    lane: np.ndarray

    @classmethod
    def in_shards(cls, positions: Iterable[int]) -> StreamOrder:
        """These samples as the shards have them."""
        sorted_ = np.unique(np.fromiter(positions, np.int64))
        return cls(sorted_, sorted_, np.zeros(len(sorted_), np.int32))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice | np.ndarray) -> StreamOrder:
        columns = (self.positions, self.arrival, self.lane)
        return StreamOrder(*(np.ascontiguousarray(column[rows]) for column in columns))  # none of the other rows


def integers(values: np.ndarray) -> Iterator[int]:
    """Each as Python's own, not all of them at once."""
    for begin in range(0, len(values), CHUNK):
        yield from values[begin : begin + CHUNK].tolist()


def repeated_ones(values: np.ndarray) -> dict[int, int]:
    """How often those come that come more than once."""
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True))
