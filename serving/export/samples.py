"""What a dataset's shards hold, sample by sample: an index as parquet, counts, and the layout of the arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
from pyarrow import parquet

from shards.atomic import replacing
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SampleMeta, ShardInfo

INDEX = "samples.parquet"
TEXT = pyarrow.string()
SCHEMA = pyarrow.schema(
    {
        "key": TEXT,
        "id": TEXT,
        "split": TEXT,
        "labels": pyarrow.list_(TEXT),
        "group": TEXT,
        "duration": pyarrow.float64(),
        "audio": TEXT,
        "visual": TEXT,
        "shard": TEXT,
    }
)
MEANINGS = {
    "key": "name of the sample in its shard, unique in the dataset",
    "id": "the sample as its manifest names it",
    "split": "train, val, test or another",
    "labels": "one class or more",
    "group": "samples of one group are never divided between splits",
    "duration": "seconds, of the longer stream",
    "audio": "'present', or why the sound is not there",
    "visual": "'present', or why the picture is not there",
    "shard": "the tar that the sample is in",
}


@dataclass(frozen=True)
class ArraySpec:
    """An array that samples have: its type, and its shape after the first axis, which may vary."""

    dtype: str
    rest: tuple[int, ...]


@dataclass
class Survey:
    """What was counted while a dataset's samples were gone through.

    Attributes:
        labels: samples by (split, label); a sample counts under each of its labels.
        seconds: of all samples, by split.
        arrays: by name of the member, such as "audio.npy", in the order of names.
    """

    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    arrays: dict[str, ArraySpec] = field(default_factory=dict)

    def count(self, meta: SampleMeta) -> None:
        """Count one sample."""
        self.labels.update((meta.split, label) for label in meta.labels)
        self.seconds[meta.split] += meta.duration  # type: ignore[assignment]


def survey(folder: Path, info: DatasetInfo, out: Path) -> Survey:
    """Go through all samples, a shard at a time, and write the index of them to ``out``.

    Raises:
        InputError: a damaged shard.
    """
    found = Survey()
    with replacing(out) as temporary, parquet.ParquetWriter(temporary, SCHEMA) as writer:
        for name, shard in ((name, shard) for name, split in info.splits.items() for shard in split.shards):
            data = one_shard(folder, info, name, shard)
            metas = list(data.metas)
            for meta in metas:
                found.count(meta)
            _learn_arrays(data, metas, found)
            writer.write_table(pyarrow.Table.from_pylist([_row(meta, shard) for meta in metas], SCHEMA))
            data.close()
    found.arrays = dict(sorted(found.arrays.items()))
    return found


def one_shard(folder: Path, info: DatasetInfo, split: str, shard: ShardInfo) -> ShardDataset:
    """The samples of one shard; no other's index is in memory."""
    return ShardDataset(folder, split, info=info.only(split, shard))


def _learn_arrays(data: ShardDataset, metas: Sequence[SampleMeta], found: Survey) -> None:
    """The layout of arrays that no shard before had; a few samples tell, whatever is absent of them."""
    seen: set[tuple[bool, bool]] = set()
    for i, meta in enumerate(metas):
        there = (meta.audio.present, meta.visual.present)
        if there not in seen:
            seen.add(there)
            for name, array in data[i].arrays.items():
                found.arrays.setdefault(f"{name}.npy", ArraySpec(str(array.dtype), array.shape[1:]))


def _row(meta: SampleMeta, shard: ShardInfo) -> dict[str, object]:
    streams = {m: "present" if (s := getattr(meta, m)).present else str(s.cause) for m in ("audio", "visual")}
    plain = {name: getattr(meta, name) for name in ("key", "id", "split", "group", "duration")}
    return {**plain, **streams, "labels": list(meta.labels), "shard": shard.name}


def shards_of(info: DatasetInfo) -> Iterator[ShardInfo]:
    """All shards of a dataset, split after split."""
    for split in info.splits.values():
        yield from split.shards
