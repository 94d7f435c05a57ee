"""An imported run as a `Job`, whose identity is that of any run, and its finished run in MLflow beside trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import digest
from trainers.config import TrainConfig
from trainers.identity import git_commit, run_identity
from trainers.job import ROOT, Job
from trainers.recipe import NO_DATA, Fingerprints
from trainers.recipes import recipe_of
from trainers.tracking import Store, is_closed

WITHOUT_DATA = "imported"  # experiment of runs that were given no clips


def imported_job(config: TrainConfig, runs: Path, content: object, imported: Mapping[str, Any]) -> Job:
    """The job of what ``avmend import KIND`` takes in. It depends on no data: no clip decided its weights.

    Args:
        content: all that the run is made of besides its config, as JSON takes it (files by their sha256); equal
            content gives the same run.
        imported: what config.json tells of it: ``kind``, ``file``.
    """
    recipe, start = recipe_of(config), digest(content)
    identity = run_identity(config, recipe.revision, "", start)
    folder = runs.absolute() / f"{recipe.run_name(config)}-{identity}"
    return Job(config, recipe, folder, identity, Fingerprints("", start), git_commit(ROOT), imported=imported)


def mirror(job: Job) -> None:
    """A finished MLflow run of the run's folder, once, with its config and ``imported: KIND``."""
    if is_closed(job.mirrored):
        return
    config, tags = job.config, {"imported": job.imported["kind"]}
    experiment = WITHOUT_DATA if config.data == NO_DATA else job.recipe.task.experiment(config)
    with Store(job.folder.parent).run(job.folder.name, experiment, config.resolved(), tags, folder=job.mirrored):
        pass  # nothing is trained
