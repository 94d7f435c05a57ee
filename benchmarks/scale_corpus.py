"""An ingestion of very many tiny clips for `benchmarks.scale`, drawn instead of decoded: a plan that planning made gets
its shards, ledgers and rows of the index.

A shard is written as columns: a sample of one second and one frame, of which the digits of id, key and label change,
and the checksums of its headers. Its rows of the index are made from the same columns; of the first shard they are
compared with those that reading it gives. Beyond `WHOLE` rows a shard is a hole of its size (its sha256 is none): all
but verifying only looks at the size. Every hundredth clip is in quarantine.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.incremental_plan import KeptPlan, kept_work, rows_folder
from pipelines.resume import part_path, write_ledger
from pipelines.rows import read_batch
from pipelines.running_stats import Moments
from pipelines.shard_job import Quarantined, ShardResult
from shards.causes import Cause
from shards.index import BLOCK, RECORD
from shards.scan import shard_part
from shards.schema import SampleMeta, ShardInfo, StreamInfo
from shards.table import FACTS, MODALITIES, joined, places, write_part
from shards.writer import write_shard

WHOLE = 1_000_000  # rows up to which shards hold bytes
DIGITS, LABELS = 9, 50
FAILS = 100  # every so-manieth clip
CHECKSUM = slice(148, 156)  # of a tar header: six octal digits, a null, a space


def clip_id(number: int) -> str:
    """Of fixed width; it is its own key."""
    return f"clip{number:0{DIGITS}d}"


def label_of(number: int) -> str:
    """One of `LABELS`; all of them in either split."""
    return f"label{number // 10 % LABELS:02d}"


def write_manifest(folder: Path, rows: int) -> None:
    """So many clips, one of ten in the test split."""
    with (folder / "manifest.csv").open("w") as file:
        file.write("id,path,label,split\n")
        file.writelines(
            f"{clip_id(i)},clips/{i:0{DIGITS}d}.mp4,{label_of(i)},{'train' if i % 10 else 'test'}\n" for i in range(rows)
        )


def draw_shards(out: Path, rows: int) -> None:
    """What finished workers leave behind, of all shards of the plan of ``out``."""
    kept = KeptPlan.model_validate_json((out / "ingest.json").read_bytes())
    for shard in kept_work(kept, out, out.parent):
        ids = read_batch(shard.rows, shard.batch)["id"].to_pylist()
        numbers = np.array([int(name[-DIGITS:]) for name in ids])
        _draw_shard(out, shard.name, shard.digest, numbers, whole=rows <= WHOLE)
    assert rows_folder(out).exists()


def _draw_shard(out: Path, name: str, digest: str, numbers: np.ndarray, whole: bool) -> None:
    good, bad = numbers[numbers % FAILS != 0], numbers[numbers % FAILS == 0]
    split = name.rsplit("-", 1)[0]
    block = _sample(split, out)
    path, used = out / "media" / f"{name}.tar", len(good) * len(block)
    path.parent.mkdir(exist_ok=True)
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
    part = _rows(good, block)
    if whole and name.endswith("-000000"):
        assert part.equals(shard_part(path, shard)), "the columns that were drawn are not those of the shard"
    (out / "ledger").mkdir(exist_ok=True)
    write_part(part_path(out, name), part)
    values = Moments(samples=len(good), count=128 * len(good), total=(0.0,), squares=(1.0 * len(good),))
    colours = Moments(samples=len(good), count=4 * len(good), total=(1.0,) * 3, squares=(1.0,) * 3)
    result = ShardResult(
        digest=digest,
        shard=shard,
        present={"audio": len(good), "visual": len(good)},
        absent={},
        quarantined=tuple(map(_failure, bad.tolist())),
        **({"audio": values, "visual": colours} if split == "train" else {}),
    )
    write_ledger(result, out, name)


def _failure(number: int) -> Quarantined:
    path = f"clips/{number:0{DIGITS}d}.mp4"
    message, remedy = f"{path} does not exist", "correct the path in the manifest, or fetch the file"
    return Quarantined(
        id=clip_id(number), path=path, stage="decode", error=Cause.MISSING_FILE, message=message, remedy=remedy
    )


@cache
def _sample(split: str, out: Path) -> np.ndarray:
    """The bytes of sample 0 in a tar, uint8 [bytes]."""
    there = StreamInfo(present=True)
    meta = SampleMeta(
        key=clip_id(0), id=clip_id(0), labels=(label_of(0),), split=split, duration=10.0, audio=there, visual=there,
        source_sha256="0" * 64, frame_times=(0.0,),
    )  # fmt: skip
    arrays = {"audio.npy": np.zeros((1, 128), np.float16), "frames.npy": np.zeros((1, 2, 2, 3), np.uint8)}
    path = out / ".sample.tar"
    write_shard(path, [(meta.key, {"json": meta, **arrays})])
    content = path.read_bytes()
    path.unlink()
    return np.frombuffer(content[: len(content.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK], np.uint8)


def _filled(block: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The bytes of samples, uint8 [samples, bytes]."""
    out, content = np.tile(block, (len(numbers), 1)), block.tobytes()
    digits = numbers[:, None] // 10 ** np.arange(DIGITS)[::-1] % 10
    for at in _all(content, clip_id(0).encode()):
        out[:, at + len("clip") : at + len(clip_id(0))] += digits.astype(np.uint8)
    for at in _all(content, label_of(0).encode()):
        label = (numbers // 10 % LABELS)[:, None] // np.array([10, 1]) % 10
        out[:, at + len("label") : at + len(label_of(0))] += label.astype(np.uint8)
    for at in _all(content, b"ustar\0"):
        header = out[:, at - 257 : at - 257 + BLOCK]
        header[:, CHECKSUM] = ord(" ")
        sums = header.sum(axis=1, dtype=np.int64)
        header[:, CHECKSUM] = np.array([list(b"%06o\0 " % value) for value in sums.tolist()], np.uint8)
    return out


def _all(content: bytes, wanted: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(wanted, at)]


def _rows(numbers: np.ndarray, block: np.ndarray) -> pa.RecordBatch:
    """What the index says of a shard's samples."""
    n, content = len(numbers), block.tobytes()
    ids = pa.array([clip_id(i) for i in numbers.tolist()])
    last = _all(content, b"ustar\0")[-1] - 257  # header of the last member
    size = last + BLOCK + int(content[last + 124 : last + 135], 8) - BLOCK
    begins = np.arange(n, dtype=np.int64) * len(block) + BLOCK
    labels = pa.array([[label_of(i)] for i in numbers.tolist()])
    causes = [pa.nulls(n, pa.string())] * len(MODALITIES)
    group, duration = pa.nulls(n, pa.string()), np.full(n, 10.0)
    fact = pa.record_batch([ids, labels, group, pa.array(duration), *causes], schema=FACTS)
    return joined(places(0, ids.to_pylist(), begins, np.full(n, size)), fact)
