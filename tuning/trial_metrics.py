"""What a trial tells its sweep: one figure per metric and epoch, over all stages of its recipe."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from models.settings import MODALITIES
from trainers.journal import logs, read_metrics


class TrialMetrics:
    """Turns the reports of a recipe's stages into those of the trial.

    Epochs are counted over all stages, one after the other. A metric is the mean over the stages begun of
    each one's last epoch; `peak_memory_mb` the highest of all epochs. An epoch that comes again (workers
    that were started anew) counts once. Where questions are answered with a modality missing,
    `val_accuracy_mean` is the mean of those accuracies and the complete one's.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()
        self._last: dict[str, Mapping[str, float]] = {}
        self._peak = 0.0

    def __call__(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """`epoch` and metrics of the trial, None for an epoch that came before."""
        if (stage, epoch) in self._seen:
            return None
        self._seen.add((stage, epoch))
        self._last[stage] = metrics
        self._peak = max(self._peak, metrics.get("peak_memory_mb", 0.0))
        shared = set.intersection(*(set(last) for last in self._last.values()))
        means = {k: statistics.fmean(last[k] for last in self._last.values()) for k in sorted(shared)}
        return {**means, **_over_cases(means), "peak_memory_mb": self._peak, "epoch": len(self._seen)}


def _over_cases(means: Mapping[str, float]) -> dict[str, float]:
    cases = ["val_accuracy", *(f"val_accuracy_{m}_missing" for m in MODALITIES)]
    if not all(name in means for name in cases):
        return {}
    return {"val_accuracy_mean": statistics.fmean(means[name] for name in cases)}


def read_trial_metrics(folder: Path, stages: Sequence[str]) -> Iterator[dict[str, float]]:
    """What the run in `folder` has reported so far, from its journals."""
    metrics_of = TrialMetrics()
    for stage in stages:
        for line in read_metrics(logs(folder, stage)):
            if (metrics := metrics_of(stage, line.step, line.metrics)) is not None:
                yield metrics
