"""Random access to the samples of a split: a mapped table of where they lie and ``pread``, and never pickle."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from math import prod
from mmap import ACCESS_READ, MADV_WILLNEED, PAGESIZE, mmap
from os import preadv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import empty, ndarray, uint8

from shards.errors import InputError
from shards.index import BLOCK, MAX_JSON, parse_header
from shards.npy import array_layout, header_length
from shards.remote import fetch
from shards.scan import DAMAGED, parse_meta, scanned_table
from shards.schema import DatasetInfo, SampleMeta, ShardInfo
from shards.split import SplitData, require_split
from shards.store import url_of
from shards.table import SplitTable, index_path, read_table
from shards.writer import MEMBER

HEADER = 128  # bytes that hold the header of any usual .npy
JSON = 1536  # bytes that hold the json of any usual sample
LAYOUTS = (1 << 16) - 1  # of one dataset that are remembered
MAX_OPEN = 256  # shards kept open; the others are opened for each read
NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux
VISUAL_MEMBERS = ("frames", "visual")

Choose = Callable[[str, tuple[int, ...]], int | None]


class Sample:
    """One sample. ``arrays`` has the present members only, writable: of media shards ``audio`` float16
    [frames, 128], ``frames`` uint8 [N, H, W, 3], ``wave`` int16 [samples]; of feature shards ``audio`` and
    ``visual`` float16 [variants, tokens, dim]."""

    __slots__ = ("_meta", "arrays")

    def __init__(self, meta: SampleMeta | Callable[[], SampleMeta], arrays: dict[str, np.ndarray]):
        self._meta, self.arrays = meta, arrays

    @property
    def meta(self) -> SampleMeta:
        """Its json (parsed when first asked for: that takes as long as reading a small sample)."""
        if not isinstance(self._meta, SampleMeta):
            self._meta = self._meta()
        return self._meta


class Field(NamedTuple):
    """One array of a sample: where it begins, from the first byte of the sample's json on."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


Layout = tuple[Field, ...]


class Metas(Sequence[SampleMeta]):
    """The jsons of a split's samples, each read when it is asked for."""

    def __init__(self, data: ShardDataset):
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return self._data._meta(range(len(self))[i])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class ShardDataset(SplitData):
    """The samples of one split, in manifest order, by position; safe in threads, forks and after pickling.

    The members of a sample are neighbours in the tar, so a sample is one ``preadv``. Headers and flags of a
    sample are checked when it is first read; later reads take its layout (shared by all samples of the same
    shapes) from memory. A sample costs a process 2 bytes; the table of `shards.table` is mapped.

    >>> data = ShardDataset("data/scenes", "train")
    >>> data[3].arrays["audio"].shape

    Args:
        folder: of the dataset, or its URL (``s3://...``): then `shards.remote.fetch` brings the split here.
        table: where its samples lie; default: what the folder's table says, or the shards.

    Raises:
        InputError: no such split; a shard is missing, cut short or not of the size or count in dataset.json.
    """

    def __init__(
        self, folder: str | Path, split: str, *, info: DatasetInfo | None = None, table: SplitTable | None = None
    ):
        if (url := url_of(folder)) is not None:
            folder = fetch(url, splits=(split,))
        self.folder, self.split = Path(folder).absolute(), split
        self.info = info or DatasetInfo.load(folder)
        require_split(self.info, split, folder)
        self._shards = self.info.splits[split].shards
        self._open: dict[int, int] = {}
        self._maps: dict[int, mmap] = {}
        self._learnt = threading.Lock()
        self._open_table(table)

    def _open_table(self, table: SplitTable | None = None) -> None:
        """Where the samples lie: from the table in the folder if it is of these shards, else from their headers."""
        split = self.info.splits[self.split]
        if table is None and (table := read_table(index_path(self.folder, self.split), split)) is not None:
            for shard in self._shards:
                _check_size(self.folder / shard.name, shard)
        self.table = table or scanned_table(self.folder, split)
        self._begin, self._size, self._shard = self.table.begin, self.table.size, self.table.shard
        self._codes = np.zeros(len(self), np.uint16).data  # the layout of each sample, 0: not known
        self._layouts: list[Layout] = [()]
        self._code_of: dict[Layout, int] = {}

    @cached_property
    def metas(self) -> Metas:
        """The json of every sample, in order; each is read when it is asked for."""
        return Metas(self)

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``.

        Raises:
            IndexError: beyond the end.
            InputError: damaged bytes, or members that contradict the presence flags.
        """
        layout = self._layouts[self._codes[i]] or self._learn(i)
        i = i if i >= 0 else i + len(self)
        buffer = empty(self._size[i], uint8)
        self._fill(buffer, self._shard[i], self._begin[i])
        arrays = {name: ndarray(shape, dtype, buffer, start) for name, dtype, shape, start in layout}
        return Sample(partial(self._meta, i), arrays)

    def each(self, positions: Iterable[int]) -> Iterator[tuple[int, Sample]]:
        """These samples with their positions, in the order that costs least; here as they are given.

        Raises:
            IndexError, InputError: as above.
        """
        return ((i, self[i]) for i in positions)

    def rows(self, i: int, choose: Choose) -> Sample:
        """Sample ``i`` as above, but of an array only the row (first axis) that ``choose`` names by the
        array's name and shape (``None``: all of it); no more than that is read.

        Raises:
            IndexError: as above, and for a row that the array has not.
            InputError: as above.
        """
        layout = self._layouts[self._codes[i]] or self._learn(i)
        i = i if i >= 0 else i + len(self)
        begin, shard, arrays = self._begin[i], self._shard[i], {}
        for name, dtype, shape, start in layout:
            if (chosen := choose(name, shape)) is not None:
                shape, start = _row(shape, start, dtype, chosen)
            arrays[name] = array = np.empty(shape, dtype)
            self._fill(array.reshape(-1).view(uint8), shard, begin + start)
        return Sample(partial(self._meta, i), arrays)

    def view(self, i: int, name: str, row: int | None = None) -> np.ndarray:
        """An array of sample ``i``, or one row (first axis) of it, where it lies in the shard: read-only, and
        mapped, so whoever copies it has the only copy. The system begins to read it at once; touching waits.

        Shards are replaced, never rewritten: a file cut short after this call would end the process
        (SIGBUS).

        Raises:
            IndexError: as above.
            InputError: as above; or the sample has no such array, or the file is no longer whole.
        """
        layout = self._layouts[self._codes[i]] or self._learn(i)
        i = i if i >= 0 else i + len(self)
        field = next((field for field in layout if field.name == name), None)
        if field is None:
            raise self.bad(i, f"has no array '{name}'")
        shape, start = field.shape, field.start
        if row is not None:
            shape, start = _row(shape, start, field.dtype, row)
        shard = self._shard[i]
        mapped = self._maps.get(shard) or self._map(shard)
        start += self._begin[i]
        out = ndarray(shape, field.dtype, mapped, start)  # type: ignore[call-overload]
        if not _cached(self._open.get(shard), start + out.nbytes - 1):
            if mapped.size() != self._shards[shard].bytes:
                raise InputError("cut short while in use", file=self._shards[shard].name, remedy=DAMAGED)
            page = start // PAGESIZE * PAGESIZE
            mapped.madvise(MADV_WILLNEED, page, start - page + out.nbytes)
        return out

    def members(self, i: int) -> dict[str, bytes]:
        """All members of sample ``i`` by name, as they are in the tar.

        Raises:
            IndexError, InputError: as above.
        """
        i = range(len(self))[i]
        return {name: self._bytes(i, at, size).tobytes() for name, at, size, _ in self._members(i)}

    def member(self, i: int, name: str) -> bytes:
        """The bytes of one member of sample ``i``, as they are in the tar.

        Raises:
            IndexError: no such sample.
            InputError: the sample has no member of that name.
        """
        i = range(len(self))[i]
        there = {member: (at, size) for member, at, size, _ in self._members(i)}
        if name not in there:
            where = f"{self._shards[self._shard[i]].name}: {self.keys[i]}"
            remedy = f"choose one of: {', '.join(there)}"
            raise InputError(f"no member '{name}'", file=where, field="member", remedy=remedy)
        return self._bytes(i, *there[name]).tobytes()

    def _place(self, i: int) -> tuple[ShardInfo, int, int]:
        """Shard, first byte and end of sample ``i``.

        Raises:
            InputError: the table names no place in a shard.
        """
        number, begin, size = self._shard[i], self._begin[i], self._size[i]
        shard = self._shards[number] if 0 <= number < len(self._shards) else None
        if shard is None or not BLOCK <= begin < begin + size <= shard.bytes:
            raise self.bad_table(f"names no place in a shard for sample {i}")
        return shard, begin, begin + size

    def checked(self, i: int) -> SampleMeta:
        """The json of sample ``i``, after its headers and flags were checked, as when it is first read; of its arrays
        nothing is read.

        Raises:
            IndexError, InputError: as above.
        """
        return self._described(range(len(self))[i])[1]

    def _learn(self, i: int) -> Layout:
        """Where a sample's arrays lie and what they are; remembered."""
        i = range(len(self))[i]
        layout, _ = self._described(i)
        with self._learnt:
            if (code := self._code_of.get(layout)) is None and len(self._layouts) <= LAYOUTS:
                code = self._code_of[layout] = len(self._layouts)
                self._layouts.append(layout)
            self._codes[i] = code or 0
        return layout

    def _described(self, i: int) -> tuple[Layout, SampleMeta]:
        """Where a sample's arrays lie and what they are, from their headers; its flags are checked."""
        fields, meta = [], self._meta(i)
        members = [member for member in self._members(i) if member[0] != "json"]
        stems = [name.removesuffix(".npy") for name, *_ in members]
        check_presence(self._place(i)[0].name, meta, set(stems))
        for stem, (_, at, size, head) in zip(stems, members, strict=True):
            dtype, shape, start = self._header(i, at, size, head)
            fields.append(Field(stem, dtype, shape, at + start - self._begin[i]))
        return tuple(fields), meta

    def _members(self, i: int) -> Iterator[tuple[str, int, int, ndarray]]:
        """Name, first byte and size of every member, and its first bytes; strictly as the table has them.

        Raises:
            InputError: the shard holds something else where the table has this sample.
        """
        key, (_, begin, end) = self.keys[i], self._place(i)
        at, seen = begin - BLOCK, set[str]()
        while at < end:
            block = self._bytes(i, at, min(BLOCK + HEADER, end - at) if seen else BLOCK)
            try:
                name, size = parse_header(block[:BLOCK].tobytes(), at)
            except ValueError as error:
                raise self.bad(i, str(error)) from None
            owner, _, member = name.partition(".")
            if owner != key or not MEMBER.fullmatch(member) or member in seen or ("json" in seen) != bool(seen):
                raise self.bad(i, f"'{name}' is not of this sample")
            if not seen and (member != "json" or size > MAX_JSON):
                raise self.bad(i, f"begins with '{name}' of {size} bytes, not with its json")
            if at + BLOCK + size > end:
                raise self.bad(i, f"'{name}' ends beyond the sample")
            seen.add(member)
            yield member, at + BLOCK, size, block[BLOCK : BLOCK + size]
            at += BLOCK + -(-size // BLOCK) * BLOCK

    def _header(self, i: int, at: int, size: int, head: ndarray) -> tuple[np.dtype, tuple[int, ...], int]:
        try:
            if (length := header_length(head)) > len(head):
                head = self._bytes(i, at, min(size, length))
            return array_layout(head, size)
        except ValueError as error:
            raise self.bad(i, str(error)) from None

    def _meta(self, i: int) -> SampleMeta:
        """The json of a sample."""
        shard, begin, end = self._place(i)
        size = end - begin
        block = self._bytes(i, begin - BLOCK, BLOCK + min(size, JSON))
        try:
            name, length = parse_header(block[:BLOCK].tobytes(), begin - BLOCK)
        except ValueError as error:
            raise self.bad(i, str(error)) from None
        if name != f"{self.keys[i]}.json" or length > min(size, MAX_JSON):
            raise self.bad(i, f"begins with '{name}' of {length} bytes, not with its json")
        data = block[BLOCK : BLOCK + length] if length <= JSON else self._bytes(i, begin, length)
        return parse_meta(shard.name, self.keys[i], data.tobytes())

    def _bytes(self, i: int, at: int, size: int) -> ndarray:
        """So many bytes of the shard of a sample."""
        buffer = np.empty(size, uint8)
        self._fill(buffer, self._shard[i], at)
        return buffer

    def _fill(self, buffer: np.ndarray, shard: int, at: int) -> None:
        """Fill ``buffer`` (uint8 [bytes]) with what lies ``at`` that byte of a shard."""
        descriptor = self._open.get(shard)
        if descriptor is None:
            descriptor = self._descriptor(shard)
        try:
            got = preadv(descriptor, (buffer,), at)  # type: ignore[arg-type]
            while 0 < got < len(buffer):  # Linux hands out at most 2 GiB at once
                if not (more := preadv(descriptor, (buffer[got:],), at + got)):  # type: ignore[arg-type]
                    break
                got += more
        finally:
            if self._open.get(shard) != descriptor:
                os.close(descriptor)
        if got != len(buffer):
            raise InputError("cut short while in use", file=self._shards[shard].name, remedy=DAMAGED)

    def _descriptor(self, shard: int) -> int:
        descriptor = os.open(self.folder / self._shards[shard].name, os.O_RDONLY)
        if len(self._open) < MAX_OPEN:
            self._open.setdefault(shard, descriptor)  # a thread that lost the race closes its own
        return descriptor

    def _map(self, shard: int) -> mmap:
        with (self.folder / self._shards[shard].name).open("rb") as file:
            mapped = mmap(file.fileno(), 0, access=ACCESS_READ)
        if len(self._maps) < MAX_OPEN // 2:  # each holds a descriptor of its own
            self._maps.setdefault(shard, mapped)
        return mapped

    def __getstate__(self) -> dict[str, Any]:
        fresh = ("table", "metas", "_begin", "_size", "_shard", "_codes", "_layouts", "_code_of", "_learnt")
        return {**{k: v for k, v in self.__dict__.items() if k not in fresh}, "_open": {}, "_maps": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._learnt = threading.Lock()
        self._open_table()

    def close(self) -> None:
        """Close the files; the next read opens them again. A mapping stays while there are views of it."""
        self._maps.clear()
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()


def _row(shape: tuple[int, ...], start: int, dtype: np.dtype, row: int) -> tuple[tuple[int, ...], int]:
    """Shape and first byte of one row (first axis) of an array that begins at ``start``."""
    if not 0 <= row < shape[0]:
        raise IndexError(f"row {row} of {shape[0]}")
    return shape[1:], start + row * prod(shape[1:]) * dtype.itemsize


def _cached(descriptor: int | None, at: int) -> bool:
    """Whether that byte of a file is in the page cache, in a tenth of the time that asking for the pages of a
    clip takes; False beyond its end, and where the system does not tell."""
    if descriptor is None or NOWAIT is None:
        return False
    try:
        return preadv(descriptor, (bytearray(1),), at, NOWAIT) == 1
    except OSError:
        return False


def check_presence(shard: str, meta: SampleMeta, arrays: set[str]) -> None:
    """Members and presence flags must agree: an absent member alone never means a missing modality.

    Raises:
        InputError: they contradict each other.
    """
    for modality, stream, found in (
        ("audio", meta.audio, "audio" in arrays),
        ("visual", meta.visual, any(name in arrays for name in VISUAL_MEMBERS)),
    ):
        if stream.present != found:
            said, has = ("present", "no member") if stream.present else ("missing", "a member")
            message = f"the json says {modality} is {said}, but the shard has {has} for it"
            raise InputError(message, file=f"{shard}: {meta.key}", field=modality, remedy=DAMAGED)
    if "wave" in arrays and not meta.audio.present:
        raise InputError("a waveform, but audio is missing", file=f"{shard}: {meta.key}", remedy=DAMAGED)


def _check_size(path: Path, shard: ShardInfo) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"can't be read: {error.strerror}", file=path, remedy="fetch or make the shard again"
        ) from None
    if size != shard.bytes:
        raise InputError(f"{size} bytes, but dataset.json says {shard.bytes}", file=path, remedy=DAMAGED)
