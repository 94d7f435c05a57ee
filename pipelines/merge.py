"""``avmend merge DIR --out NEW``: the same samples in fewer shards, after many small additions.

The new folder has its plan, ledger and quarantine, so that ingestion goes on there; no sample is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.command_line import merge_parser
from pipelines.incremental_plan import PLAN_FILE, KeptPlan, KeptShard, KeptWork, kept_work, rows_file, rows_folder
from pipelines.manifest import Clip
from pipelines.plan import rows_digest
from pipelines.resume import finish, make_shard, read_ledger, remove_partial_files, split_info, write_ledger
from pipelines.rows import writing
from pipelines.running_stats import add
from pipelines.shard_job import QUARANTINE_FILE, ShardResult
from shards.atomic import write_text
from shards.brought import brought
from shards.command import command
from shards.errors import InputError
from shards.lock import folder_lock
from shards.progress import Progress
from shards.reader import ShardDataset
from shards.schema import DATASET_FILE, MODALITIES, DatasetInfo, add_absent
from shards.store import Place, content, each, place
from shards.writer import Record

NOWHERE = Path("/\x1f")  # stands for the manifest's folder: no path can lie in it, relative ones are handed on


@dataclass(frozen=True)
class Merged:
    """One shard to be, of those of the old dataset that it replaces."""

    name: str
    split: str
    parts: tuple[KeptWork, ...]

    def rows(self) -> list[tuple[Clip, int]]:
        """Its planned clips, with their digests."""
        return [row for part in self.parts for row in part.read()]


def merge(folder: Place, out: Place, samples_per_shard: int | None = None) -> DatasetInfo:
    """Write the samples of ``folder`` into ``out``, in the same order, in shards of up to so many planned clips.

    Args:
        samples_per_shard: default: the one that the folder was begun with.

    Raises:
        InputError: no finished ingestion, a damaged shard, or an ``out`` that is something else's.
    """
    folder, out = place(folder).absolute(), place(out).absolute()
    info, kept = DatasetInfo.load(folder), _plan(folder)
    config = {**kept.config, "samples_per_shard": samples_per_shard or kept.config["samples_per_shard"]}
    with folder_lock(folder, "ingestion"), folder_lock(out, "ingestion"):
        shards = merged_shards(kept_work(kept, folder, NOWHERE), list(info.splits), config["samples_per_shard"])
        _only_ours(out, shards, config)
        remove_partial_files(out, "media", "ledger", "index", "plan")
        plan = _write_plan(shards, kept, config, out)
        results = {}
        with Progress("merge", sum(split.samples for split in info.splits.values())) as progress:
            for shard in shards:
                digest = plan.shards[shard.name].digest
                result = read_ledger(ShardResult, out, shard.name, digest) or _make(shard, digest, info, folder, out)
                results[shard.name] = result
                progress.advance(result.shard.samples)
        splits = {name: split_info([results[s.name] for s in shards if s.split == name]) for name in info.splits}
        made = info.model_copy(update={"splits": splits})
        failures = (clip for shard in shards for clip in results[shard.name].quarantined)
        write_text(out / QUARANTINE_FILE, "".join(clip.model_dump_json() + "\n" for clip in failures))
        plan.save(out)  # first: a dataset without a plan is nobody's
        finish(made, out)
    return made


def _plan(folder: Place) -> KeptPlan:
    path = folder / PLAN_FILE
    try:
        kept = KeptPlan.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        remedy = "give a folder that 'avmend ingest' has made; an older one: run ingest on it once more"
        raise InputError(f"no plan of an ingestion: {error}", file=path, remedy=remedy) from None
    if kept.assembled != len(kept.shards):
        raise InputError("the ingestion is not finished", file=path, remedy="finish it with the same command first")
    return kept


def merged_shards(work: Sequence[KeptWork], splits: Sequence[str], samples_per_shard: int) -> list[Merged]:
    """Neighbours of a split put together as long as they have no more planned clips than that."""
    found: list[Merged] = []
    for split in dict.fromkeys([*splits, *(shard.split for shard in work)]):
        groups: list[list[KeptWork]] = []
        for shard in (shard for shard in work if shard.split == split and shard.clips):
            last = groups[-1] if groups else []
            fits = last and sum(s.clips for s in last) + shard.clips <= samples_per_shard
            if fits and last[0].partial == shard.partial:
                last.append(shard)
            else:
                groups.append([shard])
        found += [Merged(f"{split}-{number:06d}", split, tuple(group)) for number, group in enumerate(groups)]
    return found


def _only_ours(out: Place, shards: Sequence[Merged], config: dict[str, object]) -> None:
    """Refuse a folder that holds anything but these shards, all or some of them."""
    known = {f"{shard.name}.tar" for shard in shards}
    there = out.glob("media/*.tar") if isinstance(out, Path) else ()
    strange = [path.name for path in there if path.name not in known]
    if strange or ((out / DATASET_FILE).exists() and not _is_merged(out, shards, config)):
        raise InputError("holds another dataset already", file=out, remedy="give another --out")


def _is_merged(out: Place, shards: Sequence[Merged], config: dict[str, object]) -> bool:
    """Whether a finished dataset is of these shards, and has not grown since."""
    try:
        kept = _plan(out)
    except InputError:
        return False
    planned = {shard.name: rows_digest((clip for clip, _ in shard.rows()), NOWHERE) for shard in shards}
    return (kept.config, kept.gone, kept.again, kept.digests) == (config, {}, {}, planned)


def _write_plan(shards: Sequence[Merged], kept: KeptPlan, config: dict[str, object], out: Place) -> KeptPlan:
    planned: dict[str, KeptShard] = {}
    with writing(rows_file(rows_folder(out), 0), NOWHERE) as writer:
        for shard in shards:
            rows = shard.rows()
            clips, digests = [clip for clip, _ in rows], [digest for _, digest in rows]
            planned[shard.name] = KeptShard(
                digest=rows_digest(clips, NOWHERE),
                partial=shard.parts[0].partial,
                clips=len(clips),
                file=0,
                batch=writer.write(clips, digests),
            )
    update = {"config": config, "assembled": len(planned), "gone": {}, "again": {}, "shards": planned}
    return kept.model_copy(update=update)


def _make(shard: Merged, digest: str, info: DatasetInfo, folder: Place, out: Place) -> ShardResult:
    """Write one shard and its ledger."""
    results = list(each(partial(_result, folder=folder), shard.parts, folder))
    written = make_shard(out / "media" / f"{shard.name}.tar", _records(results, shard, info, folder), out)
    made = ShardResult(
        digest=digest,
        shard=written,
        present={m: sum(result.present[m] for result in results) for m in MODALITIES},
        absent=add_absent(result.absent for result in results),
        quarantined=tuple(
            clip
            for part, result in zip(shard.parts, results, strict=True)
            for clip in result.quarantined
            if clip.id not in part.without
        ),
        audio=add([result.audio for result in results]),
        visual=add([result.visual for result in results]),
    )
    return write_ledger(made, out, shard.name)


def _result(part: KeptWork, folder: Place) -> ShardResult:
    result = read_ledger(ShardResult, folder, part.name, part.digest)
    if result is None:
        remedy = "run the same ingestion again, then merge"
        raise InputError(f"shard {part.name} is not finished", file=folder, remedy=remedy)
    return result


def _records(results: Sequence[ShardResult], shard: Merged, info: DatasetInfo, folder: Place) -> Iterator[Record]:
    for result in results:
        if result.shard.samples:
            with brought(folder, result.shard) as here:
                data = ShardDataset(here, shard.split, info=info.only(shard.split, result.shard))
                yield from ((data.keys[i], data.members(i)) for i in range(len(data)))


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = merge_parser().parse(argv)
    before = content(args.out / DATASET_FILE)
    made = merge(args.folder, args.out, args.samples_per_shard)
    for name, split in made.splits.items():
        print(f"{name}: {split.samples} clips in {len(split.shards)} shards")
    print(f"already finished: {args.out}" if before == content(args.out / DATASET_FILE) else args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
