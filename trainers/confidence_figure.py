"""The figure of confidence: how far it is accuracy, and what is wrong among the surest answers, by condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from configs.figure_text import figure_text
from trainers.confidence_rows import NONE, TEMPERATURE, ConfidenceRow, RiskRow, shown_conditions
from trainers.legend import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawing(rows: Sequence[ConfidenceRow], risks: Sequence[RiskRow]) -> Figure:
    """A column per condition. Above: accuracy against mean confidence, hollow before and filled after scaling, a dot
    per method over its seeds; on the diagonal confidence is accuracy. Below: risk against coverage."""
    from matplotlib.figure import Figure

    conditions = shown_conditions(rows)
    names = list(dict.fromkeys(row.name for row in rows))
    fig = Figure(figsize=(1.2 + 2.0 * len(conditions), 5.4 + 0.2 * (len(names) // 4)), layout="constrained")
    axes = fig.subplots(2, len(conditions), squeeze=False, sharex="row", sharey="row")
    for (above, below), condition in zip(axes.T, conditions, strict=True):
        above.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
        above.set(xlim=(0, 100), ylim=(0, 100))
        above.set_title(figure_text(condition.replace("_", " ")), fontsize=9)
        for place, name in enumerate(names):
            own = [row for row in rows if (row.name, row.condition) == (name, condition)]
            _dots(above, own, f"C{place % 10}", name)
            curve = [row for row in risks if (row.name, row.condition) == (name, condition)]
            _curve(below, curve, f"C{place % 10}")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=8)
        above.set_xlabel("mean confidence, %", fontsize=8)
        below.set_xlabel("answered, %", fontsize=8)
    axes[0][0].set_ylabel("accuracy, %")
    axes[1][0].set_ylabel("wrong among answered, %")
    axes[1][0].set_ylim(bottom=0)
    legend_below(fig)
    return fig


def _dots(axis, rows: Sequence[ConfidenceRow], colour: str, name: str) -> None:
    for scaling, face in ((NONE, "none"), (TEMPERATURE, colour)):
        own = [row for row in rows if row.scaling == scaling]
        if own:
            at = 100 * np.mean([row.confidence for row in own]), 100 * np.mean([row.accuracy for row in own])
            label = figure_text(name) if scaling == NONE else "_"
            axis.plot(*at, "o", color=colour, markerfacecolor=face, markersize=6, label=label)


def _curve(axis, rows: Sequence[RiskRow], colour: str) -> None:
    scaling = TEMPERATURE if any(row.scaling == TEMPERATURE for row in rows) else NONE
    points: dict[float, list[float]] = {}
    for row in (row for row in rows if row.scaling == scaling):
        points.setdefault(row.coverage, []).append(row.risk)
    if points:
        axis.plot([100 * c for c in points], [100 * np.mean(r) for r in points.values()], color=colour, linewidth=1.3)
