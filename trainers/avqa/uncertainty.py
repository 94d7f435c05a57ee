"""Question answering: intervals of its figures, and gain against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from trainers.avqa.results import CONDITIONS, ZERO, Line, Result
from trainers.comparing import Comparison
from trainers.cost import CostPoint, Gain, gain_of
from trainers.differences import baselines
from trainers.tables import Interval

BASELINES = ("dropout", ZERO)
SETS = {**{condition: (condition,) for condition in CONDITIONS.values()}, "mean": tuple(CONDITIONS.values())}
MISSING = tuple(condition for condition in CONDITIONS.values() if condition != "complete")


def within_intervals(results: Sequence[Result], compared: Comparison) -> list[Result]:
    """The figures with the interval of their method's mean over seeds."""
    found: dict[tuple[str, str, str], Interval] = {}
    out = []
    for r in results:
        key = (r.line, r.condition, r.kind)
        if key not in found:
            found[key] = compared.interval(r.line, (r.condition,), r.kind)
        out.append(replace(r, low=found[key][0], high=found[key][1]))
    return out


def cost_points(compared: Comparison, lines: Sequence[Line]) -> tuple[list[CostPoint], Gain]:
    """Methods of networks by what they gain over zero fill where a modality is missing; without zero fill their
    accuracy there."""
    reference = baselines(compared, ZERO)
    gain = Gain(MISSING, "a modality missing", ZERO, reference)
    of_networks = [line for line in lines if line.network]
    points = []
    for line in of_networks:
        found = gain_of(compared, line.name, gain) if reference else _accuracy(compared, line)
        if found is not None:
            own = (line.name, line.method, _group(line, of_networks), *found)
            points.append(CostPoint(*own, line.trained, line.train_seconds, line.inference_seconds))
    return points, gain


def _group(line: Line, lines: Sequence[Line]) -> str:
    """Its network and what training clips lacked, as far as the lines differ in them."""
    parts = [line.network] if len({other.network for other in lines}) > 1 else []
    if len({other.train_missing for other in lines}) > 1:
        parts.append(f"trained without {line.train_missing}" if line.train_missing else "trained on complete clips")
    return ", ".join(parts)


def _accuracy(compared: Comparison, line: Line) -> tuple[float, float] | None:
    interval = compared.interval(line.name, MISSING)
    if math.isnan(interval[0]):
        return None
    means = [line.mean(case) for case in (("audio", 100), ("visual", 100))]
    known = [mean for mean in means if mean is not None]
    return (100 * sum(known) / len(known), 50 * (interval[1] - interval[0])) if known else None
