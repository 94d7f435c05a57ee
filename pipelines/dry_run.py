"""``avmend ingest --dry-run`` and ``features --dry-run``: config, inputs, what is there, what would be made."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.help import resolved
from pipelines.extractors import build_extractor
from pipelines.feature_shard import feature_plan, read_features_ledger
from pipelines.incremental_plan import PLAN_FILE, Growth, read_plan, rows_folder, same_revision
from pipelines.manifest import read_manifest
from pipelines.results import Failures, finished, quarantined_ids
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import QUARANTINE_FILE
from shards.progress import format_seconds
from shards.schema import DatasetInfo

PAUSE = 600.0  # seconds between two shards beyond which a job was not at work


def describe_ingestion(manifest: Path, out: Path, config: IngestConfig, retry: bool = False) -> str:
    """What ``ingest`` would do, without writing anything.

    Raises:
        InputError: a wrong manifest, or an ``out`` of another plan.
    """
    manifest, out = Path(manifest).absolute(), Path(out)
    with TemporaryDirectory() as scratch:  # rows that would be planned
        rows = Path(scratch)
        for path in rows_folder(out).glob("rows-*.arrow"):
            (rows / path.name).symlink_to(path.absolute())
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
    return "\n".join([resolved(config), *lines])


def _manifest(manifest: Path, labels: Sequence[str]) -> Iterator[str]:
    clips = read_manifest(manifest)
    splits = ", ".join(f"{count} {split}" for split, count in Counter(clip.split for clip in clips).items())
    yield f"manifest: {manifest} ({len(clips)} clips: {splits}; {len(labels)} labels)"
    paths = dict.fromkeys(p for clip in clips for p in (clip.path, clip.audio_path, clip.image_path) if p)
    gone = [path for path in paths if "://" not in path and not Path(path).exists()]
    first = f"; the first: {gone[0]}" if gone else ""
    yield f"files: {len(paths) - len(gone)} of {len(paths)} found{first}"


def describe_extraction(data: Path, backbone: Path | None, config: FeatureConfig, weights: Path | None = None) -> str:
    """What ``features`` would do, without writing anything.

    Raises:
        InputError: no media dataset, no backbone or weights, a depth beyond it.
    """
    info = DatasetInfo.load(Path(data).absolute())
    extractor = build_extractor(config, info, backbone, weights)
    out = Path(data).absolute() / "features" / extractor.folder
    plan = feature_plan(info, config.splits)
    todo = [shard.media.samples for shard in plan if read_features_ledger(out, shard) is None]
    splits = ", ".join(f"{info.splits[name].samples} {name}" for name in config.splits or info.splits)
    lines = [f"data: {data} ({splits})"]
    lines += [f"backbone: {backbone} ({extractor.fingerprint[:12]})"] if backbone else []
    return "\n".join([resolved(config), *lines, *_shards(out, len(plan), len(todo), sum(todo), "clips")])


def _shards(out: Path, total: int, todo: int, units: int, unit: str) -> Iterator[str]:
    """How many shards are there and to be made in ``out``, and how long that takes at the rate so far."""
    if not todo:
        yield f"already finished: {out} ({total} shards)"
        return
    yield f"would make {todo} of {total} shards ({units} {unit}) in {out}; {total - todo} are there"
    if (seconds := _seconds_per_shard(out / "ledger")) is None:
        yield "time: not known, no shard was made there"
    else:
        yield f"time: about {format_seconds(seconds * todo)}, at {seconds:.3g} s a shard as there before"


def _seconds_per_shard(ledger: Path) -> float | None:
    """Mean time between two finished shards; pauses do not count."""
    times = sorted(path.stat().st_mtime for path in ledger.glob("*.json"))
    gaps = [b - a for a, b in itertools.pairwise(times) if b - a < PAUSE]
    return sum(gaps) / len(gaps) if gaps else None
