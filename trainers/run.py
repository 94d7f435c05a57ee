"""One training run in one worker: all stages of a recipe, one after the other. No Ray, no MLflow."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from configs.backbone import load_backbone
from shards.checkpoint import has_checkpoint
from shards.reader import ShardDataset
from trainers.config import CaseConfig, TrainConfig
from trainers.detector import fit_detector, save_detector
from trainers.fit import Place, Report, finished_epochs, fit
from trainers.journal import append_metrics, keep_until
from trainers.recipes import find_features, stages


def logs(folder: Path, stage: str) -> Path:
    """Where a stage of the run in `folder` keeps its metrics.jsonl."""
    return folder / "logs" / stage


def run(config: TrainConfig, folder: Path, place: Place, report: Report | None = None) -> None:
    """Train every stage of `config` that is not finished in `folder`, then, case-wise, the detector.

    Metrics go to `folder`/logs/<stage>/metrics.jsonl (rank 0) and to `report` (all ranks).
    """

    def record(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        if place.rank == 0:
            append_metrics(logs(folder, stage), epoch, metrics)
        if report is not None:
            report(stage, epoch, metrics)

    for stage in stages(config):
        if place.rank == 0:
            logs(folder, stage.name).mkdir(parents=True, exist_ok=True)
            keep_until(logs(folder, stage.name), finished_epochs(folder, stage.name))
        fit(stage, config, place, folder, record)
    if isinstance(config, CaseConfig) and place.rank == 0 and not has_checkpoint(folder / "detector"):
        features, info = find_features(config, load_backbone(config.backbone))
        detector, fitted = fit_detector(ShardDataset(features, "train", info=info), config.seed)
        save_detector(folder, detector, config.depth, fitted)


def local_place(threads: int | None = None) -> Place:
    """This process alone: its GPU if there is one, else `threads` CPU threads."""
    if torch.cuda.is_available():
        return Place(torch.device("cuda", 0))
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    return Place()
