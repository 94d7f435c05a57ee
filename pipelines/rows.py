"""Rows of a manifest as they were planned into shards: Arrow files, one record batch a shard, mapped, never changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.manifest import MEDIA, Clip, joined
from shards.atomic import replacing
from shards.errors import InputError
from shards.store import Place, version_of

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "key", *MEDIA)),
        ("labels", pa.list_(pa.string())),
        *((name, pa.string()) for name in ("split", "group")),
        *((name, pa.float64()) for name in ("start", "duration")),
        ("digest", pa.uint64()),  # of the row
    ]
)


def inside(path: str | None, base: Place) -> str | None:
    """A path of the manifest's as it stands there: relative to the manifest's folder if it lies in it."""
    return None if path is None else path.removeprefix(f"{base}/")


class RowsWriter:
    """Writes shards' rows, one batch each."""

    def __init__(self, file: pa.NativeFile, base: Place):
        self._out, self._base, self.batches = pa.ipc.new_file(file, SCHEMA), base, 0

    def write(self, clips: Sequence[Clip], digests: Sequence[int]) -> int:
        """The number of the batch that they became."""
        rows = [
            {**vars(clip), **{name: inside(getattr(clip, name), self._base) for name in MEDIA}, "digest": digest}
            for clip, digest in zip(clips, digests, strict=True)
        ]
        self._out.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        self.batches += 1
        return self.batches - 1

    def close(self) -> None:
        """Finish the file."""
        self._out.close()


@contextmanager
def writing(path: Place, base: Place) -> Iterator[RowsWriter]:
    """A writer of ``path``, which appears whole or not at all; not if nothing is written."""
    with replacing(path) as temporary:
        with pa.OSFile(str(temporary), "wb") as file:
            writer = RowsWriter(file, base)
            yield writer
            writer.close()
        if not writer.batches:
            temporary.unlink()


@lru_cache(maxsize=16)
def _opened(path: Place, version: str) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)) if isinstance(path, Path) else path.open())


def read_batch(path: Place, number: int) -> pa.RecordBatch:
    """One shard's rows, mapped.

    Raises:
        InputError: the file is not there, or damaged.
    """
    try:
        batch = _opened(path, version_of(path)).get_batch(number)
        batch.validate()
    except (OSError, pa.ArrowException, IndexError, ValueError) as error:
        remedy = "put it back, or ingest into another folder"
        raise InputError(f"the plan's rows can't be read: {error}", file=path, remedy=remedy) from None
    return batch


def clips_of(batch: pa.RecordBatch, base: Place) -> list[Clip]:
    """The clips of a batch, with the paths as the manifest in `base` means them."""
    found = []
    for row in batch.drop_columns("digest").to_pylist():
        media = {name: None if row[name] is None else joined(base, row[name]) for name in MEDIA}
        found.append(Clip(**{**row, **media, "labels": tuple(row["labels"])}))
    return found


def digests_of(batch: pa.RecordBatch) -> np.ndarray:
    """Digests of the rows, uint64 [rows]."""
    return batch["digest"].to_numpy()
