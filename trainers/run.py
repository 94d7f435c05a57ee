"""One training run in one worker: all stages of a recipe, one after the other. No Ray, no MLflow."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import torch

from configs.backbone import load_backbone
from shards.checkpoint import has_checkpoint
from shards.lock import folder_lock
from shards.reader import ShardDataset
from trainers.classification.detector import fit_detector, save_detector
from trainers.config import CaseConfig, TrainConfig
from trainers.journal import append_metrics, keep_until, read_metrics
from trainers.loop import Rank, Report, finished_epochs, fit
from trainers.recipes import find_features, stages

WAIT_SECONDS = 60.0  # for the workers of a killed driver to notice and end


def logs(folder: Path, stage: str) -> Path:
    """Where a stage of the run in `folder` keeps its metrics.jsonl."""
    return folder / "logs" / stage


def run(
    config: TrainConfig,
    folder: Path,
    place: Rank,
    report: Report | None = None,
    *,
    replay_reports: bool = False,
) -> None:
    """Train every stage of `config` that is not finished in `folder`, then, case-wise, the detector.

    Metrics go to `folder`/logs/<stage>/metrics.jsonl (rank 0) and to `report` (all ranks, equally often).

    Args:
        replay_reports: report the epochs that an earlier process finished, too.

    Raises:
        InputError: another process trains there.
    """

    def record(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        if place.rank == 0:
            append_metrics(logs(folder, stage), epoch, metrics)
        if report is not None:
            report(stage, epoch, metrics)

    with ExitStack() as stack:
        if place.rank == 0:
            stack.enter_context(folder_lock(folder, "training", wait=WAIT_SECONDS))
        place.total(0)  # the other ranks read nothing before rank 0 has the folder to itself
        for stage in stages(config):
            if place.rank == 0:
                logs(folder, stage.name).mkdir(parents=True, exist_ok=True)
                keep_until(logs(folder, stage.name), finished_epochs(folder, stage.name))
            if replay_reports and report is not None:
                _replay_reports(folder, stage.name, place, report)
            fit(stage, config, place, folder, record)
        if isinstance(config, CaseConfig) and place.rank == 0 and not has_checkpoint(folder / "detector"):
            features, info = find_features(config, load_backbone(config.backbone))
            detector, fitted = fit_detector(ShardDataset(features, "train", info=info), config.seed)
            save_detector(folder, detector, config.depth, fitted)


def _replay_reports(folder: Path, stage: str, place: Rank, report: Report) -> None:
    """Report the lines of the stage's journal: rank 0 has them, the others report as often."""
    lines = read_metrics(logs(folder, stage)) if place.rank == 0 else []
    (count,) = place.total(len(lines))
    for i in range(int(count)):
        report(stage, lines[i].step if lines else i + 1, lines[i].metrics if lines else {})


def local_place(threads: int | None = None) -> Rank:
    """This process alone: its GPU if there is one, else `threads` CPU threads."""
    if torch.cuda.is_available():
        return Rank(torch.device("cuda", 0))
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    return Rank()
