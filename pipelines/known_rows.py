"""The rows that are planned already, to be found by a clip's id: 32 bytes of memory a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipelines.manifest import Clip
from pipelines.rows import digests_of, read_batch
from shards.store import Place

Batch = tuple[Place, int]  # a file of rows and the number of a batch in it


class KnownRows:
    """Rows of the shards ever planned, numbered through.

    Args:
        places: the batch of each shard, by its name, in the order in which they were planned.
    """

    def __init__(self, places: dict[str, Batch]):
        self.names, self._places = list(places), list(places.values())
        sizes, hashes, digests = [], [], []
        for place in self._places:
            batch = read_batch(*place)
            sizes.append(len(batch))
            hashes.append(_hashes(batch["id"].to_pylist()))
            digests.append(digests_of(batch).copy())
        self._ends = np.cumsum(np.array(sizes, np.int64))
        self.digests = np.concatenate([*digests, np.empty(0, np.uint64)])
        unsorted = np.concatenate([*hashes, np.empty(0, np.int64)])
        self._order = np.argsort(unsorted, kind="stable")
        self._sorted = unsorted[self._order]

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, clips: Sequence[Clip]) -> np.ndarray:
        """The row that was planned last for each clip's id, int64 [clips]; -1: none was."""
        wanted = _hashes([clip.id for clip in clips])
        at = np.searchsorted(self._sorted, wanted, side="right") - 1
        there = (at >= 0) & (self._sorted[np.maximum(at, 0)] == wanted) if len(self) else np.zeros(len(clips), bool)
        return np.where(there, self._order[np.maximum(at, 0)] if len(self) else -1, -1)

    def shard(self, row: int) -> str:
        """Name of the shard that a row was planned into."""
        return self.names[self._shard(row)]

    def id(self, row: int) -> str:
        """The id of a row's clip."""
        shard = self._shard(row)
        batch = read_batch(*self._places[shard])
        return batch["id"][row - int(self._ends[shard]) + len(batch)].as_py()

    def replaced(self) -> np.ndarray:
        """Rows whose clips were planned again later, int64."""
        return self._order[:-1][self._sorted[:-1] == self._sorted[1:]]

    def batches(self) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """Every shard's name, the number of its first row, and its rows."""
        for name, end, place in zip(self.names, self._ends.tolist(), self._places, strict=True):
            batch = read_batch(*place)
            yield name, end - len(batch), batch

    def _shard(self, row: int) -> int:
        return int(np.searchsorted(self._ends, row, side="right"))


def _hashes(ids: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash, ids), np.int64, len(ids))
