"""One training run in one worker: all stages of a recipe, one after the other. No Ray, no MLflow."""

from __future__ import annotations

import json
import time
from pathlib import Path

from shards.atomic import write_text
from shards.checkpoint import has_checkpoint
from shards.store import Place
from trainers.config import TrainConfig
from trainers.journal import SIZES_FILE, append_metrics, keep_until, logs, read_metrics, record_parts
from trainers.loop import Rank, Report, finished_epochs, train_stage
from trainers.recipes import recipe_of
from trainers.stored_run import training_folder

WAIT_SECONDS = 60.0  # for the workers of a killed driver to notice and end


def run(
    config: TrainConfig, where: Place, rank: Rank, report: Report | None = None, *, replay_reports: bool = False
) -> None:
    """Train every stage of `config` that is not finished in a run's folder, then make what follows the stages.

    Metrics go to logs/<stage>/metrics.jsonl there (rank 0) and to `report` (all ranks, equally often). Those of a stage
    that is finished stay as they are, whether or not what it could be resumed from is still there.

    Args:
        where: the run's folder, or its address: then all that is saved is published there.
        replay_reports: report the epochs that an earlier process finished, too.

    Raises:
        InputError: another process trains there, or the store fails.
    """
    recipe = recipe_of(config)
    with training_folder(where, rank, WAIT_SECONDS) as (folder, saved):

        def record(stage: str, epoch: int, metrics: dict[str, float]) -> None:
            if rank.index == 0:
                append_metrics(logs(folder, stage), epoch, metrics)
            if report is not None:
                report(stage, epoch, metrics)

        for stage in recipe.stages(config):
            if rank.index == 0:
                logs(folder, stage.name).mkdir(parents=True, exist_ok=True)
                write_text(logs(folder, stage.name) / SIZES_FILE, json.dumps(stage.sizes()) + "\n")
                if not has_checkpoint(folder / stage.name):
                    keep_until(logs(folder, stage.name), finished_epochs(folder, stage.name))
            if replay_reports and report is not None:
                _replay_reports(folder, stage.name, rank, report)
            train_stage(stage, config, rank, folder, record, saved)
        if rank.index == 0 and not all(has_checkpoint(folder / part) for part in recipe.parts):
            clock = time.perf_counter()
            recipe.finish(config, folder)
            record_parts(folder, recipe.parts, time.perf_counter() - clock)


def _replay_reports(folder: Path, stage: str, rank: Rank, report: Report) -> None:
    """Report the lines of the stage's journal: rank 0 has them, the others report as often."""
    lines = read_metrics(logs(folder, stage)) if rank.index == 0 else []
    (count,) = rank.total(len(lines))
    for i in range(int(count)):
        report(stage, lines[i].step if lines else i + 1, lines[i].metrics if lines else {})
