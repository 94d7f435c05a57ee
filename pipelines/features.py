"""``avmend features``: media shards to feature shards, by frozen networks.

Run it again after a kill: it goes on where it was, and ends in the same bytes. Run it again after the media
have grown: the features of the shards that they gained are added.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from configs import load_config
from configs.cluster import lasting, ray_session, require_resources
from pipelines.command_line import features_parser
from pipelines.extraction import Extraction, prepare
from pipelines.feature_shard import (
    Extractor,
    FeatureLedger,
    FeatureShard,
    extract_shard,
    read_features_ledger,
)
from pipelines.on_ray import Flow, Slot, Stage, Watch, cluster_has, run_in_slots
from pipelines.resume import finish, keep_plan, remove_partial_files, split_info
from pipelines.running_stats import add, statistics
from pipelines.settings import FeatureConfig
from shards.command import command
from shards.errors import InputError
from shards.extraction_log import append_seconds
from shards.lock import folder_lock
from shards.progress import Progress
from shards.schema import DATASET_FILE, SCHEMA_VERSION, DatasetInfo, Normalisation
from shards.store import Place, PlaceT, content, each

PLAN_FILE = "features.json"


def extract(
    data: PlaceT,
    backbone: Path | None = None,
    config: FeatureConfig | None = None,
    stage: str | None = None,
    weights: Path | None = None,
) -> PlaceT:
    """Extract the features of a media dataset; what an earlier run finished is kept.

    Shards that the media have gained since then get theirs, and no shard is written again.

    Args:
        data: folder or address of the media shards; the features go into its ``features`` folder.
        backbone: folder of a `finetune` or (not for tokens) `dense` run, or of its checkpoint.
        stage: place in a longer job, for the progress line.
        weights: folder of public weights, for extractors of those.

    Returns:
        the folder of the feature shards.

    Raises:
        InputError: no media dataset, no backbone or weights, a depth beyond it, a folder begun otherwise, a
            full disk.
    """
    job = prepare(data, backbone, config or FeatureConfig(), weights)
    run(job, stage)
    return job.out


def run(job: Extraction[PlaceT], stage: str | None = None) -> None:
    """Extract what an earlier run has not.

    Raises:
        InputError: a folder begun otherwise, a damaged shard, a full disk.
    """
    try:
        with folder_lock(job.out, "extraction"):
            keep(job)
            remove_partial_files(job.out, "ledger", "index")
            finish(_assemble(job, _work(job, stage)), job.out)
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        raise InputError(f"can't be written: {error.strerror or error}", file=job.out, remedy=remedy) from error


def keep(job: Extraction[Any]) -> None:
    """Write the plan of an extraction into its folder, or compare it with the one that is there.

    Raises:
        InputError: a folder begun otherwise.
    """
    mine = {
        "schema_version": SCHEMA_VERSION,
        "dataset": job.info.fingerprint(),
        "backbone": job.extractor.fingerprint,
        "config": job.config.content(),
        "shards": {shard.name: shard.digest for shard in job.plan},
    }
    remedy = f"remove {job.out} to make these features anew, or give the config that it was begun with"
    keep_plan(job.out / PLAN_FILE, mine, "media dataset", remedy)


def _work(job: Extraction[Any], stage: str | None) -> dict[str, FeatureLedger]:
    """Results of all shards by name; those that are finished are read, the others made."""
    plan, out = job.plan, job.out
    found = each(partial(read_features_ledger, out), plan, out)
    done = {shard.name: result for shard, result in zip(plan, found, strict=True) if result is not None}
    todo = [shard for shard in plan if shard.name not in done]
    if not todo:
        return done
    samples, splits = {shard.name: shard.media.samples for shard in plan}, {shard.name: shard.split for shard in plan}
    before = sum(samples[name] for name in done)
    how = _run_here if job.config.workers == 0 else _run_on_ray
    with Progress("features", sum(samples.values()), done=before, stage=stage) as progress:
        clock = time.perf_counter()
        for name, result in how(todo, job, _shown(progress)):
            done[name] = result
            append_seconds(out, splits[name], samples[name], time.perf_counter() - clock)
            clock = time.perf_counter()
            progress.advance(samples[name])
    return done


def _shown(progress: Progress) -> Watch:
    def show(flow: Flow) -> None:
        progress.advance(0, shards=flow.line("extract"))

    return show


def _run_here(plan: Sequence[FeatureShard], job: Extraction[Any], watch: Watch) -> Iterator[tuple[str, FeatureLedger]]:
    move_here(job)
    for number, shard in enumerate(plan):
        watch(Flow(len(plan) - number - 1, 1, 1, number))
        yield shard.name, extract_shard(shard, job.extractor, job.config, job.data, job.out)


def move_here(job: Extraction[Any]) -> None:
    """Move the networks to where this process computes.

    Raises:
        InputError: there is no GPU, and ``gpu=true``.
    """
    job.extractor.to(_device(job.config.gpu, torch.cuda.is_available()))


def _device(gpu: bool | None, there: bool) -> str:
    if gpu and not there:
        raise InputError("there is no GPU", field="gpu", remedy="leave gpu out, or use a machine with one")
    return "cuda" if there and gpu is not False else "cpu"


class Worker:
    """An actor's inside: one shard after another, by an extractor that is fetched once per process.

    It is fetched with the first shard, not handed to the constructor, so that a restarted actor gets it too.
    """

    def __init__(self, config: FeatureConfig, data: Place, out: Place, device: str):
        self.config, self.data, self.out, self.device = config, data, out, device
        self.extractor: Extractor | None = None

    def ready(self) -> str:
        """Once the actor is up, the id of its node."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def extract(self, shared: list[Any], shard: FeatureShard) -> FeatureLedger:
        """`extract_shard`; ``shared`` holds the extractor's ObjectRef (Ray resolves none in a list)."""
        if self.extractor is None:
            import ray

            self.extractor = ray.get(shared[0])
            self.extractor.to(self.device)
        return extract_shard(shard, self.extractor, self.config, self.data, self.out)


def _run_on_ray(
    plan: Sequence[FeatureShard], job: Extraction[Any], watch: Watch
) -> Iterator[tuple[str, FeatureLedger]]:
    with ray_session(job.config.workers):
        yield from run_in_slots(plan, actors(job, len(plan), actors_device(job.config)), out=job.out, watch=watch)


def actors_device(config: FeatureConfig) -> str:
    """Where actors compute on the cluster that this process is connected to.

    Raises:
        InputError: ``gpu=true``, but there is no GPU and the cluster does not grow to one.
    """
    import ray

    there = ray.cluster_resources().get("GPU", 0) >= 1
    if config.gpu and not there and (waiting := require_resources(0, 1, 1)) is not None:
        print(f"note: {waiting}", file=sys.stderr)
        return "cuda"
    return _device(config.gpu, there)


def actors(job: Extraction[Any], most: int, device: str, cpus: float = 1.0) -> Stage[FeatureShard]:
    """A pool of actors that share one copy of the weights per machine; it grows and shrinks with the cluster. Within a
    Ray session.

    Args:
        most: actors that have something to do.
        cpus: of each.
    """
    import ray

    config, gpus = job.config, int(device == "cuda")
    # small shares of CPUs would all go to one node
    where: Literal["DEFAULT", "SPREAD"] = "DEFAULT" if gpus or cpus >= 1 else "SPREAD"
    kind = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=where)(Worker)
    shared = [ray.put(job.extractor)]

    def make() -> Slot[FeatureShard]:  # who dies is replaced by the pool
        actor: Any = kind.remote(config, job.data, job.out, device)
        return Slot(partial(actor.extract.remote, shared), actor.ready.remote(), partial(ray.kill, actor))

    def room() -> int:
        has = cluster_has("GPU" if gpus else "CPU")
        return min(config.workers or has, has, most)

    return Stage(make, room, config.worker_tries)


def _assemble(job: Extraction[Any], results: dict[str, FeatureLedger]) -> DatasetInfo:
    """dataset.json, from the shards' results alone, in the plan's order."""
    plan, info, extractor, config = job.plan, job.info, job.extractor, job.config
    parts: dict[str, list[FeatureLedger]] = {split: [] for split in config.splits or info.splits}
    for shard in plan:
        parts[shard.split].append(results[shard.name])
    ledgers = [results[shard.name] for shard in plan]
    return DatasetInfo(
        kind="features",
        preprocessing={
            **config.content(),
            "dataset": info.fingerprint(),
            **extractor.preprocessing(),
        },
        labels=info.labels,
        answers=info.answers,
        splits={split: split_info(made) for split, made in parts.items()},
        normalisation=Normalisation(
            audio=statistics(add([ledger.audio for ledger in ledgers])),
            visual=statistics(add([ledger.visual for ledger in ledgers])),
        ),
        backbone=extractor.info(),
    )


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = features_parser().parse(argv)
    named = [f"{n}={v}" for n in ("extractor", "depth") if (v := getattr(args, n)) is not None]
    config = load_config(FeatureConfig, args.config, [*args.overrides, *named])
    lasting(args.data, "--data")
    if args.dry_run:
        from pipelines.dry_run import describe_extraction

        print(describe_extraction(args.data, args.backbone, config, args.weights))
        return 0
    job = prepare(args.data, args.backbone, config, args.weights)
    before = content(job.out / DATASET_FILE)
    run(job)
    summarise(job.out)
    if before is not None and before == content(job.out / DATASET_FILE):
        print(f"already finished: {job.out}")
    return 0


def summarise(out: Place) -> None:
    """Print what a features folder holds."""
    for name, split in DatasetInfo.load(out).splits.items():
        print(f"{name}: features of {split.samples} clips in {len(split.shards)} shards")
    print(out / "dataset.json")


if __name__ == "__main__":
    raise SystemExit(main())
