"""One step of `benchmarks.scale` in a process of its own, on whichever checkout is on the path; prints a JSON line.

Only what both versions of the code have is called here.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shards.errors import InputError


def manifest_rows(folder: Path, rows: int) -> None:
    """A manifest of so many clips that are not there, and of one that is."""
    sound = folder / "sound.wav"
    if not sound.exists():
        import wave

        with wave.open(str(sound), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(3200))
    with (folder / "manifest.csv").open("w") as file:
        file.write("id,path,label,split\nsound,sound.wav,x,train\n")
        file.writelines(f"street/{i:08d},clips/{i:08d}.mp4,x,{'train' if i % 10 else 'test'}\n" for i in range(1, rows))


def add_row(folder: Path, rows: int) -> None:
    """One more row at the manifest's end."""
    with (folder / "manifest.csv").open("a") as file:
        file.write(f"street/more-{time.time_ns()},clips/more.mp4,x,train\n")


def ingest(folder: Path, rows: int) -> None:
    """Ingest it, or find nothing to do."""
    from pipelines.ingest import ingest
    from pipelines.settings import IngestConfig

    with contextlib.suppress(InputError):
        ingest(folder / "manifest.csv", folder / "out", IngestConfig(workers=0, samples_per_shard=1000))


def draw(folder: Path, rows: int) -> None:
    """Media shards of tiny samples, 1,000 each, with dataset.json."""
    import numpy as np

    from shards.schema import DatasetInfo, SampleMeta, SplitInfo, StreamInfo
    from shards.writer import write_shard

    there, sound = StreamInfo(present=True), np.zeros((1, 128), np.float16)
    frames = np.zeros((1, 2, 2, 3), np.uint8)

    def record(i: int):
        meta = SampleMeta(
            key=f"clip{i:08d}", id=f"clip {i}", labels=(f"l{i % 50}",), split="train", duration=10.0, audio=there,
            visual=there, source_sha256="0" * 64, frame_times=(0.0,),
        )  # fmt: skip
        return meta.key, {"json": meta, "audio.npy": sound, "frames.npy": frames}

    shards = tuple(
        write_shard(folder / f"media/train-{at // 1000:06d}.tar", map(record, range(at, at + 1000)), root=folder)
        for at in range(0, rows, 1000)
    )
    split = SplitInfo(samples=rows, present={"audio": rows, "visual": rows}, shards=shards)
    labels = tuple(sorted(f"l{i}" for i in range(50)))
    DatasetInfo(kind="media", preprocessing={}, labels=labels, splits={"train": split}).save(folder)


def tables(folder: Path, rows: int) -> None:
    """The tables of ``index``, where this version has them."""
    try:
        from shards.scan import write_tables
    except ImportError:
        return
    from shards.schema import DatasetInfo

    write_tables(folder, DatasetInfo.load(folder))


def open_split(folder: Path, rows: int) -> None:
    """Open the split, and know its labels and which sample has what, as training does."""
    from shards.reader import ShardDataset

    data = ShardDataset(folder, "train")
    if hasattr(data, "table"):
        assert len(data.column("labels")) == rows
        assert data.present.all()
    else:
        assert all(meta.labels and meta.audio.present for meta in data.metas)
    KEPT.append(data)


def verify(folder: Path, rows: int) -> None:
    """Read every byte and compare it with dataset.json."""
    from shards.verify import verify

    assert verify(folder) == []


def epoch(folder: Path, rows: int) -> None:
    """The order of one epoch."""
    from trainers.data import epoch_order

    if "ids" not in inspect.signature(epoch_order).parameters:
        KEPT.append(epoch_order(rows, 0, 1))  # type: ignore[arg-type]
        return
    from trainers.draws import hashed

    ids = hashed(f"clip{i:08d}" for i in range(rows))
    KEPT.extend([ids, epoch_order(ids, 0, 1)])


KEPT: list[object] = []  # what stays in memory until it is measured
STEPS: dict[str, Callable[[Path, int], None]] = {
    step.__name__: step for step in (manifest_rows, add_row, ingest, draw, tables, open_split, verify, epoch)
}


def private() -> float:
    """MB of this process alone: neither shared nor mapped files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


def main() -> None:
    step, folder, rows = STEPS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    import numpy  # noqa: F401
    import pyarrow  # noqa: F401

    with contextlib.suppress(ImportError):
        import pipelines.ingest  # noqa: F401
        import shards.verify  # noqa: F401
    peak, own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, private()
    start, used = time.perf_counter(), time.process_time()
    step(folder, rows)
    record = {"seconds": time.perf_counter() - start, "processor": time.process_time() - used}
    record["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - peak
    record["private_mb"] = private() - own
    print(json.dumps(record))


if __name__ == "__main__":
    main()
