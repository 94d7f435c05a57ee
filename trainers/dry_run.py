"""``avmend train --dry-run``: the resolved config, inputs, folder, and the time that a similar run took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.help import resolved
from shards.progress import format_seconds
from shards.store import Place, url_of
from trainers.config import TrainConfig
from trainers.data import dataset_info
from trainers.job import Job, prepare, read_record
from trainers.journal import logs, read_metrics
from trainers.runs import CONFIG_FILE, is_run


def describe(config: TrainConfig, runs: Place) -> str:
    """What ``train`` would do with a config, without beginning it.

    Raises:
        InputError: as `trainers.job.prepare`.
    """
    job = prepare(config, runs)
    return "\n".join([resolved(job.config), *_inputs(job), *(f"note: {note}" for note in job.notes), *_work(job)])


def _inputs(job: Job) -> Iterator[str]:
    data = job.config.data
    info = dataset_info(data)
    splits = ", ".join(f"{split.samples} {name}" for name, split in info.splits.items())
    yield f"data: {url_of(data) or data} ({info.kind}; {splits}; {len(info.labels)} labels)"
    for name, value in job.config:
        paths = value if isinstance(value, tuple) else (value,)
        for path in (path for path in paths if isinstance(path, Path) and name != "data"):
            there = is_run(path) if (url := url_of(path)) else path.exists()
            yield f"{name}: {url or path} ({'found' if there else 'not there'})"


def _work(job: Job) -> Iterator[str]:
    """What is there of the run, what would be made, and how long that may take."""
    done = {stage: len(read_metrics(logs(job.folder, stage))) for stage in job.recipe.stage_names(job.config)}
    left = sum(max(job.config.epochs - epochs, 0) for epochs in done.values())
    if job.finished:
        yield f"already finished: {job.place}"
        return
    begun = ", ".join(f"{stage} {epochs} of {job.config.epochs} epochs" for stage, epochs in done.items())
    yield f"would go on in {job.place}: {begun}" if any(done.values()) else f"would make {job.place}: {begun}"
    if (found := similar_run(job)) is None:
        yield "time: not known, no run of this recipe on this dataset has finished in that folder of runs"
    else:
        folder, seconds = found
        yield f"time: about {format_seconds(seconds * left)}, at {seconds:.3g} s an epoch as in {folder.name}"


def similar_run(job: Job) -> tuple[Path, float] | None:
    """The last run of the same recipe and dataset that has metrics, and its seconds per epoch of a stage."""
    recipe = job.folder.name.rpartition("-")[0]
    found = []
    for file in job.folder.parent.glob(f"{recipe}-*/{CONFIG_FILE}"):
        times = _epoch_seconds(file.parent)
        if times and read_record(file.parent).get("dataset") == job.tags["dataset"]:
            found.append((file.stat().st_mtime, file.parent, sum(times) / len(times)))
    return max(found)[1:] if found else None


def _epoch_seconds(folder: Path) -> list[float]:
    lines = [line for stage in sorted((folder / "logs").glob("*")) for line in read_metrics(stage)]
    return [line.metrics["epoch_seconds"] for line in lines if "epoch_seconds" in line.metrics]
