"""Decoding and extraction as one pipeline: a media shard goes through the networks as soon as it is whole.

Each shard is made as by `avmend ingest` and then `avmend features`, with the same ledgers, so that the latter finds its
work done. Between the two is a bounded queue (`pipelines.on_ray.run_in_line`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from configs.cluster import ray_session
from pipelines.extraction import Extraction
from pipelines.extractors import build_extractor
from pipelines.feature_shard import FeatureLedger, FeatureShard, extract_shard, feature_plan, read_features_ledger
from pipelines.features import actors, actors_device, keep, move_here
from pipelines.incremental_plan import KeptWork
from pipelines.on_ray import Flow, run_in_line, task_stage
from pipelines.preprocessing import preprocessing
from pipelines.resume import Ledger, remove_partial_files
from pipelines.settings import FeatureConfig, IngestConfig
from shards.errors import InputError
from shards.extraction_log import append_seconds
from shards.lock import folder_lock
from shards.schema import DatasetInfo
from shards.store import PlaceT, each

SHARE = 0.1  # of a CPU, for an actor without a GPU: beside each decoder stands one, and the queue says who works


def planned(
    out: PlaceT, config: IngestConfig, features: FeatureConfig, backbone: Path | None, weights: Path | None
) -> Extraction[PlaceT]:
    """An extraction from media that are still to be ingested, without shards.

    Raises:
        InputError: no backbone or weights, a depth beyond it, media that will lack what the networks take; ``workers``
            of which one alone is 0.
    """
    if features.workers is not None and (features.workers == 0) != (config.workers == 0):
        remedy = "workers=0 alone does both in this process; otherwise leave features.workers out, or give 1 or more"
        raise InputError("either both work in this process or none", field="features.workers", remedy=remedy)
    features = features.model_copy(update={"workers": config.workers if features.workers is None else features.workers})
    out = out.absolute()
    info = DatasetInfo(kind="media", preprocessing=preprocessing(config), labels=(), splits={})
    extractor = build_extractor(features, info, backbone, weights)
    return Extraction(out, info, features, extractor, [], out / "features" / extractor.folder)


@contextmanager
def begun(job: Extraction[PlaceT], media: DatasetInfo) -> Iterator[Extraction[PlaceT]]:
    """The extraction of the `media` that are there so far, while its folder is held.

    Raises:
        InputError: another extraction is at work there, or it was begun otherwise.
    """
    splits = [split for split in media.splits if _is_wanted(split, job)]
    job = replace(job, info=media, plan=feature_plan(media, splits) if splits else [])
    with folder_lock(job.out, "extraction"):
        keep(job)
        remove_partial_files(job.out, "ledger", "index")
        yield job


def _is_wanted(split: str, job: Extraction[Any]) -> bool:
    return job.config.splits is None or split in job.config.splits


def following(job: Extraction[Any], name: str, result: Ledger) -> FeatureShard | None:
    """The feature shard of a media shard that was just made; None: it has no samples, or its split is not wanted."""
    split = name.rsplit("-", 1)[0]
    if not result.shard.samples or not _is_wanted(split, job):
        return None
    return FeatureShard(name, split, result.shard, job.info.only(split, result.shard))


def ingest_and_extract(
    ingest_one: Callable[..., Ledger],
    shards: Sequence[KeptWork],
    arguments: Sequence[Any],
    config: IngestConfig,
    job: Extraction[Any],
    watch: Callable[[Flow, Flow], None],
) -> Iterator[tuple[str, Ledger]]:
    """Name and ledger of each media shard, and of each feature shard of these and of what `job` has already, in the
    order in which they are finished.

    Args:
        ingest_one: makes a media shard, of ``(shard, *arguments)``.
        watch: is told at least every second where the shards are.

    Raises:
        as `pipelines.on_ray.run_in_line`.
    """
    found = each(partial(read_features_ledger, job.out), job.plan, job.out)
    before = [shard for shard, ledger in zip(job.plan, found, strict=True) if ledger is None]
    clock = _Clock()
    if config.workers == 0:
        made = _here(ingest_one, shards, arguments, job, before, clock, watch)
    else:
        made = _on_ray(ingest_one, shards, arguments, config, job, before, clock, watch)
    for name, result in made:
        if isinstance(result, FeatureLedger):
            append_seconds(job.out, name.rsplit("-", 1)[0], result.shard.samples, clock.taken())
        yield name, result


@dataclass
class _Clock:
    """Seconds in which shards were extracted, whatever else was done; they add up."""

    seconds: float = 0.0
    runs: bool = False
    last: float = 0.0

    def run(self, extracting: bool) -> None:
        """From now on, shards are extracted or not."""
        now = time.perf_counter()
        self.seconds += now - self.last if self.runs else 0.0
        self.runs, self.last = extracting, now

    def taken(self) -> float:
        """Seconds since the last time this was asked."""
        self.run(self.runs)
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def _here(
    ingest_one: Callable[..., Ledger],
    shards: Sequence[KeptWork],
    arguments: Sequence[Any],
    job: Extraction[Any],
    before: Sequence[FeatureShard],
    clock: _Clock,
    watch: Callable[[Flow, Flow], None],
) -> Iterator[tuple[str, Ledger]]:
    """One after the other, in this process."""
    move_here(job)
    done = 0

    def extracted(shard: FeatureShard) -> Iterator[tuple[str, Ledger]]:
        clock.run(True)
        yield shard.name, extract_shard(shard, job.extractor, job.config, job.data, job.out)
        clock.run(False)

    for number, shard in enumerate(shards):
        watch(Flow(len(shards) - number - 1, 1, 1, number), Flow(len(before), 0, 1, done))
        result = ingest_one(shard, *arguments)
        yield shard.name, result
        if (item := following(job, shard.name, result)) is not None:
            watch(Flow(len(shards) - number - 1, 0, 1, number + 1), Flow(len(before), 1, 1, done))
            yield from extracted(item)
            done += 1
    for number, item in enumerate(before):
        watch(Flow(0, 0, 1, len(shards)), Flow(len(before) - number - 1, 1, 1, done + number))
        yield from extracted(item)


def _on_ray(
    ingest_one: Callable[..., Ledger],
    shards: Sequence[KeptWork],
    arguments: Sequence[Any],
    config: IngestConfig,
    job: Extraction[Any],
    before: Sequence[FeatureShard],
    clock: _Clock,
    watch: Callable[[Flow, Flow], None],
) -> Iterator[tuple[str, Ledger]]:
    """Tasks decode, actors extract; an actor with a GPU takes no CPU from them."""

    def told(first: Flow, second: Flow) -> None:
        clock.run(second.at_work > 0)
        watch(first, second)

    with ray_session(config.workers):
        device = actors_device(job.config)
        cpus = 0.0 if device == "cuda" else SHARE
        decoding = task_stage(ingest_one, arguments, config.workers, config.worker_tries, 1 - cpus)
        extracting = actors(job, len(shards) + len(before), device, cpus)
        yield from run_in_line(
            shards, decoding, extracting, partial(following, job), before=before, out=job.data, watch=told
        )


def line(first: Flow, second: Flow) -> str:
    """``12 to decode, 4 in flight of 4, 3 wait for features, 2 of 2 extracting, 7 done``."""
    lost = f", {n} lost with nodes" if (n := first.lost + second.lost) else ""
    held = " (held: features lag)" if first.held else ""
    return (
        f"{first.waiting} to decode{held}, {first.at_work} in flight of {first.slots}, {second.waiting} wait for "
        f"features, {second.at_work} of {second.slots} extracting, {second.done} done{lost}"
    )
