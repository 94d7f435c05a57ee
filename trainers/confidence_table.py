"""How far the confidence of methods can be trusted: confidence.csv, risk_coverage.csv, confidence.png, a part of
results.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from trainers.confidence import BINS
from trainers.confidence_figure import drawing
from trainers.confidence_rows import (
    CONFIDENCE_FILE,
    NONE,
    RISK_FILE,
    TEMPERATURE,
    WHOLE,
    ConfidenceRow,
    confidence_rows,
    final_rows,
    risk_rows,
    shown_conditions,
)
from trainers.judged import Judged
from trainers.tables import markdown_table, write_rows

MOST = 12  # pairs of method and condition that a sentence names


def write_confidence(out: Path, answers: Sequence[Judged], abstain_below: float | None) -> list[str]:
    """Write tables and figure into `out`; returns the parts of results.md."""
    rows, risks = confidence_rows(answers, abstain_below), list(risk_rows(answers))
    write_rows(out / CONFIDENCE_FILE, rows)
    write_rows(out / RISK_FILE, risks)
    drawing(rows, risks).savefig(out / "confidence.png", dpi=150)
    return [markdown(rows, abstain_below)]


def markdown(rows: Sequence[ConfidenceRow], abstain_below: float | None) -> str:
    """Calibration error by method and condition, what ruining does to confidence, and what abstaining buys."""
    scaled = any(row.scaling == TEMPERATURE for row in rows)
    said = f"Expected calibration error in percent ({BINS} bins of equal width)"
    said += ", before → after temperature scaling on validation data" if scaled else ""
    parts = ["### Confidence", _table(rows, _error_cell), f"{said}. {raised_text(rows)}"]
    if abstain_below is not None:
        parts += [_table(final_rows(rows), _abstain_cell)]
        parts += [f"Abstaining below a probability of {abstain_below:g}: share that is answered, its error in percent."]
    return "\n\n".join(parts)


def _table(rows: Sequence[ConfidenceRow], cell: Callable[[Sequence[ConfidenceRow]], str]) -> str:
    names, conditions = list(dict.fromkeys(row.name for row in rows)), shown_conditions(rows)
    cells: dict[tuple[str, str], list[ConfidenceRow]] = {}
    for row in rows:
        cells.setdefault((row.name, row.condition), []).append(row)
    body = [[name, *(cell(cells.get((name, c), [])) for c in conditions)] for name in names]
    return markdown_table(["method", *(c.replace("_", " ") for c in conditions)], body)


def _error_cell(rows: Sequence[ConfidenceRow]) -> str:
    means = [_mean([row.ece for row in rows if row.scaling == scaling]) for scaling in (NONE, TEMPERATURE)]
    return " → ".join(f"{100 * mean:.1f}" for mean in means if mean is not None)


def _abstain_cell(rows: Sequence[ConfidenceRow]) -> str:
    coverage, error = _mean([row.coverage for row in rows]), _mean([row.error for row in rows])
    if coverage is None or error is None:
        return ""
    return f"{100 * coverage:.0f} %, {100 * error:.1f}" if coverage else "0 %"


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def raised_text(rows: Sequence[ConfidenceRow]) -> str:
    """Where ruining or taking away an input raised the mean confidence of the same samples, if anywhere."""
    changes: dict[tuple[str, str], list[float]] = {}
    for row in final_rows(rows):
        if row.condition != WHOLE and not math.isnan(row.change):
            changes.setdefault((row.name, row.condition), []).append(row.change)
    if not changes:
        return "What ruining does to confidence was not measured: that needs the condition complete."
    means = {key: statistics.fmean(values) for key, values in changes.items()}
    risen = sorted((pair for pair in means.items() if pair[1] > 0), key=lambda pair: -pair[1])
    up = [f"{name} under {c.replace('_', ' ')} (+{100 * m:.1f})" for (name, c), m in risen]
    if not up:
        return "No condition raised the mean confidence of the same samples."
    most = "; ".join(up[:MOST]) + (f"; and {len(up) - MOST} more" if len(up) > MOST else "")
    return f"Points by which a condition raised the mean confidence of the same samples: {most}."
