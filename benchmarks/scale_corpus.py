"""An ingestion of very many tiny clips for `benchmarks.scale`, drawn as columns instead of decoded.

A sample has one second of sound and one frame, of which the digits of id, key and label change, and the checksums of
its headers. The rows of the index are made from the same columns; those of the first shard are compared with what
reading it gives. Every hundredth clip is in quarantine. Beyond `WHOLE` rows a shard is a hole of its size (its
sha256 is none): all but verifying do not ask.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.incremental_plan import KeptPlan, kept_work
from pipelines.resume import part_path, write_ledger
from pipelines.rows import read_batch
from pipelines.running_stats import Moments
from pipelines.settings import IngestConfig
from pipelines.shard_job import Quarantined, ShardResult
from shards.causes import Cause
from shards.index import BLOCK, RECORD
from shards.scan import shard_part
from shards.schema import MODALITIES, SampleMeta, ShardInfo, StreamInfo
from shards.table import FACTS, PLACES, joined, write_part
from shards.writer import write_shard

WHOLE = 1_000_000  # rows up to which nothing is a hole
DIGITS, LABELS = 9, 50
SHARD = 1000  # planned clips
SPLITS = ("valid", "train")  # of every tenth clip, and of the others
FAILS = 100  # every so-manieth clip
CHECKSUM = slice(148, 156)  # of a tar header: six octal digits, a null, a space
CONFIG = IngestConfig(workers=0, samples_per_shard=SHARD)


def write_manifest(folder: Path, rows: int) -> None:
    """So many clips."""
    with (folder / "manifest.csv").open("wb") as file:
        file.write(b"id,path,label,split\n")
        for begin in range(0, rows, 1 << 16):
            numbers = np.arange(begin, min(begin + (1 << 16), rows))
            splits = np.array([np.frombuffer(name.encode(), np.uint8) for name in SPLITS])[_is_train(numbers)]
            comma, path = _bytes(",", numbers, 0), _bytes(",clips/", numbers, DIGITS, ".mp4")
            columns = [_ids(numbers), path, comma, _labels(numbers), comma, splits, _bytes("\n", numbers, 0)]
            file.write(np.concatenate(columns, axis=1).tobytes())


def _is_train(numbers: np.ndarray) -> np.ndarray:
    return (numbers % 10 != 0).astype(np.int64)


def _bytes(before: str, numbers: np.ndarray, digits: int, after: str = "") -> np.ndarray:
    """Numbers in so many digits between two texts, uint8 [numbers, bytes]."""
    figures = numbers[:, None] // 10 ** np.arange(digits)[::-1] % 10 + ord("0")
    parts = [np.tile(np.frombuffer(text.encode(), np.uint8), (len(numbers), 1)) for text in (before, after)]
    return np.concatenate([parts[0], figures.astype(np.uint8), parts[1]], axis=1)


def _ids(numbers: np.ndarray) -> np.ndarray:
    """An id is its own key."""
    return _bytes("clip", numbers, DIGITS)


def _labels(numbers: np.ndarray) -> np.ndarray:
    """All of them in either split."""
    return _bytes("label", numbers // 10 % LABELS, 2)


def _texts(content: np.ndarray) -> pa.Array:
    """Rows of bytes as a column."""
    ends = np.arange(len(content) + 1, dtype=np.int32) * content.shape[1]
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(content))]
    return pa.Array.from_buffers(pa.string(), len(content), buffers)


def _lists(content: np.ndarray) -> pa.ListArray:
    """Likewise, each a list of one."""
    return pa.ListArray.from_arrays(np.arange(len(content) + 1, dtype=np.int32), _texts(content))


def draw_shards(folder: Path, rows: int) -> None:
    """What finished workers leave behind, of all shards of the plan."""
    out = folder / "out"
    kept = KeptPlan.model_validate_json((out / "ingest.json").read_bytes())
    for name in ("media", "ledger"):
        (out / name).mkdir()
    for shard in kept_work(kept, out, folder):
        content = np.frombuffer(read_batch(shard.rows, shard.batch)["id"].buffers()[2], np.uint8)
        figures = content[: shard.clips * (4 + DIGITS)].reshape(shard.clips, -1)[:, 4:].astype(np.int64) - ord("0")
        _draw_shard(out, shard.name, shard.digest, figures @ 10 ** np.arange(DIGITS)[::-1], whole=rows <= WHOLE)


def _draw_shard(out: Path, name: str, digest: str, numbers: np.ndarray, whole: bool) -> None:
    good, bad = numbers[numbers % FAILS != 0], numbers[numbers % FAILS == 0]
    split = name.rsplit("-", 1)[0]
    block = np.frombuffer(_sample(split, out), np.uint8)
    path, used = out / "media" / f"{name}.tar", len(good) * len(block)
    size = -(-(used + 2 * BLOCK) // RECORD) * RECORD
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    if whole:
        content = _filled(block, good).tobytes() + bytes(size - used)
        sha256 = hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
    else:
        path.touch()
        os.truncate(path, size)
    shard = ShardInfo(name=f"media/{name}.tar", samples=len(good), bytes=size, sha256=sha256)
    part = _rows(good, block.tobytes())
    if whole and name.endswith("-000000"):
        assert part.equals(shard_part(path, shard)), "the columns that were drawn are not those of the shard"
    write_part(part_path(out, name), part)
    n = len(good)
    sound = Moments(samples=n, count=128 * n, total=(0.0,), squares=(1.0,), total_rest=(0.0,), squares_rest=(0.0,))
    picture = Moments(samples=n, count=4 * n, total=(1.0,) * 3, squares=(1.0,) * 3)
    result = ShardResult(
        digest=digest,
        shard=shard,
        present={"audio": n, "visual": n},
        quarantined=tuple(map(_failure, bad.tolist())),
        audio=sound if split == "train" else Moments(),
        visual=picture if split == "train" else Moments(),
    )
    write_ledger(result, out, name)


def _failure(number: int) -> Quarantined:
    path = f"clips/{number:0{DIGITS}d}.mp4"
    return Quarantined(
        id=f"clip{number:0{DIGITS}d}",
        path=path,
        stage="decode",
        error=Cause.MISSING_FILE,
        message=f"{path} does not exist",
        remedy="correct the path in the manifest (paths are relative to it), or fetch the file",
    )


@cache
def _sample(split: str, out: Path) -> bytes:
    """Sample 0 in a tar."""
    there, path = StreamInfo(present=True), out / ".sample.tar"
    key, label = (texts(np.zeros(1, int)).tobytes().decode() for texts in (_ids, _labels))
    meta = SampleMeta(
        key=key, id=key, labels=(label,), split=split, duration=10.0, audio=there, visual=there,
        source_sha256="0" * 64, frame_times=(0.0,),
    )  # fmt: skip
    sound, picture = np.zeros((1, 128), np.float16), np.zeros((1, 2, 2, 3), np.uint8)
    write_shard(path, [(key, {"json": meta, "audio.npy": sound, "frames.npy": picture})])
    content = path.read_bytes()
    path.unlink()
    return content[: len(content.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK]


def _filled(block: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The bytes of samples, uint8 [samples, bytes]."""
    out, content = np.tile(block, (len(numbers), 1)), block.tobytes()
    for texts in (_ids, _labels):
        old, new = texts(np.zeros(1, int)).tobytes(), texts(numbers)
        for at in _all(content, old):
            out[:, at : at + len(old)] = new
    for at in _headers(content):
        header = out[:, at : at + BLOCK]
        header[:, CHECKSUM] = ord(" ")
        sums = header.sum(axis=1, dtype=np.int64)
        header[:, CHECKSUM] = np.array([list(b"%06o\0 " % value) for value in sums.tolist()], np.uint8)
    return out


def _all(content: bytes, wanted: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(wanted, at)]


def _headers(content: bytes) -> list[int]:
    return [at - 257 for at in _all(content, b"ustar\0")]


def _rows(numbers: np.ndarray, content: bytes) -> pa.RecordBatch:
    """What the index says of a shard's samples."""
    n, ids, last = len(numbers), _texts(_ids(numbers)), _headers(content)[-1]
    size = last + int(content[last + 124 : last + 135], 8)  # from the first member's bytes to the end of the last's
    begins = np.arange(n, dtype=np.int64) * len(content) + BLOCK
    none = pa.nulls(n, pa.string())
    facts = [ids, _lists(_labels(numbers)), none, pa.array(np.full(n, 10.0)), *[none] * len(MODALITIES)]
    place = pa.record_batch([np.zeros(n, np.int32), begins, np.full(n, size), ids], schema=PLACES)
    return joined(place, pa.record_batch(facts, schema=FACTS))
