"""``avmend plan MANIFEST``: what ingesting a corpus will take, from a few of its clips ingested here."""

from __future__ import annotations

import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs import load_config
from pipelines.command_line import plan_parser
from pipelines.ingest import ingest
from pipelines.manifest import Clip, stream_manifest, write_manifest
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import QUARANTINE_FILE
from shards.command import command
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.store import Place, place, size_of

DRAWS, SHARE = 2000, 0.95  # of the bootstrap; what its intervals hold
INDEX = 350  # bytes of a sample on disk: 150 in the plan, 80 in the table of its split, and the parts of that
FILES = 100_000  # shards, beyond which listing them gets slow


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds it with probability `SHARE`."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], seed: int = 0) -> Interval:
        """By resampling the clips."""
        sample = np.asarray(values, np.float64)
        means = np.random.default_rng(seed).choice(sample, (DRAWS, len(sample))).mean(axis=1)
        low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
        return cls(float(sample.mean()), float(low), float(high))

    def times(self, factor: float) -> Interval:
        """The interval of a multiple."""
        return Interval(self.mean * factor, self.low * factor, self.high * factor)

    def text(self, unit: str = "") -> str:
        """ "132 (120 to 145) core-hours"."""
        return f"{few(self.mean)} ({few(self.low)} to {few(self.high)}){unit}"


def few(value: float) -> str:
    """Whole numbers, two digits of what is below 10."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@dataclass
class Survey:
    """A manifest's clips counted, and some of them drawn with equal chances.

    Args:
        size: clips that are drawn.
    """

    size: int
    seed: int
    splits: Counter[str] = field(default_factory=Counter)
    drawn: list[Clip] = field(default_factory=list)

    def read(self, manifest: Place) -> Survey:
        """Stream the manifest.

        Raises:
            InputError: as `stream_manifest`.
        """
        rng = random.Random(self.seed)
        for number, clip in enumerate(stream_manifest(manifest)):
            self.splits[clip.split] += 1
            if number < self.size:
                self.drawn.append(clip)
            elif (at := rng.randrange(number + 1)) < self.size:
                self.drawn[at] = clip
        return self


@dataclass(frozen=True)
class Measured:
    """What the drawn clips took here, a value per clip.

    Attributes:
        seconds: of one core, decoding to the finished shard.
        read: bytes of the sources; of a web server's 0 where it does not tell.
        written: bytes in the shard.
        lengths: seconds of those that could be ingested.
        causes: why others could not, with how many.
        extraction: seconds per clip of the features, and the device; None: not asked for.
    """

    seconds: list[float]
    read: list[float]
    written: list[float]
    lengths: list[float]
    causes: Counter[str]
    extraction: tuple[float, str] | None = None


def measure(clips: Sequence[Clip], config: IngestConfig, backbone: Path | None, depth: int) -> Measured:
    """Ingest clips here, one after the other, into a folder that goes afterwards.

    Raises:
        InputError: none of them could be ingested.
    """
    with tempfile.TemporaryDirectory(prefix="avmend-plan-") as scratch:
        folder = Path(scratch)
        write_manifest(folder / "sample.csv", [_row(clip) for clip in clips])
        labels = tuple(sorted({label for clip in clips for label in clip.labels}))
        small = config.model_copy(update={"samples_per_shard": 1, "workers": 0, "labels": config.labels or labels})
        begun = time.time_ns()
        info = ingest(folder / "sample.csv", folder / "out", small)
        ends = sorted(path.stat().st_mtime_ns for path in (folder / "out/ledger").glob("*.json"))
        quarantine = (folder / "out" / QUARANTINE_FILE).read_text(encoding="utf-8").splitlines()
        shards = [shard for split in info.splits.values() for shard in split.shards]
        return Measured(
            seconds=(np.diff([begun, *ends]) / 1e9).tolist(),
            read=[float(sum(map(_size, (clip.path, clip.audio_path, clip.image_path)))) for clip in clips],
            written=[float(shard.bytes) for shard in shards] + [0.0] * (len(clips) - len(shards)),
            lengths=_lengths(folder / "out"),
            causes=Counter(json.loads(line)["error"] for line in quarantine),
            extraction=None if backbone is None else _extraction(folder / "out", backbone, depth, len(shards)),
        )


def _lengths(data: Path) -> list[float]:
    durations = ShardDataset(data, "train").column("duration")
    return [float(seconds) for seconds in durations.to_pylist()]


def _row(clip: Clip) -> dict[str, Any]:
    row = {name: getattr(clip, name) for name in ("id", "path", "audio_path", "image_path", "start", "duration")}
    return {**row, "label": list(clip.labels), "split": "train"}


def _size(path: str | None) -> int:
    try:
        return (size_of(place(path)) if path else None) or 0
    except OSError:
        return 0


def _extraction(data: Path, backbone: Path, depth: int, clips: int) -> tuple[float, str]:
    import torch

    from pipelines import features

    config = load_config(FeatureConfig, overrides=[f"depth={depth}", "workers=0", "batch_size=8"])
    start = time.perf_counter()
    features.extract(data, backbone, config)
    return (time.perf_counter() - start) / clips, "GPU" if torch.cuda.is_available() else "core"


@dataclass(frozen=True)
class Prices:
    """Of an hour of a node, of a GB stored for a month, of a GB read from where the sources are."""

    node: float | None = None
    storage: float | None = None
    transfer: float | None = None


@dataclass(frozen=True)
class Nodes:
    """The workers that a cluster file allows: how many, and their CPUs and GPUs together."""

    count: int
    cpus: int
    gpus: int


def cluster_nodes(path: Path) -> Nodes:
    """The workers of a file of Ray's launcher.

    Raises:
        InputError: it can't be read, or is no such file.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        types = {n: t for n, t in found["available_node_types"].items() if n != found.get("head_node_type")}
        limit, count, cpus, gpus = found.get("max_workers", math.inf), 0, 0, 0
        for kind in types.values():
            nodes = int(min(kind.get("max_workers", limit), limit - count))
            count += nodes
            cpus += nodes * int(kind["resources"].get("CPU", 0))
            gpus += nodes * int(kind["resources"].get("GPU", 0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        remedy = "give a file of Ray's launcher whose node types name their resources, as cluster.yaml does"
        raise InputError(f"no cluster file: {error}", file=path, field="--cluster", remedy=remedy) from None
    if not cpus:
        raise InputError("its workers have no CPUs", file=path, field="resources", remedy="give them some")
    return Nodes(count, cpus, gpus)


def lines(
    splits: Mapping[str, int], found: Measured, config: IngestConfig, nodes: Nodes | None, prices: Prices
) -> Iterator[str]:
    """The plan in words."""
    total = sum(splits.values())
    yield f"clips: {total:,} ({', '.join(f'{count:,} {split}' for split, count in splits.items())})"
    yield f"sample: {len(found.seconds)} of them, {len(found.lengths)} ingested here; {_told(found.causes)}"
    read = Interval.of(found.read).times(total)
    yield f"sources: {Interval.of(found.lengths).text(' s a clip')}; to read {size(read)}"
    count = shards_of(splits, config.samples_per_shard)
    written = Interval.of(found.written).times(total)
    yield f"shards: {count:,}, of up to {config.samples_per_shard} clips; {size(written)}"
    yield f"index and plan: {size(index_bytes(total))} on disk, mapped"
    hours = Interval.of(found.seconds).times(total / 3600)
    yield f"ingestion: {hours.text(' core-hours')}, at this machine's rate"
    per_gpu = None
    if found.extraction is not None:
        seconds, device = found.extraction
        per_gpu = seconds * total / 3600 if device == "GPU" else None
        yield f"features: {few(seconds * total / 3600)} {device}-hours, at this machine's rate"
    if nodes is not None:
        yield from _on_cluster(hours, per_gpu, nodes, prices)
    if prices.storage is not None:
        yield f"storage: {written.times(prices.storage / 1e9).text(' a month')}"
    if prices.transfer is not None:
        yield f"transfer: {read.times(prices.transfer / 1e9).text()}"
    if count > FILES:
        better = 2 ** math.ceil(math.log2(total / FILES))
        yield f"advice: samples_per_shard={better}, so that there are no more than {FILES:,} shards"


def _on_cluster(hours: Interval, gpu_hours: float | None, nodes: Nodes, prices: Prices) -> Iterator[str]:
    wall = hours.times(1 / nodes.cpus)
    yield f"cluster: {nodes.count} workers, {nodes.cpus} CPUs, {nodes.gpus} GPUs; ingestion {wall.text(' hours')}"
    if gpu_hours is not None and nodes.gpus:
        yield f"cluster: features {few(gpu_hours / nodes.gpus)} hours"
    if prices.node is not None:
        yield f"price: {wall.times(nodes.count * prices.node).text()} for the ingestion"


def _told(causes: Counter[str]) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in causes.most_common()) or "none failed"


def shards_of(splits: Mapping[str, int], samples_per_shard: int) -> int:
    """Shards that an ingestion makes."""
    return sum(math.ceil(count / samples_per_shard) for count in splits.values())


def index_bytes(clips: int) -> Interval:
    """What the plan and the tables of ``index`` take on disk."""
    return Interval(clips * INDEX, clips * INDEX, clips * INDEX)


def size(value: Interval) -> str:
    """Bytes in the unit that suits them."""
    units = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
    unit, factor = next((named for named in units if value.mean >= named[1]), units[-1])
    shown = value.times(1 / factor)
    return f"{few(shown.mean)} {unit}" if value.low == value.high else shown.text(f" {unit}")


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = plan_parser().parse(argv)
    config = load_config(IngestConfig, args.config, args.overrides)
    nodes = cluster_nodes(args.cluster) if args.cluster else None
    survey = Survey(args.clips, args.seed).read(args.manifest.absolute())
    found = measure(survey.drawn, config, args.backbone, args.depth)
    prices = Prices(args.price, args.storage_price, args.transfer_price)
    print("\n".join(lines(survey.splits, found, config, nodes, prices)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
