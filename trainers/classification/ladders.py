"""Accuracy under corruptions: by corruption, by severity, and relative to the clean clips.

Mean corruption accuracy is the mean over severities, then over corruptions (each severity has as many); relative
robustness is 1 - (clean - corrupted) / clean, what is left of the clean accuracy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from configs.figure_text import figure_text
from models.conditions import condition_named
from trainers.classification.results import LOOKS, Row
from trainers.legend import legend_below
from trainers.tables import Spread, markdown_table, percent, spread, titled

CLEAN = "complete"


@dataclass(frozen=True)
class CorruptionRow:
    """The accuracy of a method under one corruption at one severity, as in corruptions.csv.

    Attributes:
        accuracy: 0..1; of clips with several labels what `metric` names.
        relative: to the accuracy on clean clips; NaN where these were not evaluated.
    """

    method: str
    selection: str
    seed: int
    protocol: str
    corruption: str
    severity: int
    accuracy: float
    relative: float
    metric: str = "accuracy"

    @property
    def name(self) -> str:
        """Method and selection."""
        return f"{self.method}, {self.selection}" if self.selection else self.method


def corruption_rows(rows: Sequence[Row]) -> list[CorruptionRow]:
    """The rows of corruptions among those of an evaluation, in their order."""
    clean = {(row.method, row.selection, row.seed): row.accuracy for row in rows if row.condition == CLEAN}
    out = []
    for row in rows:
        if (found := rung(row.condition)) is not None:
            whole = clean.get((row.method, row.selection, row.seed), 0.0)
            relative = row.accuracy / whole if whole else math.nan
            out.append(CorruptionRow(row.method, row.selection, row.seed, *found, row.accuracy, relative, row.metric))
    return out


def rung(condition: str) -> tuple[str, str, int] | None:
    """Protocol, corruption and severity of a condition; None for no corruption, and for an unknown name."""
    try:
        found = condition_named(condition)
    except KeyError:
        return None
    if found.corruption is None:
        return None
    protocol = found.corruption.protocol
    label = condition.rpartition("-")[0].removeprefix(f"{protocol}-").replace("-", " ").replace("_", " ")
    return protocol, label, found.level


Value = Callable[[CorruptionRow], float]
CellT = TypeVar("CellT")


def over_seeds(rows: Sequence[CorruptionRow], value: Value) -> Spread:
    """Mean and deviation over seeds of the mean of a figure within a seed; NaN where a figure is."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(value(row))
    means = [statistics.fmean(values) for values in by_seed.values()]
    return (math.nan, 0.0) if any(map(math.isnan, means)) else spread(means)


@dataclass(frozen=True)
class Ladder:
    """One protocol's corruptions.

    Attributes:
        corruptions, severities, methods: in the order of the evaluation.
        cells: the rows by (method, corruption, severity).
    """

    protocol: str
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    methods: tuple[str, ...]
    cells: Mapping[tuple[str, str, int], Sequence[CorruptionRow]]

    @property
    def metric(self) -> str:
        """What its figures are: "accuracy", "mAP", or both."""
        return " or ".join(dict.fromkeys(row.metric for rows in self.cells.values() for row in rows))

    def rows(self, method: str, corruption: str | None = None, severity: int | None = None) -> list[CorruptionRow]:
        """Those of a method, of one corruption or all, of one severity or all."""
        return [
            row
            for c in self.corruptions
            for s in self.severities
            if corruption in (None, c) and severity in (None, s)
            for row in self.cells.get((method, c, s), ())
        ]


def ladders(rows: Sequence[CorruptionRow]) -> list[Ladder]:
    """One per protocol."""
    out = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        own = [row for row in rows if row.protocol == protocol]
        cells: dict[tuple[str, str, int], list[CorruptionRow]] = {}
        for row in own:
            cells.setdefault((row.name, row.corruption, row.severity), []).append(row)
        names = tuple(dict.fromkeys(row.corruption for row in own))
        severities = tuple(sorted({row.severity for row in own}))
        out.append(Ladder(protocol, names, severities, tuple(dict.fromkeys(row.name for row in own)), cells))
    return out


Cells = Callable[[Sequence[CorruptionRow], Value], CellT]


def body(ladder: Ladder, cell: Cells[CellT]) -> list[tuple[str, list[CellT]]]:
    """The table by corruption: each, their mean, and that relative to clean; a cell per method."""
    lines = [(name, [cell(ladder.rows(m, name), _accuracy) for m in ladder.methods]) for name in ladder.corruptions]
    lines.append(("mean", [cell(ladder.rows(m), _accuracy) for m in ladder.methods]))
    return [*lines, ("mean, relative to clean", [cell(ladder.rows(m), _relative) for m in ladder.methods])]


def by_severity(ladder: Ladder, cell: Cells[CellT]) -> list[tuple[str, list[CellT]]]:
    """The table by severity: the mean over corruptions; a cell per method."""
    return [(str(s), [cell(ladder.rows(m, severity=s), _accuracy) for m in ladder.methods]) for s in ladder.severities]


def _accuracy(row: CorruptionRow) -> float:
    return row.accuracy


def _relative(row: CorruptionRow) -> float:
    return row.relative


def markdown(ladder: Ladder) -> str:
    """Accuracy by corruption and by severity, in percent."""
    several = any(len({row.seed for row in ladder.rows(m)}) > 1 for m in ladder.methods)

    def cell(rows: Sequence[CorruptionRow], value: Value) -> str:
        found = over_seeds(rows, value) if rows else None
        return "" if found is None or math.isnan(found[0]) else percent(found, several)

    severities = ", ".join(map(str, ladder.severities))
    note = (
        f"{titled(ladder.metric)} in percent under the corruptions of {ladder.protocol}, "
        f"mean over severities {severities}"
        + (" ± standard deviation over seeds. " if several else ". ")
        + "Relative to clean: 1 - (clean - corrupted) / clean, in percent. corruptions.csv has every severity."
    )
    by_corruption = [[name, *cells] for name, cells in body(ladder, cell)]
    text = f"## {ladder.protocol}\n\n{markdown_table(['corruption', *ladder.methods], by_corruption)}\n\n{note}"
    if len(ladder.severities) > 1:
        steps = [[name, *cells] for name, cells in by_severity(ladder, cell)]
        text += f"\n\n{markdown_table(['severity', *ladder.methods], steps)}"
    return text


def figure(ladder: Ladder, path: Path, columns: int = 5) -> None:
    """Accuracy against severity, a panel per corruption, a line per method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = -(-len(ladder.corruptions) // columns)
    fig, panels = plt.subplots(
        lines, columns, figsize=(2.3 * columns, 2.0 * lines + 0.7), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel in panels.flat[len(ladder.corruptions) :]:
        panel.set_visible(False)
    for panel, corruption in zip(panels.flat, ladder.corruptions, strict=False):
        for i, method in enumerate(ladder.methods):
            found = [ladder.rows(method, corruption, s) for s in ladder.severities]
            accuracy = [100 * over_seeds(rows, _accuracy)[0] if rows else math.nan for rows in found]
            look = "--" if method.rpartition(", ")[2] in LOOKS and ", " in method else "-"
            panel.plot(
                ladder.severities, accuracy, look, marker="o", ms=3, color=f"C{i % 10}", label=figure_text(method)
            )
        panel.set_title(figure_text(corruption), fontsize=9)
        panel.set_xticks(ladder.severities)
        panel.grid(alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel(f"{ladder.metric}, %", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("severity", fontsize=8)
    legend_below(fig)
    fig.savefig(path, dpi=130)
    plt.close(fig)
