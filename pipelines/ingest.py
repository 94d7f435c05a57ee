"""``avmend ingest``: manifest to media shards, dataset.json and quarantine.jsonl.

Run it again after a kill: it goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from configs import load_config
from configs.cluster import lasting, ray_session
from pipelines.causes import MachineError
from pipelines.command_line import ingest_parser
from pipelines.incremental_plan import PLAN_FILE, Growth, KeptPlan, read_plan, same_revision, shard_plans
from pipelines.manifest import Clip, read_manifest
from pipelines.on_ray import run_tasks
from pipelines.plan import ShardPlan, label_vocabulary
from pipelines.preprocessing import preprocessing
from pipelines.resume import kept_part, read_ledger, remove_partial_files, split_info
from pipelines.running_stats import add, statistics
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import QUARANTINE_FILE, Quarantined, ShardResult, check_budget, ingest_shard
from shards.atomic import stamps, write_text
from shards.command import command
from shards.errors import InputError
from shards.inspect import absences
from shards.lock import folder_lock
from shards.progress import Progress
from shards.scan import write_tables
from shards.schema import DatasetInfo, Normalisation
from shards.verify import plain

CAUSES = 3  # that are printed


def ingest(
    manifest: str | Path,
    out: str | Path,
    config: IngestConfig | None = None,
    stage: str | None = None,
    *,
    retry_quarantined: bool = False,
) -> DatasetInfo:
    """Ingest a manifest into ``out``; what an earlier run finished there is kept.

    Rows that the manifest has gained since then become further shards, and no shard is written again.

    Args:
        stage: place in a longer job, for the progress line.
        retry_quarantined: try the clips in quarantine again; their rows may have been corrected.

    Raises:
        InputError: a wrong manifest, an ``out`` of another plan, too many failures, a full disk.
    """
    manifest, out, config = Path(manifest).absolute(), Path(out), config or IngestConfig()
    clips = read_manifest(manifest)
    labels = label_vocabulary(clips, config, manifest)
    try:
        with folder_lock(out, "ingestion"):
            kept, done = _keep_plan(clips, manifest.parent, config, out, retry_quarantined)
            plan = shard_plans(kept, clips)
            results = _work(plan, done, config, out.absolute(), stage)
            return _assemble(plan, results, config, labels, kept, out)
    except MachineError as error:
        remedy = "correct the machine (files, processes, room); the same command then goes on"
        raise InputError(f"clips can't be decoded here: {error.strerror}", remedy=remedy) from error
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        raise InputError(f"can't be written: {error.strerror or error}", file=out, remedy=remedy) from error


def _keep_plan(
    clips: Sequence[Clip], base: Path, config: IngestConfig, out: Path, retry: bool
) -> tuple[KeptPlan, dict[str, ShardResult]]:
    """The folder's plan, grown by what the manifest has gained, and the results so far."""
    before = read_plan(out, config)
    remove_partial_files(out, "media", "ledger", "index")
    found = {name: read_ledger(ShardResult, out, name, s.digest) for name, s in before.shards.items()}
    done = {name: result for name, result in found.items() if result is not None}
    failed = {name: {clip.id for clip in result.quarantined} for name, result in done.items()}
    begun = {shard.partial for name, shard in before.shards.items() if name not in done}
    if other := sorted(begun - {config.partial}):
        message = f"unfinished shards were begun with partial={other[0]}, now it is {config.partial}"
        remedy = f"finish with partial={other[0]}; --retry-quarantined may then change it for what failed"
        raise InputError(message, file=out / PLAN_FILE, field="partial", remedy=remedy)
    growth = Growth(before, clips, base, failed, retry, config.partial)
    kept = same_revision(growth.grown(config.samples_per_shard, out / PLAN_FILE), done, out / PLAN_FILE)
    if kept != before or not kept.shards:
        kept.save(out)
    return kept, done


def _failures(shard: ShardPlan, result: ShardResult) -> list[Quarantined]:
    """The shard's clips in quarantine; not those that were planned again since, nor those taken out."""
    ids = {clip.id for clip in shard.clips}
    return [clip for clip in result.quarantined if clip.id in ids]


def _work(
    plan: Sequence[ShardPlan],
    done: Mapping[str, ShardResult],
    config: IngestConfig,
    out: Path,
    stage: str | None,
) -> dict[str, ShardResult]:
    """Results of all shards by name: those that are done, and those made now."""
    done = dict(done)
    todo = {shard.name: shard for shard in plan if shard.name not in done}
    if not todo:
        return done
    finished = [(shard, done[shard.name]) for shard in plan if shard.name in done]
    failures = sum(len(_failures(shard, result)) + result.halves for shard, result in finished)
    total, left = (sum(len(shard.clips) for shard in shards) for shards in (plan, todo.values()))
    with Progress("ingest", total, done=total - left, stage=stage) as progress:
        work = run_tasks(ingest_shard, list(todo.values()), (config, out), config.workers, config.worker_tries, out)
        for name, result in work:
            done[name], shard = result, todo.pop(name)
            failures += len(_failures(shard, result)) + result.halves
            progress.advance(len(shard.clips), queue=f"{len(todo)} shards", failed=str(failures))
            check_budget(failures, config, result.quarantined)
    return done


def _assemble(
    plan: Sequence[ShardPlan],
    results: dict[str, ShardResult],
    config: IngestConfig,
    labels: tuple[str, ...],
    kept: KeptPlan,
    out: Path,
) -> DatasetInfo:
    """dataset.json and quarantine.jsonl, from the shards' results alone, in the plan's order."""
    ordered = [results[shard.name] for shard in plan]
    failures = [clip for shard in plan for clip in _failures(shard, results[shard.name])]
    write_text(out / QUARANTINE_FILE, "".join(clip.model_dump_json() + "\n" for clip in failures))
    complete = kept.model_copy(update={"assembled": len(plan)})
    if not any(result.shard.samples for result in ordered):
        complete.save(out)
        first = failures[0]
        message = f"no clip could be ingested; the first, '{first.id}': {first.error}: {first.message}"
        raise InputError(message, file=out / QUARANTINE_FILE, remedy=first.remedy)
    splits: dict[str, list[ShardResult]] = {}
    for shard, result in zip(plan, ordered, strict=True):
        splits.setdefault(shard.split, []).append(result)
    info = DatasetInfo(
        kind="media",
        preprocessing=preprocessing(config, kept.revision),
        labels=labels,
        splits={split: split_info(parts) for split, parts in splits.items()},
        normalisation=Normalisation(
            audio=statistics(add([result.audio for result in ordered])),
            visual=statistics(add([result.visual for result in ordered]), unit=255.0),
        ),
    )
    write_tables(out, info, kept_part)
    info.save(out)
    if complete != kept:
        complete.save(out)
    remove_partial_files(out, "media", "ledger", "index")  # of workers that outlived the driver that was killed
    return info


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = ingest_parser().parse(argv)
    config = load_config(IngestConfig, args.config, args.overrides)
    lasting(args.out, "--out")
    retry = args.retry_quarantined
    if args.dry_run:
        from pipelines.dry_run import describe_ingestion

        print(describe_ingestion(args.manifest, args.out, config, retry))
        return 0
    before = stamps(args.out.glob("ledger/*.json"))
    if args.backbone is None:
        _summarise(ingest(args.manifest, args.out, config, retry_quarantined=retry), args.out)
    else:
        _ingest_and_extract(args.manifest, args.out, config, retry, args.backbone, args.depth)
    if before and before == stamps(args.out.glob("ledger/*.json")):
        print(f"already finished: {args.out}")
    return 0


def _ingest_and_extract(
    manifest: Path, out: Path, config: IngestConfig, retry: bool, backbone: Path, depth: int
) -> None:
    """Both in one Ray session; a backbone that will not do is refused before any work."""
    from pipelines import features
    from pipelines.tokens import frozen_backbone

    options = [f"depth={depth}", f"workers={'null' if config.workers is None else config.workers}"]
    wanted = load_config(FeatureConfig, overrides=options)
    frozen_backbone(backbone, wanted.depth)
    with ray_session(config.workers) if config.workers != 0 else nullcontext():
        _summarise(ingest(manifest, out, config, retry_quarantined=retry), out)
        features.summarise(features.extract(out, backbone, wanted))


def _summarise(info: DatasetInfo, out: Path) -> None:
    for name, split in info.splits.items():
        print(f"{name}: {split.samples} clips in {len(split.shards)} shards, present {split.present}")
        print(*(f"  {text}\n" for text in absences(split)), sep="", end="")
    failures = [Quarantined.model_validate_json(line) for line in (out / QUARANTINE_FILE).open(encoding="utf-8")]
    print(f"{out / 'dataset.json'}; {len(failures)} clips in {out / QUARANTINE_FILE}")
    print(*(f"  {line}\n" for line in first_causes(failures)), sep="", end="")
    print(f"which of them are silent, black, frozen, blurred, in two splits: avmend audit {out}")


def first_causes(failures: Sequence[Quarantined]) -> list[str]:
    """The causes of a quarantine, the most frequent first: how many clips, the first of them, what to do."""
    counts = Counter(clip.error for clip in failures)
    lines = []
    for error, count in counts.most_common(CAUSES):
        first = next(clip for clip in failures if clip.error == error)
        lines.append(f"{count} {error}; the first, '{plain(first.id)}': {plain(first.message)}")
        lines.append(f"  remedy: {first.remedy}")
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(CAUSES))
    return [*lines, f"{rest} of other causes"] if rest else lines


if __name__ == "__main__":
    raise SystemExit(main())
