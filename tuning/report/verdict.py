"""What an evaluation comes to, in a sentence: the best method, whether it differs from the next, and chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


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


def verdict(figure: str, standings: Sequence[Standing], chance: float | None = None) -> str:
    """The best of several methods, and whether the next one differs from it; empty for none.

    Two methods differ where their intervals do not meet; of one seed nothing is said.
    """
    ranked = sorted(standings, key=lambda s: -s.mean)
    if not ranked:
        return ""
    best = ranked[0]
    text = f"Best in {figure}: {best.name}, {_percent(best)}"
    if len(ranked) > 1:
        text += f"; next {ranked[1].name}, {_percent(ranked[1])} ({_difference(best, ranked[1])})"
    return f"{text}." + (f" Chance is {100 * chance:.1f} %." if chance is not None else "")


def _percent(standing: Standing) -> str:
    width = "" if math.isnan(standing.half) else f" ± {100 * standing.half:.1f}"
    return f"{100 * standing.mean:.1f}{width} %"


def _difference(first: Standing, second: Standing) -> str:
    if math.isnan(first.half) or math.isnan(second.half):
        return "one seed: no interval"
    apart = first.mean - second.mean > first.half + second.half
    return "the intervals do not meet" if apart else "no difference: the intervals meet"
