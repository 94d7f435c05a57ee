"""``avmend ingest``: manifest to media shards, dataset.json and quarantine.jsonl.

Run it again after a kill: it goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from configs import load_config
from configs.cluster import ray_session
from pipelines.causes import REMEDIES
from pipelines.fbank import FRAME_RATE, MEL_BINS, SAMPLE_RATE, WINDOW
from pipelines.manifest import read_manifest
from pipelines.moments import add, statistics
from pipelines.on_ray import run_in_slots
from pipelines.plan import ShardPlan, keep_plan, label_vocabulary, make_plan
from pipelines.resume import alone, read_ledger, split_info, sweep
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import ShardResult, ingest_shard
from shards.atomic import write_text
from shards.errors import InputError
from shards.progress import Progress
from shards.schema import DatasetInfo, Normalisation

QUARANTINE_FILE = "quarantine.jsonl"


def ingest(
    manifest: str | Path, out: str | Path, config: IngestConfig | None = None, stage: str | None = None
) -> DatasetInfo:
    """Ingest a manifest into ``out``; what an earlier run finished there is kept.

    Args:
        stage: place in a longer job, for the progress line.

    Raises:
        InputError: a wrong manifest, an ``out`` of another plan, too many failures, a full disk.
    """
    manifest, out, config = Path(manifest), Path(out), config or IngestConfig()
    clips = read_manifest(manifest)
    labels = label_vocabulary(clips, config, manifest)
    plan = make_plan(clips, config.samples_per_shard, manifest.parent)
    try:
        with alone(out, "ingestion"):
            keep_plan(out, plan, config)
            sweep(out, "media", "ledger")
            results = _work(plan, config, out.absolute(), stage)
            return _assemble(plan, results, config, labels, out)
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        raise InputError(f"can't be written: {error.strerror or error}", file=out, remedy=remedy) from error


def _finished(out: Path, shard: ShardPlan) -> ShardResult | None:
    return read_ledger(ShardResult, out, shard.name, shard.digest)


def _work(
    plan: Sequence[ShardPlan], config: IngestConfig, out: Path, stage: str | None
) -> dict[str, ShardResult]:
    """Results of all shards by name; those that are finished are read, the others made."""
    done = {shard.name: result for shard in plan if (result := _finished(out, shard)) is not None}
    todo = [shard for shard in plan if shard.name not in done]
    total, before = (sum(len(shard.clips) for shard in shards) for shards in (plan, plan))
    before -= sum(len(shard.clips) for shard in todo)
    sizes = {shard.name: len(shard.clips) for shard in plan}
    if not todo:
        return done
    with Progress("ingest", total, done=before, stage=stage) as progress:
        for name, result in _run(todo, config, out):
            done[name] = result
            failures = sum(len(r.quarantined) for r in done.values())
            progress.advance(sizes[name], quarantined=str(failures))
            _check_budget(failures, config, result)
    return done


def _check_budget(failures: int, config: IngestConfig, result: ShardResult) -> None:
    if config.max_failures is not None and failures > config.max_failures:
        last = result.quarantined[-1] if result.quarantined else None
        example = f"; for example '{last.id}': {last.error}: {last.message}" if last else ""
        message = f"{failures} clips failed, more than max_failures={config.max_failures}{example}"
        raise InputError(message, field="max_failures", remedy="correct the clips, or raise max_failures")


def _run(plan: Sequence[ShardPlan], config: IngestConfig, out: Path) -> Iterator[tuple[str, ShardResult]]:
    if config.workers == 0:
        yield from ((shard.name, ingest_shard(shard, config, out)) for shard in plan)
        return
    with ray_session(config.workers):
        yield from _run_on_ray(plan, config, out)


def _run_on_ray(
    plan: Sequence[ShardPlan], config: IngestConfig, out: Path
) -> Iterator[tuple[str, ShardResult]]:
    """One task per shard, never more in flight than can run soon, results as they come."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=config.worker_tries, retry_exceptions=False)(ingest_shard)
    limit = config.workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def submit(shard: ShardPlan) -> ray.ObjectRef:
        return task.remote(shard, config, out)

    yield from run_in_slots(plan, [submit] * limit, tries=config.worker_tries, out=out)


def _assemble(
    plan: Sequence[ShardPlan],
    results: dict[str, ShardResult],
    config: IngestConfig,
    labels: tuple[str, ...],
    out: Path,
) -> DatasetInfo:
    """dataset.json and quarantine.jsonl, from the shards' results alone, in the plan's order."""
    ordered = [results[shard.name] for shard in plan]
    lines = [q.model_dump_json() + "\n" for result in ordered for q in result.quarantined]
    write_text(out / QUARANTINE_FILE, "".join(lines))
    if not any(result.shard.samples for result in ordered):
        first = next(q for result in ordered for q in result.quarantined)
        message = f"no clip could be ingested; the first, '{first.id}': {first.error}: {first.message}"
        raise InputError(message, file=out / QUARANTINE_FILE, remedy=REMEDIES[first.error])
    splits: dict[str, list[ShardResult]] = {}
    for shard, result in zip(plan, ordered, strict=True):
        splits.setdefault(shard.split, []).append(result)
    info = DatasetInfo(
        kind="media",
        preprocessing=_preprocessing(config),
        labels=labels,
        splits={split: split_info(parts) for split, parts in splits.items()},
        normalisation=Normalisation(
            audio=statistics(add([result.audio for result in ordered])),
            visual=statistics(add([result.visual for result in ordered]), unit=255.0),
        ),
    )
    info.save(out)
    return info


def _preprocessing(config: IngestConfig) -> dict[str, object]:
    return {
        "audio": "kaldi log-mel, htk_compat, hanning, mean removed, no dither",
        "sample_rate": SAMPLE_RATE,
        "frame_rate": FRAME_RATE,
        "window": WINDOW,
        "mel_bins": MEL_BINS,
        "frames": config.frames,
        "image_size": config.image_size,
        "visual": "uniform frames, shorter side bicubic, centre crop",
        "wave": config.keep_wave,
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="avmend ingest", description="Clips and manifest to media shards.")
    parser.add_argument("--manifest", required=True, type=Path, help=".csv or .jsonl, one row per clip")
    parser.add_argument("--out", required=True, type=Path, help="folder of the dataset; also to resume one")
    parser.add_argument("--config", help="preset in configs/, or a yaml file")
    parser.add_argument("--backbone", type=Path, help="then extract features by this finetune run's network")
    parser.add_argument("--depth", type=int, default=0, metavar="K", help="of the features (default 0)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the config")
    args = parser.parse_args(argv)
    try:
        config = load_config(IngestConfig, args.config, args.overrides)
        if args.backbone is None:
            _summarise(ingest(args.manifest, args.out, config), args.out)
        else:
            _ingest_and_extract(args.manifest, args.out, config, args.backbone, args.depth)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _ingest_and_extract(manifest: Path, out: Path, config: IngestConfig, backbone: Path, depth: int) -> None:
    """Both in one Ray session; a backbone that will not do is refused before any work."""
    from pipelines import features
    from pipelines.tokens import frozen_backbone

    options = [f"depth={depth}", f"workers={'null' if config.workers is None else config.workers}"]
    wanted = load_config(FeatureConfig, overrides=options)
    frozen_backbone(backbone, wanted.depth)
    with ray_session(config.workers) if config.workers != 0 else nullcontext():
        _summarise(ingest(manifest, out, config), out)
        features.summarise(features.extract(out, backbone, wanted))


def _summarise(info: DatasetInfo, out: Path) -> None:
    for name, split in info.splits.items():
        print(f"{name}: {split.samples} clips in {len(split.shards)} shards, present {split.present}")
    failures = len((out / QUARANTINE_FILE).read_text().splitlines())
    print(f"{out / 'dataset.json'}; {failures} clips in {out / QUARANTINE_FILE}")


if __name__ == "__main__":
    raise SystemExit(main())
