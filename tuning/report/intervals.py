"""Means over seeds with intervals of 95 %: as the evaluation has them; where it has none, Student's t over seeds."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from scipy.special import stdtrit

from trainers.avqa import results as asked
from trainers.classification import results as classified
from trainers.tables import Interval, spread
from trainers.tables import half_width as half_of
from tuning import tables

LEVEL = 0.95
SAID = "mean ± half width of the 95 % interval over seeds (Student's t)"
OVER_CLIPS = "mean ± half width of the 95 % interval over clips (bootstrap) and seeds (Student's t)"


def half_width(sd: float, count: int) -> float:
    """Half of the interval around a mean of `count` values: t(0.975, n - 1) sd / sqrt(n). NaN for fewer than
    two: nothing is known of the spread."""
    if count < 2:
        return math.nan
    return float(stdtrit(count - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(count)


def said(rows: Sequence[classified.Row | asked.Result]) -> str:
    """What the intervals of an evaluation's figures are over."""
    if not all(math.isnan(row.low) for row in rows):
        return OVER_CLIPS
    return SAID if len({row.seed for row in rows}) > 1 else "one seed, so no interval"


def _half(known: Interval, sd: float, count: int) -> float:
    half = half_of(known)
    return half_width(sd, count) if math.isnan(half) else half


def of_values(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width."""
    mean, sd = spread(values)
    return mean, half_width(sd, len(values))


def one_per_seed(rows: Sequence[classified.Row]) -> list[classified.Row]:
    """Rows of one method, selection, seed and condition as one, with their mean accuracy."""
    groups: dict[tuple[str, str, int, str], list[classified.Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.selection, row.seed, row.condition), []).append(row)
    return [replace(g[0], accuracy=statistics.fmean(row.accuracy for row in g)) for g in groups.values()]


def of_rows(rows: Sequence[classified.Row]) -> list[classified.Line]:
    """`trainers.classification.results.summarise` with half widths for standard deviations; of several runs of one
    method and seed the mean comes first, so that a value is a seed."""
    rows = one_per_seed(rows)
    counts = Counter((row.method, row.selection, row.condition) for row in rows)
    return [
        replace(
            line,
            accuracy={
                c: (mean, _half(line.intervals[c], sd, counts[line.method, line.selection, c]))
                for c, (mean, sd) in line.accuracy.items()
            },
        )
        for line in classified.summarise(rows)
    ]


def of_results(results: Sequence[asked.Result]) -> list[asked.Line]:
    """`trainers.avqa.results.summarise` with half widths in place of standard deviations."""
    counts = Counter((r.line, r.missing, r.rate, r.kind) for r in results)
    return [
        replace(
            line,
            accuracy={
                case: {
                    kind: (mean, _half(line.interval(case, kind), sd, counts[line.name, *case, kind]))
                    for kind, (mean, sd) in kinds.items()
                }
                for case, kinds in line.accuracy.items()
            },
        )
        for line in asked.summarise(results)
    ]


def of_outcomes(lines: Sequence[tables.Line]) -> list[tables.Line]:
    """A sweep's lines with half widths in place of standard deviations."""
    return [replace(line, sd=half_width(line.sd, line.seeds)) for line in lines]
