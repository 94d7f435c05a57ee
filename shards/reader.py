"""Random access to the samples of a split: an index of offsets and ``pread``, and never pickle."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from shards.errors import InputError
from shards.index import ShardIndex, read_index
from shards.npy import array_layout, header_length, parse_npy
from shards.schema import DatasetInfo, SampleMeta, ShardInfo

HEADER = 128  # bytes that hold the header of any usual .npy
MAX_OPEN = 256  # shards kept open; the others are opened for each read
VISUAL_MEMBERS = ("frames", "visual")
DAMAGED = "run 'avmend shards verify' on the dataset, and make the shard again"

Choose = Callable[[str, tuple[int, ...]], int | None]


def _whole(name: str, shape: tuple[int, ...]) -> None:
    """Choose all rows."""


@dataclass(frozen=True)
class Sample:
    """One sample. ``arrays`` has the present members only, writable: of media shards ``audio`` float16
    [frames, 128], ``frames`` uint8 [N, H, W, 3], ``wave`` int16 [samples]; of feature shards ``audio`` and
    ``visual`` float16 [variants, tokens, dim]."""

    meta: SampleMeta
    arrays: dict[str, np.ndarray]


class ShardDataset:
    """The samples of one split, in manifest order, by position; safe in threads, forks and after pickling.

    >>> data = ShardDataset("data/scenes", "train")
    >>> data[3].arrays["audio"].shape

    Raises:
        InputError: no such split; a shard is missing, cut short or not of the size or count in dataset.json.
    """

    def __init__(self, folder: str | Path, split: str, *, info: DatasetInfo | None = None):
        self.folder, self.split = Path(folder).absolute(), split
        self.info = info or DatasetInfo.load(folder)
        if split not in self.info.splits:
            remedy = f"choose one of: {', '.join(self.info.splits)}"
            raise InputError(f"the dataset has no split '{split}'", file=folder, field="split", remedy=remedy)
        self._shards = self.info.splits[split].shards
        self._indexes = [_checked_index(self.folder / shard.name, shard) for shard in self._shards]
        self._ends = list(accumulate(shard.samples for shard in self._shards))
        self._open: dict[int, int] = {}

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
        return self.rows(i, _whole)

    def rows(self, i: int, choose: Choose) -> Sample:
        """Sample ``i`` as above, but of an array only the row (first axis) that ``choose`` names by the
        array's name and shape (``None``: all of it); no more than that is read.

        Raises:
            IndexError: as above, and for a row that the array has not.
            InputError: as above.
        """
        shard, row = self._place(i)
        known = self.__dict__.get("metas")  # once they are all read, no sample's is read again
        meta, index = known[i] if known else self._meta(shard, row), self._indexes[shard]
        arrays = {}
        for column, name in enumerate(index.names):
            if name != "json" and index.offsets[row, column] >= 0:
                stem = name.removesuffix(".npy")
                arrays[stem] = self._array(shard, row, column, stem, choose)
        check_presence(self._shards[shard].name, meta, set(arrays))
        return Sample(meta, arrays)

    def _place(self, i: int) -> tuple[int, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        i %= len(self)
        shard = bisect_right(self._ends, i)
        return shard, int(i - self._ends[shard] + self._shards[shard].samples)

    def _meta(self, shard: int, row: int) -> SampleMeta:
        index = self._indexes[shard]
        data = self._read(shard, row, index.names.index("json")).tobytes()
        return parse_meta(self._shards[shard].name, index.keys[row], data)

    def _array(self, shard: int, row: int, column: int, name: str, choose: Choose) -> np.ndarray:
        try:
            if choose is _whole:
                return parse_npy(self._read(shard, row, column))
            return self._part(shard, row, column, name, choose)
        except ValueError as error:
            where = f"{self._shards[shard].name}: {self._indexes[shard].keys[row]}"
            raise InputError(str(error), file=where, remedy=DAMAGED) from None

    def _part(self, shard: int, row: int, column: int, name: str, choose: Choose) -> np.ndarray:
        size = int(self._indexes[shard].sizes[row, column])
        head = self._read(shard, row, column, 0, min(size, HEADER))
        if (length := header_length(head)) > len(head):
            head = self._read(shard, row, column, 0, min(size, length))
        dtype, shape, start = array_layout(head, size)
        if (chosen := choose(name, shape)) is None:
            return self._read(shard, row, column, start).view(dtype).reshape(shape)
        if not 0 <= chosen < shape[0]:
            raise IndexError(f"row {chosen} of {shape[0]}")
        step = (size - start) // shape[0]
        return self._read(shard, row, column, start + chosen * step, step).view(dtype).reshape(shape[1:])

    def _read(
        self, shard: int, row: int, column: int, start: int = 0, length: int | None = None
    ) -> np.ndarray:
        """Bytes of a member, from ``start``."""
        index = self._indexes[shard]
        buffer = np.empty(int(index.sizes[row, column]) - start if length is None else length, np.uint8)
        at = int(index.offsets[row, column]) + start
        descriptor = self._descriptor(shard)
        try:
            got = os.preadv(descriptor, [buffer.data], at) if len(buffer) else 0
        finally:
            if self._open.get(shard) != descriptor:
                os.close(descriptor)
        if got != len(buffer):
            raise InputError("cut short while in use", file=self._shards[shard].name, remedy=DAMAGED)
        return buffer

    def _descriptor(self, shard: int) -> int:
        if shard in self._open:
            return self._open[shard]
        descriptor = os.open(self.folder / self._shards[shard].name, os.O_RDONLY)
        if len(self._open) < MAX_OPEN:
            self._open.setdefault(shard, descriptor)  # a thread that lost the race closes its own
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()


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
