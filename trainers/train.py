"""``avmend train RECIPE``: a recipe on Ray Train, named by its identity, mirrored in MLflow.

The same command again continues where it stopped, or returns at once when it was finished.
"""

from __future__ import annotations

import logging
import os
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from configs import load_config
from configs.cluster import lasting, ray_session, require_resources
from shards.atomic import write_text
from shards.command import command
from shards.errors import InputError
from shards.progress import Progress
from shards.repeated import repeated
from shards.store import Place, PlaceT, place
from trainers.command_line import recipe_config, train_parser
from trainers.config import TrainConfig
from trainers.identity import content_settings
from trainers.job import Job, prepare
from trainers.journal import logs, read_metrics
from trainers.loop import Rank, local_rank
from trainers.register import model_of, register_run
from trainers.run import run
from trainers.runs import read_run
from trainers.stored_run import DriverFolder, tracking_folder
from trainers.tables import SHARES

VALIDATED = tuple(f"val_{name}" for name in SHARES)
GROUP_FILE = ".placement_group"
POLL = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
POLL_SECONDS = "0.25"  # a report waits until the one before was fetched: Ray's own 2 s are an epoch's time


def train(config: TrainConfig, runs: PlaceT, stage: str | None = None, parent: Any = None) -> PlaceT:
    """Train to the end; what an earlier run of the same identity finished is reused.

    Args:
        runs: folder of all runs and of the MLflow store, or the address of one on a store.
        stage: position in a longer job, for the progress line.
        parent: the MLflow run of the command that this is part of.

    Returns:
        the run's folder, or its address: config.json, a checkpoint per stage, logs/<stage>/metrics.jsonl.

    Raises:
        InputError: data, backbone or features missing or of another kind.
    """
    return train_job(prepare(config, runs), runs, stage, parent)


def train_job(job: Job, runs: PlaceT, stage: str | None = None, parent: Any = None) -> PlaceT:
    """As :func:`train`, of a job that was prepared already."""
    from trainers.tracking import is_closed

    where = runs.absolute() / job.name
    if job.finished and is_closed(job.mirrored):
        return where
    for note in job.notes:
        print(f"note: {note}", file=sys.stderr)
    driver = DriverFolder(where)
    with driver.at_work() as folder:
        _train(replace(job, folder=folder), tracking_folder(runs), driver, stage, parent)
    return where


def _train(job: Job, tracking: Path, driver: DriverFolder, stage: str | None, parent: Any) -> None:
    from trainers.tracking import Store

    config, folder, recipe = job.config, job.folder, job.recipe
    names = recipe.stage_names(config)
    job.begin()
    store, experiment = Store(tracking), recipe.task.experiment(config)
    with ExitStack() as stack:
        main_run = stack.enter_context(
            store.run(
                job.name,
                experiment,
                config.resolved(),
                job.tags,
                parent,
                folder=job.mirrored,
                free=free_params(config),
            )
        )
        for name in names if len(names) > 1 else ():
            own = {"recipe": recipe.run_name(config), "case": name, "seed": config.seed}
            mirrored = logs(folder, name)
            stack.enter_context(store.run(f"{job.name}/{name}", experiment, own, None, main_run, folder=mirrored))
        label = f"train {recipe.run_name(config)}"
        with _progress(config, names, folder, label, stage), driver.handed_over():
            _work(config, job.place, folder)
        main_run.summary(_summary(names, folder))
        if (model := model_of(read_run(folder))) is not None:
            main_run.model(model)


def free_params(config: TrainConfig) -> set[str]:
    """Flat names of the params that say where and how fast a run is computed, not what."""
    from trainers.tracking import flatten

    return flatten(config.resolved()).keys() - flatten(content_settings(config)).keys()


def _summary(names: Sequence[str], folder: Path) -> dict[str, float]:
    """Last and best figures of every stage, as `<stage>/val_accuracy`, `best/<stage>/val_accuracy`, ...

    Of several stages also their means, and the highest peak memory, under the names that a recipe of one
    stage has, so that both can be compared in one column.
    """
    out: dict[str, float] = {}
    last: list[dict[str, float]] = []
    for part in names:
        lines = [line.metrics for line in read_metrics(logs(folder, part))]
        last.append(lines[-1])
        out |= {f"{part}/{k}": v for k, v in lines[-1].items()}
        for name in (name for name in VALIDATED if name in lines[-1]):
            out[f"best/{part}/{name}"] = max(line[name] for line in lines)
    if len(last) > 1:
        means = (*VALIDATED, "val_loss", "epoch_seconds")
        out |= {k: statistics.fmean(x[k] for x in last) for k in means if all(k in x for x in last)}
        out["peak_memory_mb"] = max(x["peak_memory_mb"] for x in last)
    return out


@contextmanager
def _progress(config: TrainConfig, names: Sequence[str], folder: Path, label: str, stage: str | None) -> Iterator[None]:
    """One line that follows the workers' metrics.jsonl: epochs, their rate, loss, accuracy, time left."""

    def lines() -> list:
        return [line for part in names for line in read_metrics(logs(folder, part))]

    def show(progress: Progress) -> None:
        now = lines()
        if len(now) > progress.done:
            last = now[-1].metrics
            shown = {k.replace("_accuracy", ""): last[k] for k in ("loss", *VALIDATED) if k in last}
            waiting = f"{last['data_wait_seconds'] / max(last['epoch_seconds'], 1e-9):.0%}"
            progress.advance(len(now) - progress.done, **shown, waiting=waiting)

    with Progress(label, config.epochs * len(names), "epochs", stage=stage, done=len(lines())) as progress:
        try:
            with repeated(partial(show, progress), 0.5, "epochs"):
                yield
        finally:
            show(progress)


def _work(config: TrainConfig, where: Place, folder: Path) -> None:
    if config.workers == 0:
        run(config, where, local_rank(config.cpus, config.gpu))
        return
    with ray_session():
        on_ray(config, folder, where=where)


def on_ray(
    config: TrainConfig,
    folder: Path,
    callbacks: Sequence[Any] = (),
    reserved: int = 0,
    where: Place | None = None,
) -> None:
    """Train with Ray Train's workers, on the Ray that this process is connected to.

    Args:
        folder: of the run, or the driver's copy of one on a store. What Ray Train keeps of its own goes below it.
        callbacks: Ray Train's, of its RunConfig; they see every epoch, those of earlier processes too.
        reserved: CPUs of the cluster that are not for the workers.
        where: address of a run on a store.

    Raises:
        InputError: the workers do not fit on the cluster, or one of them refused its input.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    os.environ.setdefault(POLL, POLL_SECONDS)
    resources = ray.cluster_resources()
    free = int(resources.get("CPU", 1)) - reserved
    cpus = config.cpus or max(1, free // config.workers)
    gpu = resources.get("GPU", 0) >= config.workers if config.gpu is None else config.gpu
    if reserved and cpus * config.workers > free:
        message = f"{config.workers} workers with {cpus} CPUs each do not fit on {free}"
        raise InputError(message, field="workers", remedy="set workers and cpus to what the cluster has")
    if (waiting := require_resources(cpus, float(bool(gpu)), config.workers)) is not None:
        print(f"note: {waiting}", file=sys.stderr)
    rays_own = folder / "ray"  # of no use afterwards: state to resume from is in `last`
    shutil.rmtree(rays_own, ignore_errors=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "config": config,
            "folder": str(where or folder),
            "threads": cpus,
            "replay": bool(callbacks),
        },
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=bool(gpu), resources_per_worker={"CPU": cpus}),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(rays_own),
            callbacks=list(callbacks),
            failure_config=FailureConfig(max_failures=config.retries),
        ),
    )
    # Ray's own handler of Ctrl-C ends the process with status 0 or 1, past everyone's clean-up.
    trainer._register_sigint_handler = lambda controller: None  # type: ignore[attr-defined]
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(error) from error
    (folder / GROUP_FILE).unlink(missing_ok=True)
    shutil.rmtree(rays_own, ignore_errors=True)


def _cause(error: Exception) -> Exception:
    """The worker's own exception where Ray carries it: a user's mistake stays a user's mistake."""
    for inner in getattr(error, "worker_failures", {}).values():
        if isinstance(inner, InputError | FloatingPointError):
            return inner
    return error


def _worker(job: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device

    torch.set_num_threads(job["threads"])
    context = ray_train.get_context()
    rank = Rank(get_device(), context.get_world_rank(), context.get_world_size())
    where = place(job["folder"])
    if rank.index == 0 and isinstance(where, Path):
        _note_placement_group(where)

    def report(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        ray_train.report({"stage": stage, "epoch": epoch, **metrics})

    run(job["config"], where, rank, report, replay_reports=job["replay"])


def _note_placement_group(folder: Path) -> None:
    """Leave the id of the workers' placement group where :func:`free_workers` finds it."""
    import ray

    if (group := ray.util.get_current_placement_group()) is not None:
        write_text(folder / GROUP_FILE, group.id.hex(), sync=False)


def free_workers(folder: Path) -> None:
    """Take their resources from the workers of a run whose `on_ray` was killed; nothing if there are none.

    Ray Train leaves this to a helper that asks the dashboard's State API, which does not run everywhere, and
    of several clusters on one machine asks the wrong one.
    """
    import ray
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    path = folder / GROUP_FILE
    if path.exists():
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(path.read_text())))
        path.unlink(missing_ok=True)


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = train_parser().parse(argv)
    config = load_config(recipe_config(args.recipe), args.config, args.overrides)
    runs = lasting(args.runs, "--runs")
    if args.dry_run:
        from trainers.dry_run import describe

        print(describe(config, runs))
        return 0
    job = prepare(config, runs)
    finished = job.finished
    where = train_job(job, runs)
    print(f"already finished: {where}" if finished else where)
    if args.register is not None:
        print(register_run(where, args.register, runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
