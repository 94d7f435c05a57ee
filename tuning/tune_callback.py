"""The sweep's eye on its trials: a run of each in MLflow, their outcomes on disk, the progress line."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from configs import config_to_dict
from shards.errors import InputError
from shards.progress import Progress
from trainers.journal import append_metrics, logs, read_metrics
from trainers.recipes import recipe_of
from trainers.runs import CONFIG_FILE
from trainers.train import free_params, free_workers
from tuning.config import Search
from tuning.search import Follower
from tuning.test_answers import answered, summary
from tuning.trial import FAILURE
from tuning.trial_metrics import read_trial_metrics
from tuning.trial_result import Outcome, Trial, failure, outcome, save_outcome, saved_outcome

if TYPE_CHECKING:
    from trainers.tracking import Run, Store

SYNC_SECONDS = 5.0


class SweepCallback(Follower):
    """Opens a trial's MLflow run when it starts, copies its epochs in batches, closes it when it ends. Stops all trials
    where they do not have the metric that is to choose among them.

    Args:
        parent: the sweep's run.
        experiment: of the sweep.
    """

    def __init__(self, store: Store, parent: Run, experiment: str, search: Search, progress: Progress):
        self.store, self.parent, self.experiment = store, parent, experiment
        self.search, self.progress = search, progress
        self.outcomes: dict[int, Outcome] = {}
        self.refused: InputError | None = None  # what is wrong with all trials
        self._trials: dict[int, Trial] = {}
        self._open: dict[int, Run] = {}
        self._synced: dict[int, float] = {}
        self._started: dict[int, float] = {}
        self._freed: deque[float] = deque()  # when places came free that no trial has taken yet

    def expect(self, trial: Trial) -> bool:
        """Note a trial that comes; False if nothing of it is left to train, its outcome is then known."""
        from trainers.tracking import is_closed

        self._trials[trial.number] = trial
        found = saved_outcome(trial.place)
        if found is not None and is_closed(trial.place):
            self._count(found)
            return False
        if found is None and not trial.over:
            self._started[trial.number] = time.time()
            return True
        self._begin(trial)
        self._end(trial)
        return False

    def setup(self, stop: Any = None, num_samples: Any = None, total_num_samples: Any = None, **_: Any) -> None:
        """Nothing to set up."""

    def __call__(self, trial_id: str, result: dict) -> bool:
        """Whether a trial is stopped."""
        return self.search.metric not in result

    def stop_all(self) -> bool:
        """Whether all are."""
        return self.refused is not None

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Also called when Tune starts a trial again."""
        number = trial.config["number"]
        if number not in self._open and number in self._started and self._freed:
            self._started[number] = max(self._started[number], self._freed.popleft())
        self._begin(self._trials[number])

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """Copy what is new, at most every few seconds."""
        ours = self._trials[trial.config["number"]]
        _catch_up(ours)
        if time.monotonic() - self._synced[ours.number] >= SYNC_SECONDS:
            self._synced[ours.number] = time.monotonic()
            self._open[ours.number].try_sync()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The trial returned, or was stopped early."""
        self._end(self._trials[trial.config["number"]])
        self._freed.append(time.time())

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """The trial's process failed more often than it may; or it did so once and starts again."""
        if trial.status == "ERROR":
            self._end(self._trials[trial.config["number"]], str(trial.get_error() or "its process died"))
            self._freed.append(time.time())

    def close(self, status: str) -> None:
        """End the runs of trials that were not over."""
        for run in self._open.values():
            run.close(status)
        self._open.clear()

    def _begin(self, trial: Trial) -> None:
        if trial.number in self._open:
            return
        job = trial.job
        job.begin()
        trial.place.mkdir(parents=True, exist_ok=True)
        (trial.place / FAILURE).unlink(missing_ok=True)
        stages = recipe_of(job.config).stage_names(job.config)
        mirrors = {"": trial.place}
        if len(stages) > 1:
            mirrors |= {f"{stage}/": logs(job.folder, stage) for stage in stages}
        shown = " ".join(f"{name}={value}" for name, value in trial.params.items())
        self._open[trial.number] = self.store.open(
            f"{trial.number:03d} {shown}",
            self.experiment,
            config_to_dict(job.config),
            {**job.tags, "identity": job.identity, "folder": job.name},
            self.parent,
            folder=trial.place,
            mirrors=mirrors,
            free=free_params(job.config),
        )
        self._synced[trial.number] = time.monotonic()

    def _end(self, trial: Trial, error: str = "") -> None:
        run, job = self._open[trial.number], trial.job
        error = error or failure(trial.place)
        if not job.finished:
            free_workers(job.folder)
        _catch_up(trial)
        try:
            found = outcome(trial, self.search.metric, self.search.mode, error)
        except InputError as wrong:  # Tune would make a traceback of it
            self.refused, error = wrong, str(wrong)
            found = outcome(trial, self.search.metric, self.search.mode, error)
        if (started := self._started.pop(trial.number, None)) is not None:
            found = replace(found, started=started, wall_seconds=time.time() - started)
        save_outcome(trial.place, found)
        costs = ("trained", "epoch_seconds", "train_seconds", "peak_memory_mb", "epochs")
        best = {k: v for k, v in found.metrics.items() if k.startswith("best/")}
        run.summary({**best, **summary(answered(trial.place)), **{name: getattr(found, name) for name in costs}})
        run.tag("outcome", found.status)
        run.artifact(job.folder / CONFIG_FILE)
        if error:
            run.note(f"```\n{error}\n```")
        run.close("FAILED" if error else "FINISHED")
        del self._open[trial.number]
        self._count(found)

    def _count(self, found: Outcome) -> None:
        self.outcomes[found.number] = found
        shown: dict[str, float | str] = {}
        good = [o.metrics[self.search.metric] for o in self.outcomes.values() if o.status != "failed" and o.curve]
        if good:
            shown["best"] = max(good) if self.search.mode == "max" else min(good)
        if failed := sum(o.status == "failed" for o in self.outcomes.values()):
            shown["failed"] = str(failed)
        self.progress.advance(1, **shown)


def _catch_up(trial: Trial) -> None:
    """Write the trial's epochs that its place does not have yet."""
    known = max((line.step for line in read_metrics(trial.place)), default=0)
    for line in read_trial_metrics(trial.job.folder, recipe_of(trial.job.config).stage_names(trial.job.config)):
        epoch = int(line.pop("epoch"))
        if epoch > known:
            append_metrics(trial.place, epoch, line)
