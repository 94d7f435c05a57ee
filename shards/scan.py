"""The columns of `shards.table` from the shards themselves: from headers and jsons, every one of them checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pydantic

from shards.brought import brought
from shards.errors import InputError
from shards.index import BLOCK, ShardIndex, parse_header, read_index
from shards.schema import DatasetInfo, SampleMeta, ShardInfo, SplitInfo
from shards.store import Place, each
from shards.table import FACTS, PLACES, SplitTable, facts, index_path, joined, places, rebatched, write_table

DAMAGED = "run 'avmend shards verify' on the dataset, and make the shard again"


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


def _checked_index(path: Path, shard: ShardInfo) -> ShardIndex:
    index = read_index(path)
    size = path.stat().st_size
    if (size, len(index.keys)) != (shard.bytes, shard.samples):
        found, wanted = f"{len(index.keys)} samples in {size} bytes", f"{shard.samples} in {shard.bytes}"
        raise InputError(f"{found}, but dataset.json says {wanted}", file=path, remedy=DAMAGED)
    return index


def scanned_places(path: Path, shard: ShardInfo, number: int = 0) -> pa.RecordBatch:
    """Where the samples of a shard lie, from its headers alone.

    Raises:
        InputError: missing, damaged, or not of the size or count in dataset.json.
    """
    index = _checked_index(path, shard)
    begins = index.offsets[:, 0]
    return places(number, index.keys, begins, (index.offsets + index.sizes).max(axis=1) - begins)


def scanned_table(folder: Path, split: SplitInfo) -> SplitTable:
    """The table of a split from its shards; their jsons are read when a column wants them.

    Raises:
        InputError: as `scanned_places`.
    """
    found = [scanned_places(folder / shard.name, shard, number) for number, shard in enumerate(split.shards)]
    batches = list(rebatched(found, PLACES))

    def described() -> list[pa.RecordBatch]:
        parts = (facts(scanned_metas(folder / s.name, s, place)) for s, place in zip(split.shards, found, strict=True))
        return list(rebatched(parts, FACTS))

    return SplitTable(batches, described)


def scanned_metas(path: Path, shard: ShardInfo, place: pa.RecordBatch) -> Iterator[SampleMeta]:
    """The jsons of a shard's samples.

    Raises:
        InputError: not of the schema; names the sample.
    """
    with path.open("rb") as file:
        for key, begin in zip(place["key"].to_pylist(), place["begin"].to_pylist(), strict=True):
            _, length = parse_header(os.pread(file.fileno(), BLOCK, begin - BLOCK), begin - BLOCK)
            yield parse_meta(shard.name, key, os.pread(file.fileno(), length, begin))


def shard_part(path: Path, shard: ShardInfo) -> pa.RecordBatch:
    """All columns of one shard's samples, read from it.

    Raises:
        InputError: damaged.
    """
    place = scanned_places(path, shard)
    return joined(place, facts(scanned_metas(path, shard, place)))


def part_of(folder: Place, shard: ShardInfo) -> pa.RecordBatch:
    """`shard_part` of a dataset's shard, wherever it is.

    Raises:
        InputError: damaged.
    """
    with brought(folder, shard) as here:
        return shard_part(here / shard.name, shard)


def write_tables(
    folder: Place, info: DatasetInfo, part: Callable[[Place, ShardInfo], pa.RecordBatch] = part_of
) -> None:
    """Write the table of every split of a dataset.

    Args:
        part: the folder and what dataset.json says of a shard to its rows.

    Raises:
        InputError: a damaged shard.
    """
    for name, split in info.splits.items():
        rows = each(partial(part, folder), split.shards, folder)
        write_table(index_path(folder, name), split, rows)
