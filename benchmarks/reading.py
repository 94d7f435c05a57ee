"""The reader of shards against bare `pread`, `webdataset`, `tarfile`, and decoding a wav and a jpg per item.

    python -m benchmarks.reading

One process, on files that the page cache holds; what is compared runs in turn. Our reader and `pread` take
the samples in the same shuffled order, webdataset and tarfile in the tars' own.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import corpus, report
from benchmarks.loading import Files, write_files
from benchmarks.processes import stoppable
from benchmarks.report import Spread, positive
from models.inputs import Normalisation
from models.settings import BACKBONES
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.schema import BackboneInfo, DatasetInfo, SampleMeta, SplitInfo, StreamInfo
from shards.writer import Record, write_shard
from trainers.classification.items import InputSpec
from trainers.data import epoch_order

VALUES = {"25 KB": 12_000, "1.9 MB": 950_000}  # float16 values of a sample, in two arrays
MEDIA = "base media"
OURS, PREAD, WEBDATASET, TARFILE, PER_ITEM = (
    "our reader",
    "pread",
    "webdataset",
    "tarfile",
    "wav + jpg per item",
)
EPOCHS = 10  # of the memory check


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=positive, default=8000, help="of 25 KB (default 8000)")
    parser.add_argument("--large", type=positive, default=400, help="samples of 1.9 MB (default 400)")
    parser.add_argument("--clips", type=positive, default=64, help="clips for the wav + jpg row (default 64)")
    parser.add_argument("--repeats", type=positive, default=5, help="measured repetitions (default 5)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON, markdown and figure."""
    args = parse(argv)
    torch.set_num_threads(1)
    found = report.machine("cpu")
    rows, memory = [], {}
    advice = "nothing is kept: it takes minutes"
    with stoppable(advice), tempfile.TemporaryDirectory(prefix="reading-") as name:
        for kind, samples in zip(VALUES, (args.samples, args.large), strict=True):
            folder = Path(name) / kind.replace(" ", "")
            info = write_features(folder, samples, VALUES[kind])
            rows += _compare(kind, sum(s.bytes for s in info.splits["train"].shards), samples, folder, args.repeats)
            memory[kind] = memory_by_epoch(folder, samples)
        rows += _media(args, Path(name))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "rows": rows, "memory_mb": memory}
    text = _text(args, rows, memory)
    flat = [
        {"samples": row["samples"], "way": row["way"], "samples/s": row["rate"].median}
        | {"GB/s": row["rate"].median * row["bytes"] / 1e9, "our reader over it": row["ours_over_it"].median}
        for row in rows
    ]
    line = [f"{row['samples']}: {row['ours_over_it'].text(2)} times {row['way']}" for row in rows if row["way"] != OURS]
    cells = ["; ".join(line), f"memory over {EPOCHS} epochs: {_growth(memory)}"]
    report.save_folder(args.out, "reading", "Reading", text, record, lambda figure: _draw(figure, rows), flat, cells)
    return 0


def _growth(memory: dict[str, list[float]]) -> str:
    """From the second epoch to the last, per kind of samples."""
    return ", ".join(f"{values[-1] - values[1]:+.1f} MB ({kind})" for kind, values in memory.items())


def write_features(folder: Path, samples: int, values: int, per_shard: int | None = None) -> DatasetInfo:
    """Feature shards of so many samples (None: of about 64 MB), of random tokens: `values` per sample in two arrays."""
    per = per_shard or max(1, 2**25 // values)
    shards = tuple(
        write_shard(folder / f"train-{at:06d}.tar", _records(at, min(at + per, samples), values), root=folder)
        for at in range(0, samples, per)
    )
    split = SplitInfo(samples=samples, present={"audio": samples, "visual": samples}, shards=shards)
    backbone = BackboneInfo(id="random", fingerprint="0" * 64, depth=0, variants=("clean",))
    info = DatasetInfo(kind="features", preprocessing={}, labels=("x",), splits={"train": split}, backbone=backbone)
    info.save(folder)
    return info


def _records(first: int, end: int, values: int) -> Iterator[Record]:
    there = StreamInfo(present=True)
    for i in range(first, end):
        tokens = np.random.default_rng(i).standard_normal((2, 1, values // 2 // 50, 50), np.float32)
        meta = SampleMeta(
            key=f"clip{i:08d}",
            id=f"clip {i}",
            labels=("x",),
            split="train",
            duration=10.0,
            audio=there,
            visual=there,
            source_sha256="0" * 64,
        )
        audio, visual = tokens.astype(np.float16)
        yield meta.key, {"json": meta, "audio.npy": audio, "visual.npy": visual}


def _compare(kind: str, size: int, samples: int, folder: Path, repeats: int) -> list[dict[str, Any]]:
    data = ShardDataset(folder, "train")
    assert len(data.metas) == samples  # as every training has them in memory
    order, spans = epoch_order(hashed(data.keys), 0, 1), _spans(data)
    paths = [str(folder / shard.name) for shard in data.info.splits["train"].shards]
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]

    def pread() -> None:
        for i in order:
            shard, length, at = spans[i]
            os.pread(descriptors[shard], length, at)

    def ours() -> None:
        for i in order:
            data[i]

    ways: dict[str, Callable[[], None]] = {OURS: ours, PREAD: pread, TARFILE: partial(_tarfile, paths)}
    if find_spec("webdataset"):
        ways[WEBDATASET] = partial(_webdataset, paths)
    taken = report.alternate({name: partial(_rate, samples, way) for name, way in ways.items()}, repeats)
    for descriptor in descriptors:
        os.close(descriptor)
    return _rows(kind, size / samples, taken)


def _rows(kind: str, size: float | None, taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "samples": kind,
            "bytes": size,
            "way": way,
            "rate": Spread.of(rates),
            "ours_over_it": report.ratios(taken[OURS], rates),
        }
        for way, rates in taken.items()
    ]


def _rate(samples: int, way: Callable[[], None]) -> float:
    start = time.perf_counter()
    way()
    return samples / (time.perf_counter() - start)


def _spans(data: ShardDataset) -> list[tuple[int, int, int]]:
    """(shard, bytes, offset) of every sample, json and arrays: the same bytes that our reader takes."""
    return list(zip(data.table.shard, data.table.size, data.table.begin, strict=True))


def _tarfile(paths: Sequence[str]) -> None:
    """Every member's bytes, headers parsed; the arrays are not made."""
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                tar.extractfile(member).read()  # type: ignore[union-attr]


def _webdataset(paths: Sequence[str]) -> None:
    """Samples with their arrays, made by numpy."""
    import webdataset

    for sample in webdataset.WebDataset(list(paths), shardshuffle=False, empty_check=False):
        for name, value in sample.items():
            if name.endswith(".npy"):
                np.load(io.BytesIO(value), allow_pickle=False)


def memory_by_epoch(folder: Path, samples: int) -> list[float]:
    """Resident MB of this process after each of ten shuffled epochs."""
    data, after = ShardDataset(folder, "train"), []
    assert len(data.metas) == samples
    for epoch in range(EPOCHS):
        for i in epoch_order(hashed(data.keys), 0, epoch):
            data[i]
        after.append(round(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6, 1))
    return after


def _media(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Log-mel and a picture of a clip of 10 s: from shards; from a wav and a jpg, as CAV-MAE's loader."""
    size = BACKBONES["base"]
    corpus.write_media(folder / "media", "base", args.clips)
    data = ShardDataset(folder / "media", "train")
    assert len(data.metas) == args.clips
    items = Files(
        write_files(folder / "files", size, args.clips),
        InputSpec(size.target_length, size.image_size, Normalisation()),
    )
    order = epoch_order(hashed(data.keys), 0, 1)

    def ours() -> float:
        passes = 20
        start = time.perf_counter()
        for _ in range(passes):
            for i in order:
                data.rows(i, lambda name, shape: shape[0] // 2 if name == "frames" else None)
        return passes * args.clips / (time.perf_counter() - start)

    def per_item() -> float:
        start = time.perf_counter()
        for i in order:
            items[i]
        return args.clips / (time.perf_counter() - start)

    sample = data.rows(0, lambda name, shape: 0 if name == "frames" else None)
    bytes_read = float(sum(array.nbytes for array in sample.arrays.values()))
    return _rows(MEDIA, bytes_read, report.alternate({OURS: ours, PER_ITEM: per_item}, args.repeats))


def _text(args: argparse.Namespace, rows: list[dict[str, Any]], memory: dict[str, list[float]]) -> str:
    cells = [
        [
            row["samples"],
            row["way"],
            row["rate"].text(4),
            f"{row['rate'].median * row['bytes'] / 1e9:.2f}" if row["way"] != PER_ITEM else "",
            row["ours_over_it"].text(),
        ]
        for row in rows
    ]
    flat = "; ".join(f"{kind}: {', '.join(f'{mb:.0f}' for mb in values)}" for kind, values in memory.items())
    return (
        f"Page cache warm, {args.repeats} repetitions in turn, median (least-greatest). Wanted: 0.6 of "
        "pread, twice webdataset, 50 times a wav and a jpg per item (there the reader alone is compared: "
        "a log-mel and a picture as stored, against both made and normalised).\n\n"
        + report.table(["samples", "way", "samples/s", "GB/s", "our reader over it"], cells)
        + f"\n\nResident MB after each of {EPOCHS} epochs: {flat}."
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    kinds = [*VALUES, MEDIA]
    for axes, kind in zip(figure.subplots(len(kinds), 1), kinds, strict=True):
        own = [row for row in rows if row["samples"] == kind]
        axes.barh([row["way"] for row in own], [row["rate"].median for row in own])
        axes.set(title=kind, xlabel="samples per second", xscale="log")
        axes.invert_yaxis()


if __name__ == "__main__":
    raise SystemExit(main())
