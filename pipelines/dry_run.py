"""``avmend ingest --dry-run`` and ``features --dry-run``: config, inputs, what is there, what would be made."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from configs.help import resolved
from pipelines.extraction import Extraction, prepare
from pipelines.feature_shard import read_features_ledger
from pipelines.incremental_plan import PLAN_FILE, Growth, kept_rows, read_plan, same_revision
from pipelines.manifest import stream_manifest
from pipelines.results import Failures, finished, quarantined_ids
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import QUARANTINE_FILE
from shards.progress import format_seconds
from shards.store import Place, at_hand, each, place, url_of

PAUSE = 600.0  # seconds between two shards beyond which a job was not at work


def describe_ingestion(
    manifest: Place, out: Place, config: IngestConfig, retry: bool = False, features: Extraction[Any] | None = None
) -> str:
    """What ``ingest`` would do, with these features meanwhile, without writing anything.

    Raises:
        InputError: a wrong manifest, or an ``out`` of another plan.
    """
    manifest, out = place(manifest).absolute(), place(out)
    with TemporaryDirectory() as scratch:  # rows that would be planned
        rows = Path(scratch)
        for path in kept_rows(out):
            (rows / path.name).symlink_to(at_hand(path).absolute())
        before = read_plan(out, config, manifest, rows)
        done = finished(before.digests, out)
        growth = Growth(before, manifest, out, rows, Failures(before.digests, out), retry, config.partial)
        with growth.grown(config.samples_per_shard) as grown:
            shards = same_revision(grown, done, out / PLAN_FILE).shards
            labels = growth.vocabulary.checked(config, manifest)
    todo = [shard.clips for name, shard in shards.items() if name not in done]
    lines = [*_manifest(manifest, labels), *_shards(out, len(shards), len(todo), sum(todo), "clips")]
    if quarantined := sum(len(quarantined_ids(out, name, before.shards[name].digest)) for name in done):
        lines.append(f"{quarantined} clips are in {out / QUARANTINE_FILE}")
    return "\n".join([resolved(config), *lines, *_features(features)])


def _features(job: Extraction[Any] | None) -> Iterator[str]:
    if job is not None:
        yield resolved(job.config)
        yield f"features: of each shard meanwhile, by networks {job.extractor.fingerprint[:12]}, in {job.out}"


def _manifest(manifest: Place, labels: Sequence[str]) -> Iterator[str]:
    splits, first = Counter[str](), ""
    away, here, gone = array("q"), array("q"), array("q")  # hashes of paths, not one object a clip
    for clip in stream_manifest(manifest):
        splits[clip.split] += 1
        for path in filter(None, (clip.path, clip.audio_path, clip.image_path)):
            (away if url_of(path) else here).append(hash(path))
            if not url_of(path) and not Path(path).exists():
                gone.append(hash(path))
                first = first or f"; the first: {path}"
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    yield f"manifest: {manifest} ({splits.total()} clips: {counts}; {len(labels)} labels)"
    if here:
        yield f"files: {_distinct(here) - _distinct(gone)} of {_distinct(here)} found{first}"
    if away:
        yield f"addresses: {_distinct(away)}, which are not asked now"


def _distinct(hashes: array[int]) -> int:
    return len(np.unique(np.frombuffer(hashes, np.int64)))


def describe_extraction(data: Place, backbone: Path | None, config: FeatureConfig, weights: Path | None = None) -> str:
    """What ``features`` would do, without writing anything.

    Raises:
        InputError: no media dataset, no backbone or weights, a depth beyond it.
    """
    job = prepare(data, backbone, config, weights)
    found = each(partial(read_features_ledger, job.out), job.plan, job.out)
    todo = [shard.media.samples for shard, ledger in zip(job.plan, found, strict=True) if ledger is None]
    splits = ", ".join(f"{job.info.splits[name].samples} {name}" for name in config.splits or job.info.splits)
    lines = [f"data: {data} ({splits})"]
    lines += [f"backbone: {backbone} ({job.extractor.fingerprint[:12]})"] if backbone else []
    return "\n".join([resolved(config), *lines, *_shards(job.out, len(job.plan), len(todo), sum(todo), "clips")])


def _shards(out: Place, total: int, todo: int, units: int, unit: str) -> Iterator[str]:
    """How many shards are there and to be made in ``out``, and how long that takes at the rate so far."""
    if not todo:
        yield f"already finished: {out} ({total} shards)"
        return
    yield f"would make {todo} of {total} shards ({units} {unit}) in {out}; {total - todo} are there"
    if (seconds := _seconds_per_shard(out)) is None:
        yield "time: not known, no shard was made there"
    else:
        yield f"time: about {format_seconds(seconds * todo)}, at {seconds:.3g} s a shard as there before"


def _seconds_per_shard(out: Place) -> float | None:
    """Mean time between two finished shards; pauses do not count. A store is not asked."""
    times = sorted(path.stat().st_mtime for path in out.glob("ledger/*.json")) if isinstance(out, Path) else []
    gaps = [b - a for a, b in itertools.pairwise(times) if b - a < PAUSE]
    return sum(gaps) / len(gaps) if gaps else None
