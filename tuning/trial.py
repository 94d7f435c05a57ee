"""One trial, as Ray Tune runs it: in the Tune function itself, or, with several workers, in a nested Ray
Train run that reports every epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shards.atomic import write_text
from shards.errors import InputError
from trainers.config import TrainConfig
from trainers.loop import local_rank
from trainers.recipes import RECIPES
from trainers.run import run
from trainers.train import on_ray
from tuning.config import AnswerProtocol
from tuning.test_answers import has_protocol, run_protocol
from tuning.trial_metrics import TrialMetrics

FAILURE = "failure.json"


def is_nested(config: TrainConfig) -> bool:
    """Whether a trial of this config needs workers of its own."""
    return config.workers > 1


def train_trial(job: dict[str, Any]) -> None:
    """Train what an earlier process left, telling Tune every epoch, those of earlier processes too; then have
    the run of a network that answers questions sit its protocol.

    What would fail again the same way (wrong input, a loss that is not finite) is written to the trial's
    folder and ends it; anything else is raised, so that Tune starts the trial again.

    Args:
        job: `recipe`, `settings` (its config as json), `folder` of the run, `place` of the trial, `protocol`.
    """
    config = RECIPES[job["recipe"]].config.model_validate(job["settings"])
    try:
        if is_nested(config):
            on_ray(config, Path(job["folder"]), [_callback()], reserved=1)
        else:
            _alone(config, Path(job["folder"]))
        if has_protocol(config):
            run_protocol(
                Path(job["folder"]),
                Path(job["place"]),
                AnswerProtocol.model_validate(job["protocol"]),
                config.cpus or 1,
            )
    except (InputError, FloatingPointError) as error:
        record = {"kind": type(error).__name__, "error": str(error)}
        write_text(Path(job["place"]) / FAILURE, json.dumps(record, indent=1) + "\n")


def _alone(config: TrainConfig, folder: Path) -> None:
    from ray import tune

    metrics_of = TrialMetrics()

    def report(stage: str, epoch: int, metrics: dict[str, float]) -> None:
        if (line := metrics_of(stage, epoch, metrics)) is not None:
            tune.report(line)

    run(config, folder, local_rank(config.cpus, config.gpu), report, replay_reports=True)


def _callback() -> Any:
    """Ray Train's callback that tells Tune what the workers report."""
    from ray.tune.integration.ray_train import TuneReportCallback

    class Tell(TuneReportCallback):
        def __init__(self) -> None:
            super().__init__()
            self.metrics = TrialMetrics()

        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            numbers = {k: v for k, v in metrics[0].items() if k not in ("stage", "epoch")}
            line = self.metrics(metrics[0]["stage"], metrics[0]["epoch"], numbers)
            if line is not None:
                super().after_report(run_context, [line], checkpoint)

    return Tell()
