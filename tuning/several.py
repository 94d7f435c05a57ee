"""Trainings that do not wait for each other: as many at a time as the cluster has processors for."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import InputError
from shards.progress import Progress
from shards.store import Place
from trainers.config import TrainConfig
from trainers.job import Job, prepare
from trainers.train import train, train_job

GRACE_SECONDS = 20.0  # for trainings that are told to stop


@dataclass(frozen=True)
class ParentRun:
    """What a run that is opened elsewhere needs of its parent in MLflow."""

    run_id: str
    experiment_id: str


def train_several(configs: Sequence[TrainConfig], runs: Place, stage: str, parent: Any) -> list[Place]:
    """Train all of them on the Ray that this process runs, those with `workers: 0` side by side.

    Args:
        runs: folder of all runs, which every node mounts, or its address.
        stage: position in a longer job, for the progress line.
        parent: the open MLflow run of the command.

    Returns:
        the runs' folders or addresses, in the order of `configs`.

    Raises:
        InputError: as `trainers.train.train`, of the first that fails, or whose process died more often than its
            `retries`; the others are stopped, and go on with the same command.
    """
    left: dict[Place, Job] = {}
    jobs = [prepare(config, runs) for config in configs]
    for job in jobs:
        if job.finished or job.config.workers > 0:
            train_job(job, runs, stage, parent)
        else:
            left.setdefault(job.place, job)
    if left:
        with Progress("train", len(jobs), "runs", stage=stage, done=len(jobs) - len(left)) as progress:
            _side_by_side(list(left.values()), runs, ParentRun(parent.run_id, parent.experiment_id), progress)
    return [job.place for job in jobs]


def _side_by_side(jobs: Sequence[Job], runs: Place, parent: ParentRun, progress: Progress) -> None:
    import ray

    task = ray.remote(max_retries=0)(_work)  # Ray itself would try without end what has no memory
    gpus = ray.cluster_resources().get("GPU", 0)

    def begin(job: Job) -> Any:
        options = {"num_cpus": _cpus(job.config), "num_gpus": _gpus(job.config, gpus)}
        return task.options(**options).remote(job.config, runs, parent)

    waiting, deaths = {begin(job): job for job in jobs}, Counter[Place]()
    try:
        while waiting:
            ready = ray.wait(list(waiting))[0][0]
            job = waiting.pop(ready)
            try:
                progress.advance(run=ray.get(ready).name)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                deaths[job.place] += 1
                if deaths[job.place] > job.config.retries:
                    raise _died(job, deaths[job.place], error) from error
                waiting[begin(job)] = job
    finally:
        for one in waiting:
            ray.cancel(one)  # which is as KeyboardInterrupt there; what was cancelled can't be waited for
        _wait_until_closed(jobs, GRACE_SECONDS)


def _died(job: Job, times: int, error: Exception) -> InputError:
    message = f"its process died, {times} of {times} times: {str(error).strip().splitlines()[0]}"
    remedy = "look whether its memory suffices (cpus=N has fewer at work); the same command goes on from its last epoch"
    return InputError(message, file=job.place, field="retries", remedy=remedy)


def _work(config: TrainConfig, runs: Place, parent: ParentRun) -> Place:
    """What a worker of Ray's does; it is told to stop by SIGINT, which the driver's shell may have it ignore."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return train(config, runs, None, parent)


def _wait_until_closed(jobs: Sequence[Job], seconds: float) -> None:
    """Wait for trainings that were told to stop to end their runs in MLflow, but no longer than this."""
    from trainers.tracking import is_open

    end = time.monotonic() + seconds
    while any(is_open(job.mirrored) for job in jobs) and time.monotonic() < end:
        time.sleep(0.1)


def _cpus(config: TrainConfig) -> float:
    """Processors of a training: without a number all of a node's, as in a process of its own."""
    import ray

    return config.cpus or smallest_node(ray.nodes())


def smallest_node(nodes: Sequence[Mapping[str, Any]]) -> float:
    """Processors of the smallest node, as `ray.nodes` lists them, of those that are alive and offer any; 1 where none
    does. A head that is to work at nothing offers none."""
    offered = [node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]]
    return min((cpus for cpus in offered if cpus), default=1.0)


def _gpus(config: TrainConfig, there: float) -> float:
    """A training takes a GPU where there is one, unless it says otherwise."""
    return float(config.gpu if config.gpu is not None else there > 0)
