"""The rows that are planned already, to be found by a clip's id: looked through where they lie, or, for a manifest that
is compared in whole, by 12 bytes of memory a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.manifest import Clip
from pipelines.rows import digests_of, read_batch
from shards.positions import index_type
from shards.store import Place

TOGETHER = 256  # shards that are looked through at once


class KnownRows:
    """Rows of the shards ever planned, numbered through.

    Args:
        places: the file and the number of the batch of each shard's rows, by its name, in the order in which they were
            planned.
    """

    def __init__(self, places: dict[str, tuple[Place, int]]):
        self.names, self._places = list(places), list(places.values())
        self._digests = lru_cache(maxsize=64)(lambda shard: digests_of(read_batch(*self._places[shard])))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @cached_property
    def _ends(self) -> np.ndarray:
        """The number of the row after the last one of each shard, int64 [shards]."""
        return np.cumsum(np.array([len(read_batch(*place)) for place in self._places], np.int64))

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of the ids, sorted, and the row of each; of equal ones the row that was planned last comes last."""
        hashes = np.empty(len(self), np.int64)
        for _, begin, batch in self.batches():
            hashes[begin : begin + len(batch)] = _hashes(batch["id"].to_pylist())
        order = np.argsort(hashes, kind="stable").astype(index_type(len(self)))
        return hashes[order], order

    def find(self, clips: Sequence[Clip]) -> np.ndarray:
        """The row that was planned last for each clip's id, int64 [clips]; -1: none was."""
        if not len(self):
            return np.full(len(clips), -1)
        hashes, order = self._index
        wanted = _hashes([clip.id for clip in clips])
        at = np.searchsorted(hashes, wanted, side="right") - 1
        return np.where((at >= 0) & (hashes[np.maximum(at, 0)] == wanted), order[np.maximum(at, 0)], -1)

    def planned(self, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Shard and id of each row of these clips; all rows are looked through, none is kept in memory."""
        wanted, shards = pa.array(ids, pa.string()), zip(self.names, self._places, strict=True)
        while ids and (some := list(islice(shards, TOGETHER))):
            columns = {name: read_batch(*place)["id"] for name, place in some}
            if pc.any(pc.is_in(pa.chunked_array(list(columns.values())), value_set=wanted)).as_py():
                for name, column in columns.items():
                    for found in column.filter(pc.is_in(column, value_set=wanted)):
                        yield name, found.as_py()

    def digest(self, row: int) -> int:
        """Of a row of the manifest, as it was planned."""
        shard, at = self._place(row)
        return int(self._digests(shard)[at])

    def shard(self, row: int) -> str:
        """Name of the shard that a row was planned into."""
        return self.names[self._place(row)[0]]

    def id(self, row: int) -> str:
        """The id of a row's clip."""
        shard, at = self._place(row)
        return read_batch(*self._places[shard])["id"][at].as_py()

    def replaced(self) -> np.ndarray:
        """Rows whose clips were planned again later, int64."""
        hashes, order = self._index
        return order[:-1][hashes[:-1] == hashes[1:]]

    def batches(self) -> Iterator[tuple[str, int, pa.RecordBatch]]:
        """Every shard's name, the number of its first row, and its rows."""
        begin = 0
        for name, place in zip(self.names, self._places, strict=True):
            batch = read_batch(*place)
            yield name, begin, batch
            begin += len(batch)

    def _place(self, row: int) -> tuple[int, int]:
        """The number of a row's shard, and of the row in it."""
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return shard, row - (int(self._ends[shard - 1]) if shard else 0)


def _hashes(ids: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash, ids), np.int64, len(ids))
