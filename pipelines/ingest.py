"""``avmend ingest``: manifest to media shards, dataset.json and quarantine.jsonl.

Run it again after a kill: it goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from configs import load_config
from configs.cluster import lasting, ray_session
from pipelines.causes import MachineError
from pipelines.command_line import ingest_parser
from pipelines.incremental_plan import (
    PLAN_FILE,
    Growth,
    KeptPlan,
    KeptWork,
    kept_work,
    read_plan,
    rows_folder,
    same_revision,
)
from pipelines.on_ray import Flow, run_tasks
from pipelines.preprocessing import preprocessing
from pipelines.results import Failures, finished
from pipelines.resume import Ledger, finish, ledger_path, read_ledger, remove_partial_files, split_info
from pipelines.running_stats import Moments, add, statistics
from pipelines.settings import FeatureConfig, IngestConfig
from pipelines.shard_job import QUARANTINE_FILE, Quarantined, ShardResult, check_budget, ingest_shard
from pipelines.throttle import Turns, run_throttle
from shards.atomic import replacing
from shards.command import command
from shards.errors import InputError
from shards.inspect import absences
from shards.lock import folder_lock
from shards.progress import Progress
from shards.schema import DATASET_FILE, DatasetInfo, Normalisation
from shards.store import Place, at_hand, content, each, place
from shards.verify import plain

CAUSES = 3  # that are printed


def ingest(
    manifest: str | Place,
    out: str | Place,
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
    manifest, out, config = place(manifest).absolute(), place(out), config or IngestConfig()
    fresh = out if isinstance(out, Path) and not out.exists() else None
    try:
        with folder_lock(out, "ingestion"):
            try:
                kept, done, labels = _keep_plan(manifest, config, out, retry_quarantined)
            except InputError:
                if fresh is not None:
                    shutil.rmtree(fresh)
                raise
            plan = kept_work(kept, out.absolute(), manifest.parent)
            _work(plan, done, config, out.absolute(), stage)
            return _assemble(plan, config, labels, kept, out)
    except MachineError as error:
        remedy = "correct the machine (files, processes, room); the same command then goes on"
        raise InputError(f"clips can't be decoded here: {error.strerror}", remedy=remedy) from error
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        raise InputError(f"can't be written: {error.strerror or error}", file=out, remedy=remedy) from error


def _keep_plan(
    manifest: Place, config: IngestConfig, out: Place, retry: bool
) -> tuple[KeptPlan, dict[str, int], tuple[str, ...]]:
    """The folder's plan, grown by what the manifest has gained; of each finished shard how many clips failed in whole
    or in part; the labels."""
    before = read_plan(out, config, manifest)
    remove_partial_files(out, "media", "ledger", "index", "plan")
    done = finished(before.digests, out)
    begun = {shard.partial for name, shard in before.shards.items() if name not in done}
    if other := sorted(begun - {config.partial}):
        message = f"unfinished shards were begun with partial={other[0]}, now it is {config.partial}"
        remedy = f"finish with partial={other[0]}; --retry-quarantined may then change it for what failed"
        raise InputError(message, file=out / PLAN_FILE, field="partial", remedy=remedy)
    growth = Growth(before, manifest, out, rows_folder(out), Failures(before.digests, out), retry, config.partial)
    with growth.grown(config.samples_per_shard) as grown:
        kept = same_revision(grown, done, out / PLAN_FILE)
        labels = growth.vocabulary.checked(config, manifest)
    if kept != before or not kept.shards:
        kept.save(out)
    return kept, done, labels


def _failures(shard: KeptWork, result: ShardResult) -> list[Quarantined]:
    """The shard's clips in quarantine; not those that were planned again since, nor those taken out."""
    return [clip for clip in result.quarantined if clip.id not in shard.without]


def _work(plan: Sequence[KeptWork], done: dict[str, int], config: IngestConfig, out: Place, stage: str | None) -> None:
    """Make the shards that are not done."""
    todo = {shard.name: shard for shard in plan if shard.name not in done}
    if not todo:
        return
    failures = sum(done[shard.name] - len(shard.without) for shard in plan if shard.name in done)
    total, left = (sum(shard.clips for shard in shards) for shards in (plan, todo.values()))
    limits = (config.fetch.at_once, config.fetch.per_second, config.workers)
    with Progress("ingest", total, done=total - left, stage=stage) as progress, run_throttle(*limits) as turns:

        def watch(flow: Flow) -> None:
            progress.advance(0, failed=str(failures), shards=flow.line("decode"))

        shards, shared = list(todo.values()), (config, out, turns)
        work = run_tasks(ingest_kept, shards, shared, config.workers, config.worker_tries, out, watch)
        for name, result in work:
            shard = todo[name]
            failures += len(_failures(shard, result)) + result.halves
            progress.advance(shard.clips, failed=str(failures))
            check_budget(failures, config, result.quarantined)


def ingest_kept(shard: KeptWork, config: IngestConfig, out: Place, turns: Turns | None = None) -> ShardResult:
    """Make one shard of a kept plan, as `pipelines.shard_job.ingest_shard` does."""
    return ingest_shard(shard.load(), config, out, turns)


def _assemble(
    plan: Sequence[KeptWork], config: IngestConfig, labels: tuple[str, ...], kept: KeptPlan, out: Place
) -> DatasetInfo:
    """dataset.json, quarantine.jsonl and the tables of ``index``, from the shards' results alone, in the plan's
    order."""
    splits: dict[str, list[Ledger]] = {}
    moments: dict[str, list[Moments]] = {"audio": [], "visual": []}
    first: Quarantined | None = None
    with replacing(out / QUARANTINE_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for shard, result in zip(plan, each(partial(_result, out=out), plan, out), strict=True):
            failures = _failures(shard, result)
            file.writelines(clip.model_dump_json() + "\n" for clip in failures)
            first = first or next(iter(failures), None)
            splits.setdefault(shard.split, []).append(result.without_clips())
            for modality, parts in moments.items():
                parts.append(getattr(result, modality))
    complete = kept.model_copy(update={"assembled": len(plan)})
    if first is not None and not any(result.shard.samples for parts in splits.values() for result in parts):
        complete.save(out)
        message = f"no clip could be ingested; the first, '{first.id}': {first.error}: {first.message}"
        raise InputError(message, file=out / QUARANTINE_FILE, remedy=first.remedy)
    info = DatasetInfo(
        kind="media",
        preprocessing=preprocessing(config, kept.revision),
        labels=labels,
        splits={split: split_info(parts) for split, parts in splits.items()},
        normalisation=Normalisation(
            audio=statistics(add(moments["audio"])),
            visual=statistics(add(moments["visual"]), unit=255.0),
        ),
    )
    finish(info, out)
    if complete != kept:
        complete.save(out)
    remove_partial_files(out, "media", "ledger", "index", "plan")  # of workers that outlived the killed driver
    return info


def _result(shard: KeptWork, out: Place) -> ShardResult:
    result = read_ledger(ShardResult, out, shard.name, shard.digest)
    if result is None:
        message, remedy = "the result of a finished shard is gone", "the same command makes it again"
        raise InputError(message, file=ledger_path(out, shard.name), remedy=remedy)
    return result


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
    before = content(args.out / DATASET_FILE)
    if args.backbone is None:
        _summarise(ingest(args.manifest, args.out, config, retry_quarantined=retry), args.out)
    else:
        _ingest_and_extract(args.manifest, args.out, config, retry, args.backbone, args.depth)
    if before is not None and before == content(args.out / DATASET_FILE):
        print(f"already finished: {args.out}")
    return 0


def _ingest_and_extract(
    manifest: Place, out: Place, config: IngestConfig, retry: bool, backbone: Path, depth: int
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


def _summarise(info: DatasetInfo, out: Place) -> None:
    for name, split in info.splits.items():
        print(f"{name}: {split.samples} clips in {len(split.shards)} shards, present {split.present}")
        print(*(f"  {text}\n" for text in absences(split)), sep="", end="")
    with at_hand(out / QUARANTINE_FILE).open(encoding="utf-8") as file:
        causes = Causes(Quarantined.model_validate_json(line) for line in file)
    print(f"{out / 'dataset.json'}; {causes.total} clips in {out / QUARANTINE_FILE}")
    print(*(f"  {line}\n" for line in causes.lines()), sep="", end="")
    print(f"which of them are silent, black, frozen, blurred, in two splits: avmend audit {out}")


class Causes:
    """Why clips were not ingested: how many by cause, and the first of each."""

    def __init__(self, failures: Iterable[Quarantined]):
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Quarantined] = {}
        for clip in failures:
            self._counts[clip.error] += 1
            self._first.setdefault(clip.error, clip)

    @property
    def total(self) -> int:
        """Clips in quarantine."""
        return self._counts.total()

    def lines(self) -> list[str]:
        """The most frequent causes: how many clips, the first of them, what to do."""
        lines, told = [], self._counts.most_common(CAUSES)
        for error, count in told:
            first = self._first[error]
            lines.append(f"{count} {error}; the first, '{plain(first.id)}': {plain(first.message)}")
            lines.append(f"  remedy: {first.remedy}")
        rest = self.total - sum(count for _, count in told)
        return [*lines, f"{rest} of other causes"] if rest else lines


if __name__ == "__main__":
    raise SystemExit(main())
