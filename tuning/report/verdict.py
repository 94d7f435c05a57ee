"""What an evaluation comes to, in a sentence: the best method, whether it differs from the next, and chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainers.differences import PAIRS, SAME, DifferenceRow


@dataclass(frozen=True)
class Standing:
    """A method's figure.

    Attributes:
        mean: 0..1.
        half: of its 95 % interval over seeds; NaN where there is one seed.
    """

    name: str
    mean: float
    half: float


def verdict(
    figure: str,
    standings: Sequence[Standing],
    chance: float | None = None,
    differences: Sequence[DifferenceRow] = (),
) -> str:
    """The best of several methods, and whether the next one differs from it; empty for none.

    Two methods differ as their paired difference says; where there is none, if their intervals do not meet.

    Args:
        differences: of pairs in this figure, as the evaluation has them.
    """
    ranked = sorted(standings, key=lambda s: -s.mean)
    if not ranked:
        return ""
    best = ranked[0]
    text = f"Best in {figure}: {best.name}, {_percent(best)}"
    if len(ranked) > 1:
        text += f"; next {ranked[1].name}, {_percent(ranked[1])} ({_difference(best, ranked[1], differences)})"
    return f"{text}." + (f" Chance is {100 * chance:.1f} %." if chance is not None else "")


def _percent(standing: Standing) -> str:
    width = "" if math.isnan(standing.half) else f" ± {100 * standing.half:.1f}"
    return f"{100 * standing.mean:.1f}{width} %"


def _difference(first: Standing, second: Standing, differences: Sequence[DifferenceRow]) -> str:
    pairs = (row for row in differences if row.family == PAIRS and {row.method, row.other} == {first.name, second.name})
    if (found := next(pairs, None)) is not None:
        return SAME if found.verdict == SAME else f"a difference of {100 * abs(found.difference):.1f} points"
    if math.isnan(first.half) or math.isnan(second.half):
        return "one seed: no interval"
    apart = first.mean - second.mean > first.half + second.half
    return "the intervals do not meet" if apart else "no difference: the intervals meet"
