"""Classification: intervals of its figures, what is compared, and gain against cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from scipy.special import stdtrit

from models.conditions import NOISY_CASES, Condition
from shards.extraction_log import making_seconds
from shards.schema import feature_folder
from trainers.answers import Answers
from trainers.classification.config import CaseConfig
from trainers.classification.ladders import rung
from trainers.classification.predict import Predictor
from trainers.classification.results import Line, Row, line_name, metrics_of
from trainers.comparing import Comparison
from trainers.cost import CostPoint, Gain, figure_of, gain_of
from trainers.differences import Sets, baselines
from trainers.recipe import FinishedRun
from trainers.scored import Scored
from trainers.tables import MEAN_AP, UNKNOWN, Interval

CLEAN, NOISY = "finetune", "finetune_noisy"
BASELINES = (NOISY, CLEAN)


def run_cost(predictor: Predictor) -> dict[str, float]:
    """Of a run as its logs have it; a case-wise one's seconds with those of the cached features that it trained on
    (train and val), which count for each method as if it were the only one. NaN where they are not known."""
    run, cost = predictor.run, predictor.run.cost()
    if not run.recipe.on_features:
        return cost
    config = cast(CaseConfig, run.config)
    place = config.features or feature_folder(run.locate(config.data), predictor.backbone.fingerprint, config.depth)
    return {**cost, "train_seconds": cost["train_seconds"] + making_seconds(place, ("train", "val"))}


def scored_of(run: FinishedRun, condition: Condition, answers: Mapping[str, Answers], samples: int) -> Iterator[Scored]:
    """A run's answers under a condition by selection; of clips with several labels none."""
    for selection, found in answers.items():
        if found.label.ndim == 1:
            right, counted = np.zeros((2, samples), dtype=bool)
            right[found.index], counted[found.index] = found.right, True
            name = line_name(run.method, selection)
            yield Scored(name, run.config.seed, condition.name, right, counted, run=run.folder.name)


def within_intervals(rows: Sequence[Row], compared: Comparison | None) -> list[Row]:
    """The rows with the interval of their method's mean over seeds: of clips with one label from right and wrong by
    clip; mAP, which no clip has, by Student's t over seeds alone."""
    found: dict[tuple[str, str], Interval] = {}
    for row in rows:
        key = (row.line, row.condition)
        if key not in found:
            same = [other.accuracy for other in rows if (other.line, other.condition) == key]
            if compared is None or row.metric == MEAN_AP:
                found[key] = student(same)
            else:
                found[key] = compared.interval(row.line, (row.condition,))
    return [replace(row, low=found[row.line, row.condition][0], high=found[row.line, row.condition][1]) for row in rows]


def student(values: Sequence[float]) -> Interval:
    """Student's interval of 95 % of a mean; NaN for one value."""
    if len(values) < 2:
        return UNKNOWN
    half = float(stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def compared_sets(compared: Comparison) -> Sets:
    """What is compared: each condition that is no corruption, the mean of the noisy cases, and of each protocol's
    corruptions."""
    protocols: dict[str, list[str]] = {}
    plain = list[str]()
    for condition in compared.conditions:
        found = rung(condition)
        (plain if found is None else protocols.setdefault(f"{found[0]}_mean", [])).append(condition)
    noisy = {"noisy_mean": NOISY_CASES} if set(NOISY_CASES) <= set(plain) else {}
    return {**{name: (name,) for name in plain}, **noisy, **protocols}


def cost_points(compared: Comparison | None, lines: Sequence[Line]) -> tuple[list[CostPoint], Gain]:
    """Methods by what they gain over clean fine-tuning in the noisy cases (in all conditions where not all of these
    were evaluated); without it, or of clips with several labels, the figure itself."""
    evaluated = list(dict.fromkeys(c for line in lines for c in line.accuracy))
    noisy = set(NOISY_CASES) <= set(evaluated)
    conditions = NOISY_CASES if noisy else tuple(evaluated)
    reference = baselines(compared, CLEAN) if compared is not None else {}
    said = "mean of the noisy cases" if noisy else "mean of all conditions"
    gain = Gain(conditions, said, CLEAN, reference, metrics_of(lines))
    points = []
    for line in lines:
        found = _gain(compared, line, gain)
        if found is not None:
            own = (line.name, line.name, "", *found)
            points.append(CostPoint(*own, line.trained, line.train_seconds, line.inference_seconds))
    return points, gain


def _gain(compared: Comparison | None, line: Line, gain: Gain) -> tuple[float, float] | None:
    if compared is not None and gain.reference:
        return gain_of(compared, line.name, gain)
    means = [line.accuracy[c][0] for c in gain.conditions if c in line.accuracy]
    if len(means) < len(gain.conditions):
        return None
    interval = compared.interval(line.name, gain.conditions) if compared is not None else UNKNOWN
    return figure_of(statistics.fmean(means), interval)
