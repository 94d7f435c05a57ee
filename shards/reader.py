"""Random access to the samples of a split: an index of offsets and ``pread``, and never pickle."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import accumulate
from math import prod
from mmap import ACCESS_READ, MADV_WILLNEED, PAGESIZE, mmap
from os import preadv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydantic
from numpy import empty, ndarray, uint8

from shards.errors import InputError
from shards.index import ShardIndex, read_index
from shards.npy import array_layout, header_length
from shards.remote import fetch, is_url
from shards.schema import DatasetInfo, SampleMeta, ShardInfo

HEADER = 128  # bytes that hold the header of any usual .npy
MAX_OPEN = 256  # shards kept open; the others are opened for each read
NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux
VISUAL_MEMBERS = ("frames", "visual")
DAMAGED = "run 'avmend shards verify' on the dataset, and make the shard again"

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


class ShardDataset:
    """The samples of one split, in manifest order, by position; safe in threads, forks and after pickling.

    The members of a sample are neighbours in the tar, so a sample is one ``preadv``. Headers and flags of a
    sample are checked when it is first read; later reads take its layout (shared by all samples of the same
    shapes) from memory.

    >>> data = ShardDataset("data/scenes", "train")
    >>> data[3].arrays["audio"].shape

    Args:
        folder: of the dataset, or its URL (``s3://...``): then `shards.remote.fetch` brings the split here.

    Raises:
        InputError: no such split; a shard is missing, cut short or not of the size or count in dataset.json.
    """

    def __init__(self, folder: str | Path, split: str, *, info: DatasetInfo | None = None):
        if is_url(folder):
            folder = fetch(str(folder), splits=(split,))
        self.folder, self.split = Path(folder).absolute(), split
        self.info = info or DatasetInfo.load(folder)
        if split not in self.info.splits:
            remedy = f"choose one of: {', '.join(self.info.splits)}"
            raise InputError(f"the dataset has no split '{split}'", file=folder, field="split", remedy=remedy)
        self._shards = self.info.splits[split].shards
        self._indexes = [_checked_index(self.folder / shard.name, shard) for shard in self._shards]
        self._ends = list(accumulate(shard.samples for shard in self._shards))
        self._begins, self._sizes, self._shard_of = _extents(self._indexes)
        self._layouts: list[Layout | None] = [None] * len(self)
        self._known: dict[Layout, Layout] = {}
        self._open: dict[int, int] = {}
        self._maps: dict[int, mmap] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def keys(self) -> list[str]:
        """Keys of all samples, in order."""
        return [key for index in self._indexes for key in index.keys]

    @cached_property
    def metas(self) -> list[SampleMeta]:
        """Metadata of all samples, in order (read at the first use, then kept)."""
        return [self._meta(*self._place(i)) for i in range(len(self))]

    def __getitem__(self, i: int) -> Sample:
        """Sample ``i``.

        Raises:
            IndexError: beyond the end.
            InputError: damaged bytes, or members that contradict the presence flags.
        """
        if (layout := self._layouts[i]) is None:
            layout = self._learn(i)
        buffer = empty(self._sizes[i], uint8)
        self._fill(buffer, self._shard_of[i], self._begins[i])
        arrays = {name: ndarray(shape, dtype, buffer, start) for name, dtype, shape, start in layout}
        return Sample(self._known_meta(i), arrays)

    def rows(self, i: int, choose: Choose) -> Sample:
        """Sample ``i`` as above, but of an array only the row (first axis) that ``choose`` names by the
        array's name and shape (``None``: all of it); no more than that is read.

        Raises:
            IndexError: as above, and for a row that the array has not.
            InputError: as above.
        """
        layout, begin, shard = self._layouts[i] or self._learn(i), self._begins[i], self._shard_of[i]
        arrays = {}
        for name, dtype, shape, start in layout:
            if (chosen := choose(name, shape)) is not None:
                shape, start = _row(shape, start, dtype, chosen)
            arrays[name] = array = np.empty(shape, dtype)
            self._fill(array.reshape(-1).view(uint8), shard, begin + start)
        return Sample(self._known_meta(i), arrays)

    def view(self, i: int, name: str, row: int | None = None) -> np.ndarray:
        """An array of sample ``i``, or one row (first axis) of it, where it lies in the shard: read-only, and
        mapped, so whoever copies it has the only copy. The system begins to read it at once; touching waits.

        Shards are replaced, never rewritten: a file cut short after this call would end the process
        (SIGBUS).

        Raises:
            IndexError: as above.
            InputError: as above; or the sample has no such array, or the file is no longer whole.
        """
        layout = self._layouts[i] or self._learn(i)
        field = next((field for field in layout if field.name == name), None)
        if field is None:
            raise self.bad(i, f"has no array '{name}'")
        shape, start = field.shape, field.start
        if row is not None:
            shape, start = _row(shape, start, field.dtype, row)
        shard = self._shard_of[i]
        mapped = self._maps.get(shard) or self._map(shard)
        start += self._begins[i]
        out = ndarray(shape, field.dtype, mapped, start)  # type: ignore[call-overload]
        if not _cached(self._open.get(shard), start + out.nbytes - 1):
            if mapped.size() != self._shards[shard].bytes:
                raise InputError("cut short while in use", file=self._shards[shard].name, remedy=DAMAGED)
            page = start // PAGESIZE * PAGESIZE
            mapped.madvise(MADV_WILLNEED, page, start - page + out.nbytes)
        return out

    def bad(self, i: int, message: str) -> InputError:
        """What to raise about sample ``i``."""
        shard, row = self._place(i)
        where = f"{self._shards[shard].name}: {self._indexes[shard].keys[row]}"
        return InputError(message, file=where, remedy=DAMAGED)

    def _known_meta(self, i: int) -> SampleMeta | Callable[[], SampleMeta]:
        """The sample's json, from memory if they are all there, else as a promise."""
        known = self.__dict__.get("metas")
        return known[i] if known else partial(self._meta, *self._place(i))

    def _place(self, i: int) -> tuple[int, int]:
        """Shard, and row in it."""
        i = range(len(self))[i]
        shard = self._shard_of[i]
        return shard, i - self._ends[shard] + self._shards[shard].samples

    def _learn(self, i: int) -> Layout:
        """Where a sample's arrays lie and what they are, from their headers; its flags are checked."""
        (shard, row), known = self._place(i), self.__dict__.get("metas")
        index, begin = self._indexes[shard], self._begins[i]
        meta = known[i] if known else self._meta(shard, row)
        members = [c for c, name in enumerate(index.names) if name != "json" and index.offsets[row, c] >= 0]
        stems = [index.names[column].removesuffix(".npy") for column in members]
        check_presence(self._shards[shard].name, meta, set(stems))
        fields = []
        for column, stem in zip(members, stems, strict=True):
            dtype, shape, start = self._header(shard, row, column)
            fields.append(Field(stem, dtype, shape, int(index.offsets[row, column]) + start - begin))
        layout = tuple(fields)
        self._layouts[i] = layout = self._known.setdefault(layout, layout)
        return layout

    def _header(self, shard: int, row: int, column: int) -> tuple[np.dtype, tuple[int, ...], int]:
        index = self._indexes[shard]
        size = int(index.sizes[row, column])
        try:
            head = self._member(shard, row, column, min(size, HEADER))
            if (length := header_length(head)) > len(head):
                head = self._member(shard, row, column, min(size, length))
            return array_layout(head, size)
        except ValueError as error:
            where = f"{self._shards[shard].name}: {index.keys[row]}"
            raise InputError(str(error), file=where, remedy=DAMAGED) from None

    def _meta(self, shard: int, row: int) -> SampleMeta:
        index = self._indexes[shard]
        data = self._member(shard, row, 0, int(index.sizes[row, 0])).tobytes()
        return parse_meta(self._shards[shard].name, index.keys[row], data)

    def member(self, i: int, name: str) -> bytes:
        """The bytes of one member of sample ``i``, as they are in the tar.

        Raises:
            IndexError: no such sample.
            InputError: the sample has no member of that name.
        """
        shard, row = self._place(i)
        index = self._indexes[shard]
        there = [n for c, n in enumerate(index.names) if index.offsets[row, c] >= 0]
        if name not in there:
            where = f"{self._shards[shard].name}: {index.keys[row]}"
            remedy = f"choose one of: {', '.join(there)}"
            raise InputError(f"no member '{name}'", file=where, field="member", remedy=remedy)
        column = index.names.index(name)
        return self._member(shard, row, column, int(index.sizes[row, column])).tobytes()

    def _member(self, shard: int, row: int, column: int, size: int) -> np.ndarray:
        """The first bytes of a member."""
        buffer = np.empty(size, np.uint8)
        self._fill(buffer, shard, int(self._indexes[shard].offsets[row, column]))
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
        return {**self.__dict__, "_open": {}, "_maps": {}}

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


def _extents(indexes: Sequence[ShardIndex]) -> tuple[array, array, array]:
    """First byte and length of every sample, and its shard: 8 + 8 + 4 bytes a sample."""
    begins, sizes, shards = array("q"), array("q"), array("i")
    for number, index in enumerate(indexes):
        first = index.offsets[:, 0]
        begins.frombytes(np.ascontiguousarray(first).tobytes())
        sizes.frombytes(((index.offsets + index.sizes).max(axis=1) - first).tobytes())
        shards.extend([number] * len(index.keys))
    return begins, sizes, shards


def parse_meta(shard: str, key: str, data: bytes) -> SampleMeta:
    """The sample's json.

    Raises:
        InputError: not of the schema, or of another key.
    """
    try:
        meta = SampleMeta.model_validate_json(data)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise InputError(f"bad json: {problem}", file=f"{shard}: {key}", remedy=DAMAGED) from None
    if meta.key != key:
        raise InputError(f"the json is of '{meta.key}'", file=f"{shard}: {key}", remedy=DAMAGED)
    return meta


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


def _checked_index(path: Path, shard: ShardInfo) -> ShardIndex:
    index = read_index(path)
    size = path.stat().st_size
    if (size, len(index.keys)) != (shard.bytes, shard.samples):
        found, wanted = f"{len(index.keys)} samples in {size} bytes", f"{shard.samples} in {shard.bytes}"
        raise InputError(f"{found}, but dataset.json says {wanted}", file=path, remedy=DAMAGED)
    return index
