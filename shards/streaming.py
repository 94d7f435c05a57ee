"""Samples of a split by reading its shards one after the other, with `webdataset`, instead of each where it lies: for
shards on remote storage of which one disk holds a part.

Which samples come in which order is decided beforehand, on positions (`StreamOrder`). A lane is one row of shards that
is read through; what of it comes sooner than it is wanted waits in memory. So the order is the same for any number of
processes that divide the lanes among them, and a reader that begins amid an epoch reads only what is left.

The shards are the storage's, brought by `shards.stream_cache`, or those of a folder; either way a shard is read after
its sha256, its members and their number were found to be those of dataset.json. Nothing is unpickled: `webdataset`
hands out bytes, `shards.npy` makes the arrays.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shards.errors import InputError
from shards.index import BLOCK, MAX_JSON, index_at
from shards.npy import array_layout
from shards.reader import VISUAL_MEMBERS, Choose, Sample
from shards.remote import OTHER_BYTES, cache_folder, fetch, not_there
from shards.scan import DAMAGED, parse_meta, scanned_table
from shards.schema import MODALITIES, DatasetInfo, SampleMeta, ShardInfo
from shards.split import UPLOADED, SplitData, require_split
from shards.store import StorePath, url_of
from shards.stream_cache import ShardCache, found_whole
from shards.stream_order import StreamOrder, integers, repeated_ones
from shards.table import index_path, read_table

AHEAD = 2  # shards of every lane that are fetched before they are wanted; of few lanes AT_ONCE over all
AT_ONCE = 8  # shards that a process fetches
PART = 32 << 20  # bytes of one request


class StreamDataset(SplitData):
    """One split, read through in an order that is known beforehand; safe in forks and after pickling.

    >>> data = StreamDataset("s3://bucket/scenes", "train")
    >>> for i, sample in data.read(StreamOrder.in_shards(range(len(data)))): ...

    Args:
        folder: of the dataset, or its URL; of a URL only dataset.json and the split's table are fetched now.
        cache: of shards from a URL; default: `ShardCache`'s own folder and limit.
        ahead: shards of every lane that are fetched before they are wanted; 0: each when it is wanted.

    Attributes:
        waited: seconds for which this process stood still for shards.

    Raises:
        InputError: no such split; a URL whose dataset has no table (``index/``).
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        info: DatasetInfo | None = None,
        cache: ShardCache | None = None,
        ahead: int = AHEAD,
    ):
        self.url = url_of(folder)
        self.folder = fetch(self.url, splits=(split,), shards=False) if self.url else Path(folder).absolute()
        self.split, self.info, self.ahead, self.waited = split, info or DatasetInfo.load(self.folder), ahead, 0.0
        require_split(self.info, split, folder)
        self._cache = cache or ShardCache() if self.url else None
        self._shards = self.info.splits[split].shards
        self._open_table()

    def _open_table(self) -> None:
        path, split = index_path(self.folder, self.split), self.info.splits[self.split]
        table = read_table(path, split)
        if table is None and self.url:
            remedy = f"{UPLOADED}; or leave stream out: all of the split is then fetched"
            raise InputError(f"no table of split '{self.split}'", file=f"{self.url}/index", remedy=remedy)
        self.table = table or scanned_table(self.folder, split)
        self._ends = np.cumsum([shard.samples for shard in self._shards], dtype=np.int64)
        # When each shard was last written as it was found whole; forked processes share it.
        self._checked = np.frombuffer(mmap(-1, 8 * max(1, len(self._shards))), np.int64)

    @property
    def shard_ends(self) -> np.ndarray:
        """Position after the last sample of each shard, int64 [shards]."""
        return self._ends

    @property
    def shard_names(self) -> list[str]:
        """What tells the shards apart wherever they lie: their sha256."""
        return [shard.sha256 for shard in self._shards]

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``: all of its shard is fetched for it.

        Raises:
            IndexError: beyond the end.
            InputError: as `read`.
        """
        i = range(len(self))[i]
        return next(self.read(StreamOrder.in_shards([i])))[1]

    def each(self, positions: Iterable[int]) -> Iterator[tuple[int, Sample]]:
        """These samples with their positions, in the order that costs least.

        Raises:
            InputError: as `read`.
        """
        return self.read(StreamOrder.in_shards(positions))

    def read(
        self, order: StreamOrder, members: Collection[str] | None = None, choose: Callable[[int], Choose] | None = None
    ) -> Iterator[tuple[int, Sample]]:
        """Positions and samples in the given order; closing the iterator lets go of everything.

        Args:
            members: that are read (``audio.npy``, ...); None: all. The json always is.
            choose: position to what of its arrays is wanted, as `ShardDataset.rows` takes it.

        Raises:
            InputError: a shard can't be fetched after several tries, is not what dataset.json says, or a sample in it
                is damaged; names the shard.
        """
        if not len(order):
            return
        numbers = np.unique(order.lane)
        ahead = self.ahead and max(self.ahead, AT_ONCE // len(numbers))
        with ThreadPoolExecutor(AT_ONCE, "shards") as pool:
            lanes = {int(n): _Lane(self, order[order.lane == n], members, choose, pool) for n in numbers}
            try:
                for _ in range(ahead):
                    for lane in lanes.values():
                        lane.fetch_next()
                samples = {n: iter(lane.pipeline()) for n, lane in lanes.items()}
                for number in integers(order.lane):
                    yield next(samples[number])
            finally:
                for lane in lanes.values():
                    lane.close()

    def open_shard(self, number: int) -> BinaryIO:
        """A shard's file, found to be whole.

        Raises:
            InputError: as `read`.
        """
        shard, whole = self._shards[number], partial(self._whole, number)
        if self._cache is None:
            return self._open_local(self.folder / shard.name, whole)
        fetched = cache_folder() / "shards" / shard.sha256[:2] / f"{shard.sha256}.tar"  # of shards.remote
        if (file := found_whole(fetched, whole)) is not None:
            return file
        address = StorePath.of(f"{self.url}/{shard.name}")
        return self._cache.open(shard, str(address), partial(_download, address, shard), whole)

    @staticmethod
    def _open_local(path: Path, whole: Callable[[BinaryIO], bool]) -> BinaryIO:
        try:
            if (file := found_whole(path, whole)) is not None:
                return file
        except OSError as error:
            remedy = "fetch or make the shard again"
            raise InputError(f"can't be read: {error.strerror}", file=path, remedy=remedy) from None
        message = OTHER_BYTES if path.exists() else "is not there"
        raise InputError(message, file=path, remedy=DAMAGED)

    def _whole(self, number: int, file: BinaryIO) -> bool:
        """Whether a file holds a shard: size and sha256; computed once, as long as nobody writes to it."""
        shard, status = self._shards[number], os.fstat(file.fileno())
        if status.st_size != shard.bytes:
            return False
        if self._checked[number] == status.st_mtime_ns:
            return True
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:  # type: ignore[arg-type]
            return False
        index = index_at(file.fileno(), shard.name)  # plain members alone: webdataset would unpack others
        if len(index.keys) != shard.samples:
            message = f"{len(index.keys)} samples, but dataset.json says {shard.samples}"
            raise InputError(message, file=shard.name, remedy=DAMAGED)
        self._checked[number] = status.st_mtime_ns
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("table", "_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_table()


def _download(address: StorePath, shard: ShardInfo, target: Path) -> None:
    """A shard's bytes into a file, a part after the other."""
    with target.open("r+b") as file:
        for begin in range(0, shard.bytes, PART):
            try:
                file.write(address.range(begin, min(begin + PART, shard.bytes)))
            except FileNotFoundError:
                raise not_there(address) from None


class _Lane:
    """A row of shards, read through by `webdataset`'s stages.

    Args:
        order: of this lane alone.
    """

    def __init__(
        self,
        data: StreamDataset,
        order: StreamOrder,
        members: Collection[str] | None,
        choose: Callable[[int], Choose] | None,
        pool: ThreadPoolExecutor,
    ):
        self.data, self.choose, self.pool = data, choose, pool
        self.members = None if members is None else {*members, "json"}
        self.positions = order.positions
        along = order.positions[np.argsort(order.arrival, kind="stable")]
        numbers = np.searchsorted(data.shard_ends, along, side="right")
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        self._parts = np.split(along, cuts)  # what is wanted of each shard, in its own order
        self.shards = numbers[np.concatenate([[0], cuts])].tolist()
        self.wanted: dict[str, int] = {}  # of the shard that is being read: keys to positions
        self._ahead, self._next = deque[Future[BinaryIO]](), 0
        self._file: BinaryIO | None = None
        self._name = ""

    def pipeline(self) -> Iterable[tuple[int, Sample]]:
        """The stages from the list of shards to samples in their order."""
        import webdataset
        from webdataset.tariterators import group_by_keys, tar_file_expander

        return webdataset.DataPipeline(
            webdataset.SimpleShardList([self.data._shards[number].name for number in self.shards]),
            self._opened,
            partial(tar_file_expander, select_files=self._selects),
            partial(group_by_keys, lcase=False),
            self._decoded,
            self._reordered,
        )

    def fetch_next(self) -> None:
        """Begin to fetch one shard more."""
        if self._next < len(self.shards):
            self._ahead.append(self.pool.submit(self.data.open_shard, self.shards[self._next]))
            self._next += 1

    def _opened(self, sources: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """In place of `webdataset`'s own opener, whose caches check nothing."""
        for source, number, part in zip(sources, self.shards, self._parts, strict=True):
            self._file, self._name, wanted = self._take(), source["url"], part.tolist()
            self.wanted = {self.data.keys[i]: i for i in wanted}
            yield {**source, "stream": _Piece(self._file, *_span(self.data, number, wanted))}
            self._file.close()
            if self.wanted:
                raise self.data.bad(next(iter(self.wanted.values())), "is not there")

    def _take(self) -> BinaryIO:
        began = time.perf_counter()
        if not self._ahead:
            self.fetch_next()
        future = self._ahead.popleft()
        if self.data.ahead:
            self.fetch_next()
        file = future.result()
        self.data.waited += time.perf_counter() - began
        return file

    def _selects(self, name: str) -> bool:
        key, _, member = name.partition(".")
        return key in self.wanted and (self.members is None or member in self.members)

    def _decoded(self, samples: Iterable[dict[str, Any]]) -> Iterator[tuple[int, Sample]]:
        try:
            for found in samples:
                i = self.wanted.pop(found["__key__"])
                yield i, self._sample(i, found)
        except InputError:
            raise
        except (tarfile.TarError, ValueError, EOFError, OSError) as error:
            raise InputError(f"damaged: {error.args[0]}", file=self._name, remedy=DAMAGED) from error

    def _sample(self, i: int, found: dict[str, Any]) -> Sample:
        arrays, choose = {}, None if self.choose is None else self.choose(i)
        for name in (name for name in found if name.endswith(".npy")):
            stem = name.removesuffix(".npy")
            try:
                arrays[stem] = _array(found[name], partial(choose, stem) if choose else None)
            except ValueError as error:
                raise self.data.bad(i, f"{name}: {error}") from None
        _check_presence(self.data, i, arrays)
        return Sample(partial(_meta, self.data, i, found["json"]), arrays)

    def _reordered(self, samples: Iterator[tuple[int, Sample]]) -> Iterator[tuple[int, Sample]]:
        """What comes sooner than it is wanted waits here; what is wanted twice is read once."""
        waiting, repeated = dict[int, Sample](), repeated_ones(self.positions)
        for i in integers(self.positions):
            while i not in waiting:
                at, sample = next(samples)
                waiting[at] = sample
            if repeated.get(i, 1) > 1:
                repeated[i] -= 1
                yield i, waiting[i]
            else:
                yield i, waiting.pop(i)

    def close(self) -> None:
        """Let go of all files, those that are still to come too."""
        if self._file is not None:
            self._file.close()
        for future in self._ahead:
            if not future.cancel():
                future.add_done_callback(_close)


def _close(future: Future[BinaryIO]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def _span(data: StreamDataset, number: int, wanted: Sequence[int]) -> tuple[int, int]:
    """The bytes of a shard from the header of the first of some samples to the end of the last.

    Raises:
        InputError: the table has them elsewhere.
    """
    shard, table = data._shards[number], data.table
    begin = min(table.begin[i] for i in wanted) - BLOCK
    end = max(table.begin[i] + table.size[i] for i in wanted)
    if not 0 <= begin < end <= shard.bytes or any(table.shard[i] != number for i in wanted):
        raise data.bad_table(f"names no place in shard {shard.name} for its samples")
    return begin, -(-end // BLOCK) * BLOCK


class _Piece(io.RawIOBase):
    """A part of a file, from the header of its first member to the end of its last."""

    def __init__(self, file: BinaryIO, begin: int, end: int):
        file.seek(begin)
        self._from, self._left = file, end - begin

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._from.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _array(data: bytes, choose: Callable[[tuple[int, ...]], int | None] | None) -> np.ndarray:
    """The array of a ``.npy``, or the row of it that is chosen; writable, and alone in memory.

    Raises:
        ValueError: no plain array.
        IndexError: it has no such row.
    """
    dtype, shape, start = array_layout(np.frombuffer(data, np.uint8), len(data))
    array = np.frombuffer(data, dtype, offset=start).reshape(shape)
    row = choose(shape) if choose else None
    if row is not None and not 0 <= row < shape[0]:
        raise IndexError(f"row {row} of {shape[0]}")
    return (array if row is None else array[row]).copy()


def _check_presence(data: StreamDataset, i: int, arrays: Collection[str]) -> None:
    """What the table says is present and the members must agree."""
    there = ("audio" in arrays, any(name in arrays for name in VISUAL_MEMBERS))
    for modality, found, present in zip(MODALITIES, there, data.present[i].tolist(), strict=True):
        if found != present:
            said, has = ("present", "no member") if present else ("missing", "a member")
            raise data.bad(i, f"the table says {modality} is {said}, but the shard has {has} for it")


def _meta(data: StreamDataset, i: int, text: bytes) -> SampleMeta:
    if len(text) > MAX_JSON:
        raise data.bad(i, f"its json has {len(text)} bytes")
    return parse_meta(data.split, data.keys[i], text)
