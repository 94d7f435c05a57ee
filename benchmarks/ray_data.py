"""Decodes the same clips by Ray Data and by this project's tasks: shards per second, in turn.

    python -m benchmarks.ray_data --shards 40

A shard is four clips, decoded and made into samples, not written: only what hands out the work differs. Ray Data gets
one shard per block, so that it may hand them out as the tasks are.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Spread, alternate, machine, positive, ratios, save, table
from configs.cluster import ray_session
from pipelines.corpora.synthetic import scenes
from pipelines.manifest import Clip, read_manifest
from pipelines.on_ray import run_tasks
from pipelines.settings import IngestConfig
from pipelines.shard_job import process_decoder, request_for, sample_arrays
from shards.progress import Progress

CONFIG, CLIPS = IngestConfig(frames=2, image_size=96), 4  # of a shard


@dataclass(frozen=True)
class Shard:
    """Clips that are made together."""

    name: str
    clips: tuple[Clip, ...]


def decode(shard: Shard) -> int:
    """Bytes of the samples."""
    decoder, total = process_decoder(CONFIG.memory_mb), 0
    for clip in shard.clips:
        arrays = sample_arrays(decoder.decode(request_for(clip, CONFIG, "quarantine")), keep_wave=False)
        total += sum(array.nbytes for array in arrays.values())
    return total


def by_tasks(shards: Sequence[Shard], workers: int) -> float:
    """Seconds, by `pipelines.on_ray`."""
    begin = time.perf_counter()
    sizes = [size for _, size in run_tasks(decode, shards, (), workers, 0, Path())]
    assert len(sizes) == len(shards)
    return time.perf_counter() - begin


def by_ray_data(shards: Sequence[Shard], workers: int) -> float:
    """Seconds, by ``map_batches``."""
    import ray.data

    def batch(rows: dict[str, Any]) -> dict[str, Any]:
        return {"bytes": [decode(shards[number]) for number in rows["id"]]}

    begin = time.perf_counter()
    blocks = ray.data.range(len(shards), override_num_blocks=len(shards))
    way: Any = batch
    found = blocks.map_batches(way, batch_size=1, concurrency=workers).take_all()
    assert len(found) == len(shards)
    return time.perf_counter() - begin


def main(argv: list[str] | None = None) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.ray_data", description=__doc__)
    parser.add_argument("--shards", type=positive, default=40)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    found, work = machine("cpu"), Path(tempfile.mkdtemp(prefix="ray-data-"))
    try:
        config = scenes.ScenesConfig(clips=24, seconds=1.0, size=96, jobs=1)
        drawn = scenes.build(config, work, partial(Progress, "scenes")).manifests["default"]
        clips = read_manifest(drawn)
        picked = [[clips[(CLIPS * n + i) % len(clips)] for i in range(CLIPS)] for n in range(args.shards)]
        shards = [Shard(f"s{number}", tuple(chosen)) for number, chosen in enumerate(picked)]
        with ray_session(args.workers):
            ways = {"tasks": partial(by_tasks, shards, args.workers)}
            ways["Ray Data"] = partial(by_ray_data, shards, args.workers)
            taken = alternate(ways, args.repeats)
    finally:
        shutil.rmtree(work)
    write(
        args.out, taken, args.shards, {"machine": found, "settings": {"shards": args.shards, "workers": args.workers}}
    )
    return 0


def write(out: Path, taken: dict[str, list[float]], shards: int, record: dict[str, Any]) -> None:
    """A row for each way, and a figure."""
    rates = {name: [shards / seconds for seconds in times] for name, times in taken.items()}
    cells = [[name, Spread.of(found).text(), ratios(found, rates["tasks"]).text()] for name, found in rates.items()]
    text = table(["way", "shards/s", "of the tasks'"], cells)
    save(
        out,
        "ray_data",
        "Handing out shards: Ray Data and tasks",
        text,
        {**record, "rates": rates},
        partial(_draw, rates),
    )


def _draw(rates: dict[str, list[float]], figure: Any) -> None:
    axes = figure.subplots()
    axes.barh(list(rates), [Spread.of(found).median for found in rates.values()])
    axes.set(xlabel="shards per second")


if __name__ == "__main__":
    raise SystemExit(main())
