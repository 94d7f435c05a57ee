"""Shards read through (`shards.streaming`) against samples by position, bare webdataset, and a storage far away.

    python -m benchmarks.streaming

Local: one process, files that the page cache holds, what is compared in turn. Our reader takes the samples in a
shuffled order; so does a bare `webdataset` with a shuffle buffer of the same size and `numpy.load` to decode.
Far away: a server that holds every answer back. Each epoch begins with an empty cache that has room for a quarter of
the shards, and whoever takes a batch is busy with it for a fixed time, without needing the processor.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.processes import stoppable
from benchmarks.reading import VALUES, write_features
from benchmarks.report import Spread, positive
from benchmarks.slow_store import slow_store
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.scan import write_tables
from shards.stream_cache import ShardCache
from shards.stream_order import StreamOrder
from shards.streaming import AHEAD, StreamDataset
from trainers.config import LANES, SHUFFLE_BUFFER
from trainers.data import epoch_order
from trainers.streams import Lanes, shuffled_order

STREAM, POSITION, BARE = "read through", "by position", "webdataset"
MEMBERS = ("audio.npy", "visual.npy")
LATENCIES = (0, 20, 100)  # ms
BATCH, BUSY = 16, 0.1  # samples; seconds that a batch keeps its taker busy
PER_SHARD = 80  # of 25 KB, far away: 2 MB, so that requests weigh more than bytes


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=positive, default=4000, help="of 25 KB, on the local disk (default 4000)")
    parser.add_argument("--large", type=positive, default=200, help="samples of 1.9 MB (default 200)")
    parser.add_argument("--far", type=positive, default=2400, help="samples of 25 KB, far away (default 2400)")
    parser.add_argument("--repeats", type=positive, default=5, help="measured repetitions of local reading (default 5)")
    parser.add_argument("--epochs", type=positive, default=2, help="measured epochs of each latency (default 2)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON, markdown and figure."""
    args = parse(argv)
    torch.set_num_threads(1)
    found = report.machine("cpu")
    local: list[dict[str, Any]] = []
    with stoppable("nothing is kept: it takes minutes"), tempfile.TemporaryDirectory(prefix="streaming-") as name:
        for kind, samples in zip(VALUES, (args.samples, args.large), strict=True):
            local += _local(kind, _dataset(Path(name) / kind.replace(" ", ""), samples, VALUES[kind]), args.repeats)
        far = _far(_dataset(Path(name) / "far", args.far, VALUES["25 KB"], PER_SHARD), args.epochs)
    found["load_after"] = round(os.getloadavg()[0], 2)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "local": local, "far": far}
    flat = [{"samples": r["samples"], "way": r["way"], "samples/s": r["rate"].median} for r in local]
    line = [f"{r['samples']}: {r['stream_over_it'].text(2)} times {r['way']}" for r in local if r["way"] != STREAM]
    waits = [f"{r['latency_ms']} ms: {100 * r['waiting'].median:.1f} %" for r in far if r["ahead"]]
    cells = ["; ".join(line), f"waiting for shards, {', '.join(waits)}"]
    text = _text(args, found, local, far)
    report.save_folder(args.out, "streaming", "Streaming", text, record, lambda f: _draw(f, local, far), flat, cells)
    return 0


def _dataset(folder: Path, samples: int, values: int, per_shard: int | None = None) -> Path:
    write_tables(folder, write_features(folder, samples, values, per_shard))
    return folder


def _order(data: StreamDataset, epoch: int) -> StreamOrder:
    ids, lanes = hashed(data.keys), Lanes(LANES, SHUFFLE_BUFFER)
    return shuffled_order(data, ids, lanes, np.arange(len(data)), 0, epoch)


def _local(kind: str, folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Samples per second of every way, and ours over each, round by round."""
    streamed, by_position = StreamDataset(folder, "train"), ShardDataset(folder, "train")
    order, positions = _order(streamed, 1), epoch_order(hashed(by_position.keys), 0, 1)
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        STREAM: lambda: streamed.read(order, MEMBERS),
        POSITION: lambda: (by_position[i] for i in positions),
        BARE: lambda: _bare([str(folder / name.name) for name in streamed.info.splits["train"].shards]),
    }

    def rate(way: Callable[[], Iterator[Any]]) -> float:
        start = time.perf_counter()
        count = sum(1 for _ in way())
        assert count == len(order)
        return count / (time.perf_counter() - start)

    taken = report.alternate({name: partial(rate, way) for name, way in ways.items()}, repeats)
    return [
        {
            "samples": kind,
            "way": name,
            "rate": Spread.of(rates),
            "stream_over_it": report.ratios(taken[STREAM], rates),
        }
        for name, rates in taken.items()
    ]


def _bare(paths: list[str]) -> Iterator[Any]:
    import webdataset

    def decode(sample: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: np.load(io.BytesIO(sample[name]), allow_pickle=False) for name in MEMBERS}

    pipeline = webdataset.WebDataset(paths, shardshuffle=len(paths), empty_check=False, seed=0)
    return iter(pipeline.shuffle(SHUFFLE_BUFFER).map(decode))


def _far(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """Shares of waiting by latency, with and without reading ahead, in turn."""
    rows = []
    with slow_store(folder) as address:
        _epoch(f"{address}/0", AHEAD, 0, batches=1)  # what is imported and opened once
        for latency in LATENCIES:
            url = f"{address}/{latency}"
            found: dict[int, list[dict[str, float]]] = {ahead: [] for ahead in (AHEAD, 0)}
            for epoch in range(epochs):
                for ahead, taken in found.items():
                    taken.append(_epoch(url, ahead, epoch))
            rows += [_row(latency, ahead, taken) for ahead, taken in found.items()]
    return rows


def _row(latency: int, ahead: int, taken: list[dict[str, float]]) -> dict[str, Any]:
    return {"latency_ms": latency, "ahead": ahead, **{k: Spread.of([epoch[k] for epoch in taken]) for k in taken[0]}}


def _epoch(url: str, ahead: int, epoch: int, batches: int | None = None) -> dict[str, float]:
    """Of one epoch with an empty cache: shares of waiting for shards, in all and after the first batch, and of all
    loading; seconds to the first batch, and in all."""
    with tempfile.TemporaryDirectory(prefix="streaming-cache-") as name:
        os.environ["AVMEND_CACHE"] = name  # of dataset.json and the table
        probe = StreamDataset(url, "train")
        room = sum(shard.bytes for shard in probe.info.splits["train"].shards) // 4
        data = StreamDataset(url, "train", cache=ShardCache(Path(name) / "stream", room), ahead=ahead)
        order = _order(data, epoch)[slice(batches and batches * BATCH)]
        begin = clock = time.perf_counter()
        loading, first, waited = 0.0, 0.0, 0.0
        for count, _ in enumerate(data.read(order, MEMBERS), 1):
            if count % BATCH == 0:
                loading += time.perf_counter() - clock
                if count == BATCH:
                    first, waited = loading, data.waited
                time.sleep(BUSY)
                clock = time.perf_counter()
        whole = time.perf_counter() - begin
        del os.environ["AVMEND_CACHE"]
    return {
        "waiting": data.waited / whole,
        "waiting_later": (data.waited - waited) / (whole - first),
        "loading": loading / whole,
        "first_batch_s": first,
        "epoch_s": whole,
    }


def _text(
    args: argparse.Namespace, machine: dict[str, Any], local: list[dict[str, Any]], far: list[dict[str, Any]]
) -> str:
    near = report.table(
        ["samples", "way", "samples/s", "read through over it"],
        [[r["samples"], r["way"], r["rate"].text(4), r["stream_over_it"].text(2)] for r in local],
    )
    shares = ("waiting, %", "after the first batch, %", "all loading, %")
    away = report.table(
        ["latency, ms", "read ahead", *shares, "first batch, s", "epoch, s"],
        [
            [
                r["latency_ms"],
                f"{r['ahead']} shards a lane" if r["ahead"] else "no",
                _percent(r["waiting"]),
                _percent(r["waiting_later"]),
                _percent(r["loading"]),
                r["first_batch_s"].text(2),
                r["epoch_s"].text(3),
            ]
            for r in far
        ],
    )
    return (
        f"Load of the machine {machine['load_before']} before and {machine['load_after']} after on "
        f"{machine['cores']} cores: above that many, other work ran beside, and ratios say more than rates.\n\n"
        f"Local files, {args.repeats} repetitions in turn, median (least-greatest); {LANES} lanes, a buffer of "
        f"{SHUFFLE_BUFFER} samples:\n\n{near}\n\n"
        f"A server that holds every answer back; {args.far} samples of 25 KB in shards of 2 MB, an empty cache with "
        f"room for a quarter of them, {BATCH} samples every {1000 * BUSY:g} ms, {args.epochs} epochs. Waiting is for "
        "shards: what the storage costs; all loading is reading and decoding besides, in the same process:\n\n"
        f"{away}"
    )


def _percent(share: Spread) -> str:
    return Spread(*(100 * value for value in (share.median, share.low, share.high))).text(2)


def _draw(figure: Any, local: list[dict[str, Any]], far: list[dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2)
    others = [row for row in local if row["way"] != STREAM]
    left.barh([f"{r['samples']}: {r['way']}" for r in others], [r["stream_over_it"].median for r in others])
    left.axvline(1, color="black", linewidth=0.8)
    left.set(title="local files", xlabel="read through over it, samples/s", xscale="log")
    for ahead in sorted({row["ahead"] for row in far}, reverse=True):
        rows = [row for row in far if row["ahead"] == ahead]
        name = "read ahead" if ahead else "not"
        right.plot([r["latency_ms"] for r in rows], [100 * r["waiting"].median for r in rows], "o-", label=name)
    right.axhline(5, color="black", linewidth=0.8)
    right.set(title="far away", xlabel="latency of a request, ms", ylabel="waiting for shards, %", ylim=(0, None))
    if far:
        right.legend()


if __name__ == "__main__":
    raise SystemExit(main())
