"""What a split holds, sample by sample, as columns of an Arrow file that is mapped into memory, not read.

``index/<split>.arrow`` follows from the shards alone; without it the same columns are made from the shards' headers,
which takes 25 us a sample. Columns: where a sample lies (`shard`, `begin`, `size`), its `key`, and of its json `id`,
`labels`, `group`, `duration`, and why it lacks `audio` or `visual` (null: it has it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
import pyarrow as pa

from shards.atomic import replacing
from shards.schema import MODALITIES, SampleMeta, SplitInfo, canonical_json
from shards.store import Place, PlaceT, at_hand

BITS = 16
BATCH, LOW = 1 << BITS, (1 << BITS) - 1  # samples of a batch; all batches but the last are full
PLACES = pa.schema([("shard", pa.int32()), ("begin", pa.int64()), ("size", pa.int64()), ("key", pa.string())])
FACTS = pa.schema(
    [
        ("id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("group", pa.string()),
        ("duration", pa.float64()),
        *((modality, pa.string()) for modality in MODALITIES),
    ]
)
SCHEMA = pa.schema([*PLACES, *FACTS])
MARK = b"avmend.shards"  # of the file's metadata: digest of the shards that it describes


class Strings(Sequence[str]):
    """A column of text; an element is made when it is asked for.

    What a damaged file holds gives some text by position, and is refused (pyarrow.ArrowInvalid) when all of it is
    looked through.
    """

    def __init__(self, batches: Sequence[pa.Array]):
        self._batches = batches
        self._parts = [_text(batch) for batch in batches]
        self._size, self._checked = sum(map(len, batches)), False

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        if not 0 <= i < self._size:
            i = range(self._size)[i]
        ends, data = self._parts[i >> BITS]
        at = i & LOW
        return str(data[ends[at] : ends[at + 1]], "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        for batch in self._whole():
            yield from batch.to_pylist()

    def _whole(self) -> Sequence[pa.Array]:
        if not self._checked:
            for batch in self._batches:
                batch.validate(full=True)
            self._checked = True
        return self._batches

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self.position(value) is not None

    def position(self, value: str) -> int | None:
        """Where a text stands first; None if nowhere."""
        for number, batch in enumerate(self._whole()):
            if (at := batch.index(value).as_py()) >= 0:
                return number * BATCH + at
        return None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return isinstance(other, Sequence) and len(other) == len(self) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _text(batch: pa.Array) -> tuple[memoryview, memoryview]:
    """First bytes of a batch's texts, one more than there are, and the bytes."""
    if not len(batch):
        return memoryview(bytes(4)).cast("i"), memoryview(b"")
    assert batch.offset == 0
    _, ends, data = batch.buffers()
    return memoryview(ends).cast("i"), memoryview(data if data is not None else b"")


class Numbers(Sequence[int]):
    """A column of integers, each a Python one when it is asked for."""

    def __init__(self, batches: Sequence[pa.Array]):
        self._parts = [memoryview(batch.buffers()[1]).cast(_FORMATS[batch.type]) for batch in batches]
        self._size = sum(map(len, batches))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, i: Any) -> Any:
        return self._parts[i >> BITS][i & LOW]


_FORMATS: dict[pa.DataType, Literal["i", "q"]] = {pa.int32(): "i", pa.int64(): "q"}


class SplitTable:
    """The columns of a split.

    Args:
        batches: of `SCHEMA`, or of `PLACES` alone.
        facts: makes the columns of `FACTS` where `batches` lack them, when one is asked for.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], facts: Callable[[], Sequence[pa.RecordBatch]] | None = None):
        self._batches, self._facts = list(batches), facts
        self.shard, self.begin, self.size = (Numbers([b[name] for b in self._batches]) for name in PLACES.names[:3])
        self.keys = Strings([batch["key"] for batch in self._batches])

    def __len__(self) -> int:
        return len(self.keys)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column, checked in whole: what a damaged file holds is refused.

        Raises:
            pyarrow.ArrowInvalid: damaged.
        """
        there = self._described if name in FACTS.names else self._batches
        found = pa.chunked_array([batch[name] for batch in there], SCHEMA.field(name).type)
        found.validate(full=True)
        return found

    def rows(self, first: int, count: int) -> pa.Table:
        """Some rows with all columns, of a table from a file."""
        return pa.Table.from_batches(self._batches, SCHEMA).slice(first, count)

    @cached_property
    def ids(self) -> Strings:
        """Ids as the manifest spells them."""
        return Strings([batch["id"] for batch in self._described])

    @cached_property
    def present(self) -> np.ndarray:
        """Which modalities each sample has, bool [samples, 2], in the order of `MODALITIES`."""
        return np.stack([self.column(m).is_null().to_numpy() for m in MODALITIES], axis=1)

    @cached_property
    def _described(self) -> list[pa.RecordBatch]:
        return self._batches if self._facts is None else list(self._facts())


def places(number: int, keys: Sequence[str], begins: np.ndarray, sizes: np.ndarray) -> pa.RecordBatch:
    """Where the samples of one shard lie (`PLACES`)."""
    shard = np.full(len(keys), number, np.int32)
    return pa.record_batch([shard, begins, sizes, pa.array(keys, pa.string())], schema=PLACES)


def facts(metas: Iterable[SampleMeta]) -> pa.RecordBatch:
    """What samples' jsons say (`FACTS`)."""
    rows = [
        {
            "id": meta.id,
            "labels": meta.labels,
            "group": meta.group,
            "duration": meta.duration,
            **{m: None if (cause := getattr(meta, m).cause) is None else str(cause.value) for m in MODALITIES},
        }
        for meta in metas
    ]
    return pa.RecordBatch.from_pylist(rows, schema=FACTS)


def joined(place: pa.RecordBatch, fact: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of `SCHEMA` from both halves."""
    return pa.record_batch([*place.columns, *fact.columns], schema=SCHEMA)


def rebatched(parts: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `BATCH`, the last one smaller; no more of them in memory than one needs."""
    waiting, rows = list[pa.RecordBatch](), 0
    for part in parts:
        waiting.append(part)
        rows += len(part)
        while rows >= BATCH:
            table = pa.Table.from_batches(waiting, schema)
            yield _one(table.slice(0, BATCH))
            waiting, rows = table.slice(BATCH).to_batches(), rows - BATCH
    if rows:
        yield _one(pa.Table.from_batches(waiting, schema))


def _one(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch whose arrays begin at their buffers' first byte."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_batch(table.combine_chunks().to_batches()[0])
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def index_path(folder: PlaceT, split: str) -> PlaceT:
    """Where a dataset's split has its columns."""
    return folder / "index" / f"{split}.arrow"


def write_table(path: Place, split: SplitInfo, parts: Iterable[pa.RecordBatch]) -> None:
    """Write the columns of a split, whole or not at all; equal rows give equal bytes.

    Args:
        parts: rows of `SCHEMA`, one part per shard, in order; their `shard` is set here.
    """
    schema = SCHEMA.with_metadata({MARK: _digest(split).encode()})
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as out:
        for batch in rebatched((_numbered(n, part) for n, part in enumerate(parts)), SCHEMA):
            out.write_batch(batch.replace_schema_metadata(schema.metadata))


def _numbered(number: int, part: pa.RecordBatch) -> pa.RecordBatch:
    return part.set_column(0, SCHEMA.field(0), pa.array(np.full(len(part), number, np.int32)))


def read_table(path: Place, split: SplitInfo) -> SplitTable | None:
    """The columns of a split; None if they aren't there, are of other shards, or of another version."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(at_hand(path))))
        if (reader.schema.metadata or {}).get(MARK) != _digest(split).encode() or not reader.schema.equals(SCHEMA):
            return None
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate()
    except (OSError, pa.ArrowException, KeyError, MemoryError):
        return None
    sizes = [len(batch) for batch in batches]
    if sum(sizes) != split.samples or any(size != BATCH for size in sizes[:-1]):
        return None
    return SplitTable(batches)


def write_part(path: Place, part: pa.RecordBatch) -> None:
    """Keep one shard's rows beside its ledger, until they are joined to a split's."""
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SCHEMA) as out:
        out.write_batch(part)


def read_part(path: Place, samples: int) -> pa.RecordBatch | None:
    """Those rows, checked; None if they aren't there or damaged."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        table.validate(full=True)
    except (OSError, pa.ArrowException, KeyError, MemoryError):
        return None
    return _one(table) if table.schema.equals(SCHEMA) and len(table) == samples else None


def _digest(split: SplitInfo) -> str:
    shards = [(shard.name, shard.samples, shard.bytes, shard.sha256) for shard in split.shards]
    return hashlib.sha256(canonical_json(shards).encode()).hexdigest()
