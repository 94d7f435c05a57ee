"""Ray Tune as the sweep uses it: it is handed our trials one by one, and may stop them early."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # csv, json and TensorBoard files per trial
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the sweep as it ends any command
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from configs import config_to_dict
from tuning.capacity import need
from tuning.config import AnswerProtocol, EarlyStop, SweepConfig
from tuning.trial import train_trial
from tuning.trial_result import Trial

TUNE_FOLDER = "ray"  # folder of Tune's own state, of no use afterwards


class Stays:
    """Not copied by Tune: it writes its parts to disk, to restore from, which a sweep does not."""

    def __deepcopy__(self, memo: dict) -> Any:
        return self

    def __getstate__(self) -> dict:
        return {}


class Follower(Stays, Callback, Stopper):
    """Is told of the trials, and says which of them end."""


class Queue(Stays, Searcher):
    """Hands Tune the trials that are left, in order; what they are is decided elsewhere."""

    def __init__(self, trials: Iterator[Trial], protocol: AnswerProtocol):
        super().__init__()
        self._trials, self._protocol = trials, protocol

    def suggest(self, trial_id: str) -> Any:
        """The next trial's job, or that there is none left."""
        trial = next(self._trials, None)
        if trial is None:
            return Searcher.FINISHED
        return {
            "number": trial.number,
            "recipe": trial.job.config.recipe,  # type: ignore[attr-defined]
            "settings": config_to_dict(trial.job.config),
            "folder": str(trial.job.folder),
            "place": str(trial.place),
            "protocol": config_to_dict(self._protocol),
        }

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: outcomes are read from the disk."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep resumes from its own records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class Halving(ASHAScheduler):
    """ASHA that lets a trial after its last epoch finish, and knows the trials of an earlier call."""

    def __init__(self, stop: EarlyStop, metric: str, mode: str, epochs: int, curves: Sequence[Sequence[float]]):
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode=mode,
            max_t=max(epochs, stop.grace + 1),
            grace_period=stop.grace,
            reduction_factor=stop.reduction,
        )
        self._epochs = epochs
        for number, curve in enumerate(curves):
            self._replay(SimpleNamespace(trial_id=f"earlier-{number}"), curve)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        """Tune's decision, but no trial is stopped between its last epoch and its final checkpoint."""
        action = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result["epoch"] >= self._epochs else action

    def _replay(self, trial: Any, curve: Sequence[float]) -> None:
        nobody: Any = None  # ASHA does not ask its controller
        self.on_trial_add(nobody, trial)
        for epoch, value in enumerate(curve, start=1):
            self.on_trial_result(nobody, trial, {"epoch": epoch, self._metric: value})
        self.on_trial_remove(nobody, trial)


def run_trials(
    config: SweepConfig,
    trials: Iterator[Trial],
    most: int,
    width: int,
    gpu_there: bool,
    epochs: int,
    curves: Sequence[Sequence[float]],
    folder: Path,
    follow: Follower,
) -> None:
    """Have Ray Tune run the trials to their ends.

    Args:
        most: how many trials there can be.
        width: how many run at a time.
        gpu_there: the cluster has GPUs.
        epochs: of a whole trial, over all stages.
        curves: metric by epoch of the trials that ended before.
        folder: of the sweep.
        follow: is told of starts, epochs and ends, and may stop them.
    """
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    shutil.rmtree(folder / TUNE_FOLDER, ignore_errors=True)

    def held(job: dict[str, Any]) -> tune.PlacementGroupFactory:
        recipe = config.kind().config.model_validate(job["settings"])
        return tune.PlacementGroupFactory([need(recipe, config.gpus, gpu_there).own])

    scheduler: TrialScheduler = FIFOScheduler()
    if (stop := config.early_stop) is not None:
        scheduler = Halving(stop, config.search.metric, config.search.mode, epochs, curves)
    tuner = tune.Tuner(
        tune.with_resources(train_trial, held),
        tune_config=tune.TuneConfig(
            search_alg=Queue(trials, config.protocol),
            scheduler=scheduler,
            num_samples=most,
            max_concurrent_trials=width,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']:03d}",
            trial_dirname_creator=lambda trial: f"{trial.config['number']:03d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / TUNE_FOLDER),
            callbacks=[follow],
            stop=follow,
            failure_config=tune.FailureConfig(max_failures=config.retries),
            verbose=0,
        ),
    )
    tuner.fit()
    shutil.rmtree(folder / TUNE_FOLDER, ignore_errors=True)
