"""``avmend ingest``: manifest to media shards, dataset.json and quarantine.jsonl.

Run it again after a kill: it goes on where it was, and ends in the same bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from pipelines.on_ray import run_tasks
from pipelines.preprocessing import preprocessing
from pipelines.results import Failures, finished
from pipelines.resume import Ledger, finish, ledger_path, read_ledger, remove_partial_files, split_info
from pipelines.running_stats import Moments, add, statistics
from pipelines.settings import FeatureConfig, IngestAndExtractConfig, IngestConfig
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

if TYPE_CHECKING:
    from pipelines.extraction import Extraction  # torch, which ingestion alone does without

CAUSES = 3  # that are printed


def ingest(
    manifest: str | Place,
    out: str | Place,
    config: IngestConfig | None = None,
    stage: str | None = None,
    *,
    retry_quarantined: bool = False,
    features: Extraction[Any] | None = None,
) -> DatasetInfo:
    """Ingest a manifest into ``out``; what an earlier run finished there is kept.

    Rows that the manifest has gained since then become further shards, and no shard is written again.

    Args:
        stage: place in a longer job, for the progress line.
        retry_quarantined: try the clips in quarantine again; their rows may have been corrected.
        features: as `pipelines.in_line.planned` has it; their shards are made as media shards become whole. Where no
            media shard is to be made, none of them is: `pipelines.features.run` makes them, and what is of all shards.

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
            with _features_begun(features, plan, done, labels, kept, config) as job:
                _work(plan, done, config, out.absolute(), stage, job)
            return _assemble(plan, config, labels, kept, out)
    except MachineError as error:
        remedy = "correct the machine (files, processes, room); the same command then goes on"
        raise InputError(f"clips can't be decoded here: {error.strerror}", remedy=remedy) from error
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        file = error.filename if isinstance(error.filename, str) else out
        raise InputError(f"can't be written: {error.strerror or error}", file=file, remedy=remedy) from error


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


@contextmanager
def _features_begun(
    job: Extraction[Any] | None,
    plan: Sequence[KeptWork],
    done: Container[str],
    labels: tuple[str, ...],
    kept: KeptPlan,
    config: IngestConfig,
) -> Iterator[Extraction[Any] | None]:
    """The extraction from the media that are there; None where none is wanted, or no media shard is to be made."""
    if job is None or all(shard.name in done for shard in plan):
        yield None
        return
    from pipelines.in_line import begun

    if unknown := sorted(set(job.config.splits or ()) - {shard.split for shard in plan}):
        remedy = f"choose from: {', '.join(dict.fromkeys(shard.split for shard in plan))}"
        raise InputError(f"the manifest has no split '{unknown[0]}'", field="features.splits", remedy=remedy)
    splits: dict[str, list[Ledger]] = {}
    there = [shard for shard in plan if shard.name in done]
    for shard, result in zip(there, each(partial(_result, out=job.data), there, job.data), strict=True):
        splits.setdefault(shard.split, []).append(result.without_clips())
    with begun(job, _info(config, kept, labels, splits)) as started:
        yield started


def _work(
    plan: Sequence[KeptWork],
    done: dict[str, int],
    config: IngestConfig,
    out: Place,
    stage: str | None,
    job: Extraction[Any] | None,
) -> None:
    """Make the shards that are not done, and features of them."""
    todo = {shard.name: shard for shard in plan if shard.name not in done}
    if not todo:
        return
    failures = sum(done[shard.name] - len(shard.without) for shard in plan if shard.name in done)
    total, left = (sum(shard.clips for shard in shards) for shards in (plan, todo.values()))
    limits = (config.fetch.at_once, config.fetch.per_second, config.workers)
    with (
        ray_session(config.workers) if config.workers != 0 else nullcontext(),  # its start is no part of the rate
        Progress("ingest", total, done=total - left, stage=stage) as progress,
        run_throttle(*limits) as turns,
    ):

        def show(shards: str) -> None:
            progress.advance(0, failed=str(failures), shards=shards)

        for name, result in _made(list(todo.values()), (config, out, turns), config, job, show):
            if not isinstance(result, ShardResult):
                continue  # features
            shard = todo[name]
            failures += len(_failures(shard, result)) + result.halves
            progress.advance(shard.clips, failed=str(failures))
            check_budget(failures, config, result.quarantined)


def _made(
    shards: Sequence[KeptWork],
    arguments: tuple[IngestConfig, Place, Turns | None],
    config: IngestConfig,
    job: Extraction[Any] | None,
    show: Callable[[str], None],
) -> Iterator[tuple[str, Ledger]]:
    """Name and ledger of each shard as it is finished; where the shards are is shown meanwhile."""
    if job is None:
        tries, out = config.worker_tries, arguments[1]
        yield from run_tasks(
            ingest_kept, shards, arguments, config.workers, tries, out, lambda flow: show(flow.line("decode"))
        )
        return
    from pipelines.in_line import ingest_and_extract, line

    yield from ingest_and_extract(
        ingest_kept, shards, arguments, config, job, lambda first, second: show(line(first, second))
    )


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
    info = _info(config, kept, labels, splits).model_copy(
        update={
            "normalisation": Normalisation(
                audio=statistics(add(moments["audio"])),
                visual=statistics(add(moments["visual"]), unit=255.0),
            )
        }
    )
    finish(info, out)
    if complete != kept:
        complete.save(out)
    remove_partial_files(out, "media", "ledger", "index", "plan")  # of workers that outlived the killed driver
    return info


def _info(
    config: IngestConfig, kept: KeptPlan, labels: tuple[str, ...], splits: dict[str, list[Ledger]]
) -> DatasetInfo:
    """dataset.json of these shards, without statistics."""
    return DatasetInfo(
        kind="media",
        preprocessing=preprocessing(config, kept.revision),
        labels=labels,
        splits={split: split_info(parts) for split, parts in splits.items()},
    )


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
    depth = [f"features.depth={args.depth}"] if args.depth is not None else []
    config = load_config(IngestAndExtractConfig, args.config, [*args.overrides, *depth])
    lasting(args.out, "--out")
    retry, job = args.retry_quarantined, None
    if config.features is not None or args.backbone is not None or args.weights is not None:
        from pipelines.in_line import planned

        job = planned(args.out, config.media(), config.features or FeatureConfig(), args.backbone, args.weights)
    if args.dry_run:
        from pipelines.dry_run import describe_ingestion

        print(describe_ingestion(args.manifest, args.out, config, retry, job))
        return 0
    before = content(args.out / DATASET_FILE)
    if job is None:
        _summarise(ingest(args.manifest, args.out, config.media(), retry_quarantined=retry), args.out)
    else:
        _ingest_and_extract(args.manifest, args.out, config.media(), retry, job)
    if before is not None and before == content(args.out / DATASET_FILE):
        print(f"already finished: {args.out}")
    return 0


def _ingest_and_extract(manifest: Place, out: Place, config: IngestConfig, retry: bool, job: Extraction[Any]) -> None:
    """Both in one Ray session; what is left of the features, and what is of all of them, at the end."""
    from pipelines import features
    from pipelines.extraction import extraction_of

    with ray_session(config.workers) if config.workers != 0 else nullcontext():
        info = ingest(manifest, out, config, retry_quarantined=retry, features=job)
        _summarise(info, out)
        features.run(extraction_of(job.data, info, job.config, job.extractor))
        features.summarise(job.out)


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
