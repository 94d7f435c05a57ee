"""Clips to features in three ways, in turn: one command after the other, in one pipeline, by Ray Data.

    python -m benchmarks.pipeline --clips 192

Clips are drawn scenes (H.264 and AAC), decoded into media shards, which go through the first blocks of a fresh
backbone. Ray Data does the same work with the same functions (`map_batches` by tasks, then by a pool of actors, in its
streaming executor) and hands samples on through its object store; what it writes are the same shards, without plan,
ledger, tables or dataset.json: it can't be resumed. Each run has a local Ray of its own, whose start does not count,
and asks for the same CPUs. Then each stage in turn takes seconds longer without computing, as one does that waits for a
GPU or a source: what the pipeline saves, and what is held between.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil

from benchmarks import corpus
from benchmarks.report import RESULTS, Spread, machine, positive, ratios, save_folder, table
from configs.cluster import ray_session
from models.settings import MODALITIES
from pipelines import features, in_line
from pipelines import ingest as ingestion
from pipelines.corpora.synthetic import scenes
from pipelines.extraction import Extraction, extraction_of
from pipelines.feature_shard import features_of, reproducible
from pipelines.manifest import Clip, read_manifest, write_manifest
from pipelines.on_ray import Flow, places
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import process_decoder, request_for, sample_arrays, sample_meta
from shards.progress import Progress
from shards.reader import Sample
from shards.schema import SampleMeta
from shards.writer import Record, write_shard

DRAWN = 24  # scenes, under many names
WAYS = ("one after the other", "pipeline", "Ray Data")
SLOW = 2.0  # seconds that a shard takes more in a stage that is made slow


@dataclass
class Watched:
    """What a way did meanwhile.

    Attributes:
        seconds: of the wall clock.
        processor: seconds of all processes together, those that Ray's own take too.
        memory: MiB that the processes held, at most, without what they share.
        store: MiB in Ray's object store, at most.
        extracting: seconds that actors were at work, of all together.
        between: shards that were begun by the first stage and not done by the second, at most.
        held: share of the time in which slots for decoding were free and shards waited for the second stage.
    """

    seconds: float = 0.0
    processor: float = 0.0
    memory: float = 0.0
    store: float = 0.0
    extracting: float = 0.0
    between: int = 0
    held: float = 0.0


@contextmanager
def watching() -> Iterator[Watched]:
    """Looks at processes and store all the while."""
    found, ended = Watched(), threading.Event()
    used = {pid: seconds for pid, (seconds, _) in _processes().items()}
    before, begin = sum(used.values()), time.perf_counter()

    def look() -> None:
        while True:
            there = _processes()
            used.update({pid: seconds for pid, (seconds, _) in there.items()})
            found.memory = max(found.memory, sum(size for _, size in there.values()))
            found.store = max(found.store, _store_mib())
            if ended.wait(0.25):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - begin
        ended.set()
        thread.join()
        found.processor = sum(used.values()) - before


def _processes() -> dict[int, tuple[float, float]]:
    """Of this process and all that it started: seconds of processor, MiB of memory without shared pages."""
    found, page, me = {}, os.sysconf("SC_PAGE_SIZE"), psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with suppress(OSError, psutil.Error):
            _, resident, shared = Path(f"/proc/{process.pid}/statm").read_text().split()[:3]
            times = process.cpu_times()
            found[process.pid] = (times.user + times.system, (int(resident) - int(shared)) * page / 2**20)
    return found


def _store_mib() -> float:
    import ray
    from ray._private.internal_api import node_stats

    address = next(node for node in ray.nodes() if node["Alive"])
    stats = node_stats(address["NodeManagerAddress"], address["NodeManagerPort"], include_memory_info=False)
    return stats.store_stats.object_store_bytes_used / 2**20


@dataclass
class Bench:
    """What all ways work on."""

    work: Path
    manifest: Path
    backbone: Path
    config: IngestConfig
    features: FeatureConfig
    pause: dict[str, float] = field(default_factory=dict)  # of an artificially slow stage

    @property
    def clips(self) -> list[Clip]:
        return read_manifest(self.manifest)

    def fresh(self) -> Path:
        """A folder for results."""
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        return out

    def job(self, out: Path) -> Extraction[Path]:
        return in_line.planned(out, self.config, self.features, self.backbone, None)


def build(work: Path, args: argparse.Namespace) -> Bench:
    """Clips, a manifest, and a backbone."""
    config = scenes.ScenesConfig(clips=min(DRAWN, args.clips), seconds=2.0, size=96, jobs=1)
    drawn = scenes.build(config, work / "clips", partial(Progress, "scenes")).manifests["default"]
    rows: list[dict[str, Any]] = [
        {"id": f"clip/{number}", "path": clip.path, "label": clip.labels, "split": "train"}
        for number, clip in zip(range(args.clips), itertools.cycle(read_manifest(drawn)), strict=False)
    ]
    write_manifest(work / "all.csv", rows)
    ingest = IngestConfig(frames=2, image_size=96, samples_per_shard=args.per_shard, workers=args.workers)
    feature = FeatureConfig(depth=args.depth, draws=1, workers=args.workers)
    return Bench(
        work, work / "all.csv", corpus.write_backbone(work / "run" / "finetune", "tiny").parent, ingest, feature
    )


def one_after_the_other(bench: Bench, found: Watched) -> None:
    """`avmend ingest`, then `avmend features`."""
    out = bench.fresh()
    ingestion.ingest(bench.manifest, out, bench.config)
    with _integrated(found, "_shown", features):
        features.extract(out, bench.backbone, bench.features)


def in_one_pipeline(bench: Bench, found: Watched) -> None:
    """`avmend ingest --backbone`."""
    out = bench.fresh()
    job = bench.job(out)
    with _integrated(found, "line", in_line):
        info = ingestion.ingest(bench.manifest, out, bench.config, features=job)
        features.run(extraction_of(job.data, info, job.config, job.extractor))


@contextmanager
def _integrated(found: Watched, name: str, module: Any) -> Iterator[None]:
    """Adds up what the progress line is told: `name` makes it of the stages' flows."""
    last: list[Any] = [time.perf_counter(), 0, False]
    begin = last[0]
    original = getattr(module, name)

    def note(first: Flow | None, second: Flow) -> None:
        now = time.perf_counter()
        found.extracting += (now - last[0]) * last[1]
        found.held += (now - last[0]) * last[2]
        last[:] = [now, second.at_work, bool(first and first.held)]
        if first is not None:
            found.between = max(found.between, first.at_work + second.waiting + second.at_work)

    def line(first: Flow, second: Flow) -> str:
        note(first, second)
        return str(original(first, second))

    def shown(progress: Progress) -> Callable[[Flow], None]:
        tell = original(progress)

        def show(flow: Flow) -> None:
            note(None, flow)
            tell(flow)

        return show

    with patch.object(module, name, line if name == "line" else shown):
        yield
    found.held /= time.perf_counter() - begin


class Extracting:
    """An actor of Ray Data: batches of samples to feature shards."""

    def __init__(self, job: Extraction[Path]):
        self.job = job
        job.extractor.to("cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        begin = time.perf_counter()
        metas = [SampleMeta.model_validate_json(text) for text in batch["json"]]
        samples = [
            Sample(meta, {"audio": audio, "frames": frames})
            for meta, audio, frames in zip(metas, batch["audio"], batch["frames"], strict=True)
        ]
        with reproducible():
            write_shard(self.job.out / f"train-{batch['shard'][0]:06d}.tar", self._records(samples), root=self.job.out)
        return {"seconds": [time.perf_counter() - begin]}

    def _records(self, samples: Sequence[Sample]) -> Iterator[Record]:
        import torch

        extractor, step = self.job.extractor, self.job.extractor.together("train")
        with torch.inference_mode():
            for at in range(0, len(samples), step):
                some = samples[at : at + step]
                made = {m: features_of(extractor, m, some, self.job.config.batch_size) for m in MODALITIES}
                for number, sample in enumerate(some):
                    members = {f"{m}.npy": made[m][number] for m in MODALITIES}
                    yield sample.meta.key, {"json": sample.meta, **members}


def decoded(batch: dict[str, Any], clips: Sequence[Clip], config: IngestConfig, out: Path) -> dict[str, Any]:
    """A task of Ray Data: a shard's clips to samples, written and handed on."""
    decoder, records = process_decoder(config.memory_mb), []
    for number in batch["clip"]:
        clip = clips[number]
        made = decoder.decode(request_for(clip, config, "quarantine"))
        records.append((clip.key, sample_meta(clip, made), sample_arrays(made, False)))
    shard = int(batch["shard"][0])
    members: list[Record] = [
        (key, {"json": meta, **{f"{n}.npy": a for n, a in arrays.items()}}) for key, meta, arrays in records
    ]
    write_shard(out / "media" / f"train-{shard:06d}.tar", members, root=out)
    return {
        "shard": np.full(len(records), shard),
        "json": np.array([meta.model_dump_json() for _, meta, _ in records], object),
        **{name: np.stack([arrays[name] for _, _, arrays in records]) for name in ("audio", "frames")},
    }


def by_ray_data(bench: Bench, found: Watched) -> None:
    """The same decoding and extraction, handed on by Ray Data."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    out, size = bench.fresh(), bench.config.samples_per_shard
    job, clips = bench.job(out), bench.clips
    rows = [{"clip": number, "shard": number // size} for number in range(len(clips))]
    blocks = ray.data.from_items(rows, override_num_blocks=-(-len(clips) // size))
    work = partial(decoded, clips=clips, config=bench.config, out=out)
    samples = blocks.map_batches(work, batch_size=size, num_cpus=1 - in_line.SHARE)
    made = samples.map_batches(
        Extracting,
        fn_constructor_args=(job,),
        batch_size=size,
        num_cpus=in_line.SHARE,
        compute=ray.data.ActorPoolStrategy(size=bench.config.workers),
    )
    found.extracting = sum(row["seconds"] for row in made.iter_rows())


def measured(way: Callable[[Bench, Watched], None], bench: Bench, kept: list[Watched]) -> float:
    """Clips per second; the rest is appended to `kept`."""
    with ray_session(bench.config.workers), watching() as found:
        way(bench, found)
    kept.append(found)
    rate = len(bench.clips) / found.seconds
    print(f"{way.__name__}: {rate:.2f} clips/s, {found}", flush=True)
    return rate


@contextmanager
def slowed(stage: str) -> Iterator[None]:
    """Shards take longer in one of the stages."""
    if stage == "decoding":
        original = ingestion.ingest_kept

        def slowly(*arguments: Any) -> Any:
            time.sleep(SLOW)
            return original(*arguments)

        with patch.object(ingestion, "ingest_kept", slowly):
            yield
        return

    class Slow(features.Worker):
        def extract(self, shared: list[Any], shard: Any) -> Any:
            time.sleep(SLOW)
            return super().extract(shared, shard)

    with patch.object(features, "Worker", Slow):
        yield


def slow_stages(bench: Bench) -> dict[str, dict[str, Watched]]:
    """Of each stage made slow: one after the other, and in a pipeline."""
    found: dict[str, dict[str, Watched]] = {}
    for stage in ("decoding", "extraction"):
        kept: list[Watched] = []
        with slowed(stage):
            measured(one_after_the_other, bench, kept)
            measured(in_one_pipeline, bench, kept)
        found[stage] = dict(zip(WAYS, kept, strict=False))
    return found


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if more was held between the stages than there are places."""
    parser = argparse.ArgumentParser(prog="benchmarks.pipeline", description=__doc__)
    parser.add_argument("--clips", type=positive, default=192, help="of each way (default 192)")
    parser.add_argument("--per-shard", type=positive, default=8, help="clips of a shard (default 8)")
    parser.add_argument("--depth", type=int, default=2, help="blocks that the features have passed (default 2)")
    parser.add_argument("--workers", type=positive, default=2, help="tasks, and actors, at a time (default 2)")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    found, work = machine("cpu"), Path(tempfile.mkdtemp(prefix="pipeline-"))
    try:
        bench = build(work, args)
        kept: dict[str, list[Watched]] = {name: [] for name in WAYS}
        ways = dict(zip(WAYS, (one_after_the_other, in_one_pipeline, by_ray_data), strict=True))
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _, (name, way) in itertools.product(range(args.repeats), ways.items()):  # A B C A B C: each Ray is cold
            taken[name].append(measured(way, bench, kept[name]))
        slow = slow_stages(bench)
    finally:
        shutil.rmtree(work)
    bound = places(args.workers, args.workers)
    settings = {name: getattr(args, name) for name in ("clips", "per_shard", "depth", "workers", "repeats")}
    write(args.out, taken, kept, slow, bound, {"machine": found, "settings": settings})
    return int(any(each.between > bound for each in [*kept["pipeline"], *(ways["pipeline"] for ways in slow.values())]))


def write(
    out: Path,
    rates: dict[str, list[float]],
    watched: dict[str, list[Watched]],
    slow: dict[str, dict[str, Watched]],
    bound: int,
    record: dict[str, Any],
) -> None:
    """A row for each way, one for each slow stage, and a figure."""
    workers = record["settings"]["workers"]
    columns = ["way", "clips/s", "of one after the other", "processor, ms a clip", "actors at work"]
    columns += ["memory, MiB", "object store, MiB"]
    rows = []
    for name, found in rates.items():
        busy = Spread.of([w.extracting / workers / w.seconds * 100 for w in watched[name]])
        each = Spread.of([w.processor / record["settings"]["clips"] * 1000 for w in watched[name]]).text()
        most = [Spread.of([getattr(w, what) for w in watched[name]]) for what in ("memory", "store")]
        share = ratios(found, rates[WAYS[0]]).text()
        rows.append([name, Spread.of(found).text(), share, each, f"{busy.text(2)} %", *(m.text() for m in most)])
    names = ["slow stage", "one after the other, s", "pipeline, s", "of that", "between at most", "places", "held"]
    cells = [[stage, *_slow_cells(ways[WAYS[0]], ways[WAYS[1]], bound)] for stage, ways in slow.items()]
    text = f"{table(columns, rows)}\n\nA stage that takes {SLOW:g} s a shard longer, without computing:\n\n"
    text += table(names, cells)
    line = [f"{name}: {Spread.of(found).text()} clips/s" for name, found in rates.items()]
    result = {**record, "rates": rates, "watched": {n: list(map(asdict, w)) for n, w in watched.items()}}
    result["slow"] = {stage: {n: asdict(w) for n, w in ways.items()} for stage, ways in slow.items()}
    title = "From clips to features: one after the other, in a pipeline, by Ray Data"
    flat = [dict(zip(columns, row, strict=True)) for row in rows]
    save_folder(out, "pipeline", title, text, result, partial(_draw, rates), flat, ["; ".join(line)])


def _slow_cells(sequence: Watched, pipeline: Watched, bound: int) -> list[Any]:
    share = pipeline.seconds / sequence.seconds
    return [
        f"{sequence.seconds:.0f}",
        f"{pipeline.seconds:.0f}",
        f"{share:.0%}",
        pipeline.between,
        bound,
        f"{pipeline.held:.0%}",
    ]


def _draw(rates: dict[str, list[float]], figure: Any) -> None:
    axes = figure.subplots()
    axes.barh(list(rates)[::-1], [Spread.of(found).median for found in rates.values()][::-1])
    axes.set(xlabel="clips per second")


if __name__ == "__main__":
    raise SystemExit(main())
