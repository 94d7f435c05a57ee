"""What came of a trial: read from its run's folder, kept in the sweep's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shards.atomic import write_text
from shards.checkpoint import checkpoint_meta, has_checkpoint
from shards.errors import InputError, nearest
from trainers.job import Job
from trainers.journal import SIZES_FILE, logs, read_metrics
from trainers.recipes import recipe_of
from tuning.space import Params
from tuning.test_answers import answered, has_protocol, outdated
from tuning.trial import FAILURE
from tuning.trial_metrics import read_trial_metrics

FILE = "outcome.json"
Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One point of the space, with its training job and its place in the sweep's folder."""

    number: int
    params: Params
    job: Job
    place: Path

    @property
    def name(self) -> str:
        """Of its run."""
        return self.job.name

    @property
    def over(self) -> bool:
        """Nothing is left to do: trained to the end, and the protocol, if there is one, sat."""
        return self.job.finished and (not has_protocol(self.job.config) or bool(answered(self.place)))


@dataclass(frozen=True)
class Outcome:
    """The end of a trial.

    Attributes:
        status: finished; stopped early; or failed, then with its `error`.
        epochs: trained, over all stages.
        metrics: means over the stages of each one's last epoch, and `best/<metric>`.
        trained: parameters trained per stage.
        epoch_seconds: mean over all epochs.
        train_seconds: sum over all epochs.
        peak_memory_mb: highest of all epochs.
        curve: the sweep's metric by epoch.
        started, wall_seconds: when there was a place for the trial (seconds since 1970), and from then to its
            end, the start of its process included, in the call that ended it; 0 if nothing was left to train.
    """

    number: int
    name: str
    params: Params
    seed: int
    status: Status
    epochs: int
    metrics: dict[str, float]
    trained: int
    epoch_seconds: float
    train_seconds: float
    peak_memory_mb: float
    curve: tuple[float, ...]
    error: str = ""
    started: float = 0.0
    wall_seconds: float = 0.0

    def cost(self, name: str) -> float:
        """One of `tuning.config.Cost`."""
        return float(getattr(self, name))


def outcome(trial: Trial, metric: str, mode: str, error: str = "") -> Outcome:
    """What the disk says about a trial that is not running.

    Args:
        error: why it ended, if it failed.

    Raises:
        InputError: it did not fail, and its epochs have no such metric.
    """
    parts = recipe_of(trial.job.config).stage_names(trial.job.config)
    folder = trial.job.folder
    lines = list(read_trial_metrics(folder, parts))
    last = {k: v for k, v in (lines[-1] if lines else {}).items() if k != "epoch"}
    if lines and metric not in last and not error:
        hint = nearest(metric, last)
        remedy = f"{hint}the recipe has: {', '.join(last)}"
        raise InputError(f"no metric '{metric}' in the trials' epochs", field="search.metric", remedy=remedy)
    curve = tuple(line[metric] for line in lines if metric in line)
    if curve:
        last[f"best/{metric}"] = max(curve) if mode == "max" else min(curve)
    seconds = [line.metrics["epoch_seconds"] for part in parts for line in read_metrics(logs(folder, part))]
    return Outcome(
        number=trial.number,
        name=trial.name,
        params=trial.params,
        seed=trial.job.config.seed,
        status="failed" if error else "finished" if trial.job.finished else "stopped",
        epochs=len(lines),
        metrics=last,
        trained=_trained(folder, parts),
        epoch_seconds=sum(seconds) / max(1, len(seconds)),
        train_seconds=sum(seconds),
        peak_memory_mb=last.get("peak_memory_mb", 0.0),
        curve=curve,
        error=error,
    )


def _trained(folder: Path, stages: Sequence[str]) -> int:
    """Parameters that a stage trains, as it said before its first epoch; 0 of a trial that never got there."""
    for path in (logs(folder, stage) / SIZES_FILE for stage in stages):
        if path.is_file():
            return int(json.loads(path.read_text(encoding="utf-8"))["trained"])
    for place in (p for stage in stages for p in (folder / stage, folder / "last" / stage) if has_checkpoint(p)):
        meta, parameters = checkpoint_meta(place)  # of a run of an earlier version
        return int(meta.get("trained", parameters))
    return 0


def save_outcome(place: Path, found: Outcome) -> None:
    """Write a trial's outcome into its folder in the sweep."""
    write_text(place / FILE, json.dumps(asdict(found), indent=1) + "\n")


def saved_outcome(place: Path) -> Outcome | None:
    """The outcome that an earlier call kept; None if there is none, a failure, which is tried again, or answers that
    are to be made anew."""
    try:
        record: dict[str, Any] = json.loads((place / FILE).read_text())
    except FileNotFoundError:
        return None
    found = Outcome(**{**record, "curve": tuple(record["curve"])})
    return None if found.status == "failed" or outdated(place) else found


def failure(place: Path) -> str:
    """What the trial wrote of its failure, empty if nothing."""
    try:
        return str(json.loads((place / FAILURE).read_text())["error"])
    except FileNotFoundError:
        return ""


def outcomes(folder: Path) -> list[Outcome]:
    """All outcomes that the sweep in `folder` has kept, failures too, by number; of two the newer one."""
    found: dict[int, Outcome] = {}
    for path in sorted(folder.glob(f"trials/*/{FILE}"), key=lambda path: path.stat().st_mtime_ns):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["number"]] = Outcome(**{**record, "curve": tuple(record["curve"])})
    return [found[number] for number in sorted(found)]
