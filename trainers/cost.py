"""What methods gain against what they cost: a part of results.md, and cost.png.

Seconds are of the wall clock and compare only within one evaluation on one machine: those of training come from the
runs' logs, those of answering were measured one run after the other in the evaluation's process.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.figure_text import figure_text
from trainers.comparing import Comparison
from trainers.legend import legend_below
from trainers.tables import Interval, Spread, half_width, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST_FIGURE = "cost.png"
MARKS = "osD^vPX*"
COLOURS = 10


@dataclass(frozen=True)
class CostPoint:
    """A line of the table.

    Attributes:
        name: of the line.
        method: has its own colour.
        group: of lines, of a network or of what training clips lacked; has its own mark. "" where there is one.
        gain: in points, over `Gain.reference`; or the accuracy in percent.
        half: of its interval of 95 %; NaN where it is not known.
        trained: parameters.
        train_seconds: mean and standard deviation over seeds.
        inference_seconds: for an answer.
    """

    name: str
    method: str
    group: str
    gain: float
    half: float
    trained: int
    train_seconds: Spread
    inference_seconds: float

    @property
    def costs(self) -> tuple[float, float, float]:
        """In the order of `COSTS`."""
        return float(self.trained), self.train_seconds[0], 1000 * self.inference_seconds


COSTS = ("trained parameters", "training, s", "1,000 answers, s")


@dataclass(frozen=True)
class Gain:
    """What is gained.

    Attributes:
        conditions: over whose mean.
        said: what that is, in words.
        over: the method over which points are counted.
        reference: by line that method's; empty: the figure itself is shown.
        metric: what the figure is.
    """

    conditions: Sequence[str]
    said: str
    over: str
    reference: dict[str, str]
    metric: str = "accuracy"

    @property
    def label(self) -> str:
        """Of the axis and of the column."""
        over = f"points over {self.over}" if self.reference else f"{self.metric}, %"
        return f"{over}, {self.said}"


def gain_of(compared: Comparison, line: str, gain: Gain) -> tuple[float, float] | None:
    """Points over the reference with half of their interval; None where they have no seed in common."""
    other = gain.reference.get(line)
    if other is None:
        return None
    found = compared.difference(line, other, gain.conditions)
    return None if found is None else (100 * found.estimate.mean, 100 * found.estimate.half)


def figure_of(mean: float | None, interval: Interval) -> tuple[float, float] | None:
    """The figure itself in percent, with half of its interval."""
    return None if mean is None else (100 * mean, 100 * half_width(interval))


def cost_markdown(points: Sequence[CostPoint], gain: Gain, budget: str | None = None) -> str:
    """Gain and costs of every method.

    Args:
        budget: a line whose training the others' is told in percent of.
    """
    whole = next((p.train_seconds[0] for p in points if p.name == budget), 0.0)
    head = ["method", gain.label, *COSTS[:2], *([f"of {budget}'s"] if whole else []), COSTS[2]]
    body = []
    for p in points:
        cells = [p.name, f"{p.gain:+.1f}" if gain.reference else f"{p.gain:.1f}", f"{p.trained:,}"]
        cells[1] += "" if math.isnan(p.half) else f" ± {p.half:.1f}"
        cells += [_seconds(p.train_seconds[0])]
        cells += [_share(p.train_seconds[0] / whole)] if whole else []
        body.append([*cells, _seconds(p.costs[2])])
    return "\n\n".join(["### Gain and cost", markdown_table(head, body)])


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def write_cost_figure(path: Path, points: Sequence[CostPoint], gain: Gain) -> None:
    """Write :func:`drawing` into a file."""
    drawing(points, gain).savefig(path, dpi=150)


def drawing(points: Sequence[CostPoint], gain: Gain) -> Figure:
    """A panel per cost: gain against it, a mark per method with its interval of 95 %, and of training time the
    standard deviation over seeds."""
    from matplotlib.figure import Figure

    groups, methods = (list(dict.fromkeys(of)) for of in ((p.group for p in points), (p.method for p in points)))
    apart = len(groups) > 1 and len(methods) <= COLOURS  # the legend tells colours and marks by themselves
    entries = len(groups) + len(methods) if apart else len(points)
    fig = Figure(figsize=(11.0, 3.7 + 0.2 * (entries // 4)), layout="constrained")
    panels = fig.subplots(1, len(COSTS), sharey=True)
    for column, (axes, label) in enumerate(zip(panels, COSTS, strict=True)):
        for p in points:
            at = methods.index(p.method)
            mark = MARKS[(groups.index(p.group) + at // COLOURS) % len(MARKS)]
            _mark(axes, p, column, f"C{at % COLOURS}", mark, "" if apart else figure_text(p.name))
        _scale(axes, [p.costs[column] for p in points])
        axes.set_xlabel(label)
        axes.axhline(0, color="0.6", linewidth=0.8) if gain.reference else None
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(figure_text(gain.label), fontsize=9)
    panels[0].set_ylim(*_limits(points))
    if apart:
        looks = {name: ("o", f"C{at}") for at, name in enumerate(methods)}
        looks |= {name: (MARKS[at % len(MARKS)], "0.4") for at, name in enumerate(groups)}
        for name, (mark, colour) in looks.items():
            panels[0].plot([], [], mark, color=colour, label=figure_text(name))
    legend_below(fig)
    return fig


def _scale(axes, costs: Sequence[float]) -> None:
    """Of costs that differ much logarithmic, where some are 0 with a linear part below the smallest other."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    some = [cost for cost in costs if cost > 0]
    if some and max(some) > 20 * min(some):
        if 0 in costs:
            axes.set_xscale("symlog", linthresh=min(some))
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(some) < 100 * min(some) else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(_number))


def _limits(points: Sequence[CostPoint]) -> tuple[float, float] | tuple[None, None]:
    """Of gains: all of them, with usual intervals whole; one that is much wider is cut."""
    gains = [p.gain for p in points if not math.isnan(p.gain)]
    halves = [p.half for p in points if not math.isnan(p.half)]
    if not gains:
        return None, None
    room = 3 * statistics.median(halves) if halves else 0.0
    return min(gains) - room - 1, max(gains) + room + 1


def _number(value: float, _position: int) -> str:
    """2000000 as 2M, 1500 as 1.5k, 0.25 as it is."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _mark(axes, point: CostPoint, column: int, colour: str, mark: str, label: str) -> None:
    """A point with its error bars; matplotlib leaves out one that was not measured (NaN)."""
    at = point.costs[column]
    aside = point.train_seconds[1] if column == 1 else math.nan
    axes.errorbar(at, point.gain, yerr=point.half, xerr=aside, fmt=mark, color=colour, markersize=6, elinewidth=1.2,
                  capsize=2, label=label or None)  # fmt: skip
