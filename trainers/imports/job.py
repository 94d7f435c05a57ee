"""An imported run, finished: its identity is that of any run, and MLflow shows it beside trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from configs import digest
from shards.atomic import write_errors
from shards.checkpoint import save_checkpoint
from trainers.config import TrainConfig
from trainers.job import Job, job_of
from trainers.recipe import NO_DATA, Fingerprints
from trainers.tracking import Store, is_closed

WITHOUT_DATA = "imported"  # experiment of runs that were given no clips


def save_imported(
    config: TrainConfig,
    runs: Path,
    content: object,
    imported: Mapping[str, Any],
    weights: dict[str, Tensor],
    meta: dict[str, Any],
) -> Path:
    """The folder of what ``avmend import KIND`` takes in, written once. It depends on no data: no clip decided its
    weights.

    Args:
        content: all that the run is made of besides its config, as JSON takes it (files by their sha256); equal
            content gives the same run.
        imported: what config.json tells of it: ``kind``, ``file``.
        weights, meta: of its one checkpoint.
    """
    job = job_of(config, Fingerprints("", digest(content)), runs, imported)
    if not job.finished:
        job.begin()
        (name,) = job.recipe.checkpoints(config)
        with write_errors(job.folder):
            save_checkpoint(job.folder / name, weights, meta)
    _mirror(job)
    return job.folder


def _mirror(job: Job) -> None:
    """A finished MLflow run of the run's folder, once, with its config and ``imported: KIND``."""
    if is_closed(job.mirrored):
        return
    config, tags = job.config, {"imported": job.imported["kind"]}
    experiment = WITHOUT_DATA if config.data == NO_DATA else job.recipe.task.experiment(config)
    with Store(job.folder.parent).run(job.folder.name, experiment, config.resolved(), tags, folder=job.mirrored):
        pass  # nothing is trained
