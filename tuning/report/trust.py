"""An evaluation's confidence, and its accuracy with and without what the audit flagged."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from trainers.audit_table import BY_AUDIT_FILE, AuditRow
from trainers.confidence import BINS
from trainers.confidence_figure import drawing
from trainers.confidence_rows import (
    CONFIDENCE_FILE,
    NONE,
    RISK_FILE,
    TEMPERATURE,
    ConfidenceRow,
    RiskRow,
    shown_conditions,
)
from trainers.confidence_table import raised_text
from trainers.tables import read_rows
from tuning.report import drawings
from tuning.report.evaluations import Evaluation
from tuning.report.parts import Block, Cell, Drawing, Folded, Table, Text, figure, text

CAPTION = "Confidence: expected calibration error, percent"
FIGURES = {  # of confidence.csv: heading, digits, scale
    "accuracy": ("accuracy, %", 1, 100),
    "confidence": ("mean confidence, %", 1, 100),
    "ece": ("ECE, %", 1, 100),
    "nll": ("NLL", 3, 1),
    "aurc": ("risk-coverage area, %", 1, 100),
    "change": ("change against complete, points", 1, 100),
    "raised": ("raised, % of clips", 0, 100),
    "coverage": ("answered, %", 1, 100),
    "error": ("wrong of these, %", 1, 100),
}
FIGURE_CAPTION = (
    "Above: accuracy against mean confidence, hollow as the runs give it, filled after temperature scaling; on the "
    "diagonal confidence is accuracy. Below: the share of wrong answers among the surest."
)


def confidence_blocks(found: Evaluation, tag: str) -> tuple[Block, ...]:
    """Calibration error by method and condition, the figure, and every figure folded away; nothing of evaluations of
    earlier versions."""
    table, curves = found.read(CONFIDENCE_FILE), found.read(RISK_FILE)
    rows = (read_rows(table, ConfidenceRow) if table else None) or []
    risks = (read_rows(curves, RiskRow) if curves else None) or []
    if not rows:
        return ()
    drawn = drawings.svg(lambda: drawing(rows, risks), f"{tag} confidence")
    return (
        _errors(rows),
        Text(raised_text(rows)),
        Drawing(drawn, FIGURE_CAPTION),
        Folded("Confidence, all figures", (_all(rows),)),
    )


def _errors(rows: Sequence[ConfidenceRow]) -> Table:
    names, conditions = list(dict.fromkeys(row.name for row in rows)), shown_conditions(rows)
    scaled = any(row.scaling == TEMPERATURE for row in rows)
    head, body = ["method"], [[text(name)] for name in names]
    for condition in conditions:
        head += [condition.replace("_", " "), *(["scaled"] if scaled else [])]
        for cells, name in zip(body, names, strict=True):
            own = [row for row in rows if (row.name, row.condition) == (name, condition)]
            cells += [_mean(own, s) for s in (NONE, *([TEMPERATURE] if scaled else []))]
    note = f"{BINS} bins of equal width; mean over seeds."
    if scaled:
        note += " Scaled: by temperatures that avmend calibrate fitted to validation data."
    return Table(tuple(head), tuple(map(tuple, body)), 1, CAPTION, note)


def _mean(rows: Sequence[ConfidenceRow], scaling: str) -> Cell:
    values = [row.ece for row in rows if row.scaling == scaling]
    return figure(statistics.fmean(values) if values else None, 1, 100)


def _all(rows: Sequence[ConfidenceRow]) -> Table:
    groups: dict[tuple[str, str, str], list[ConfidenceRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.condition, row.scaling), []).append(row)
    body = [
        (
            *map(text, (name, condition.replace("_", " "), scaling)),
            *(_figure(own, of, digits, scale) for of, (_, digits, scale) in FIGURES.items()),
        )
        for (name, condition, scaling), own in groups.items()
    ]
    head = ("method", "condition", "scaling", *(heading for heading, _, _ in FIGURES.values()))
    return Table(head, tuple(body), 3)


def _figure(rows: Sequence[Any], of: str, digits: int, scale: float) -> Cell:
    return figure(statistics.fmean(getattr(row, of) for row in rows), digits, scale)


def audit_blocks(found: Evaluation) -> tuple[Block, ...]:
    """Accuracy with and without each flag of the audit, where the evaluation was asked for it."""
    table = found.read(BY_AUDIT_FILE)
    rows = (read_rows(table, AuditRow) if table else None) or []
    if not rows:
        return ()
    condition = rows[0].condition
    body = tuple(_by_flag(row) for row in rows if row.condition == condition)
    head = ("method", "seed", "flag", "flagged", "accuracy", "95 %", "others", "accuracy", "95 %")
    caption = f"With and without what the audit flagged, {condition.replace('_', ' ')}: accuracy, percent"
    note = f"Wilson's interval over clips; other conditions: {BY_AUDIT_FILE}."
    return (Table(head, body, 3, caption, note),)


def _by_flag(row: AuditRow) -> tuple[Cell, ...]:
    def part(count: int, accuracy: float, low: float, high: float) -> tuple[Cell, ...]:
        between = text(f"{100 * low:.1f} to {100 * high:.1f}") if count else text("")
        return figure(count, 0), figure(accuracy, 1, 100), between

    return (
        *(text(row.name), figure(row.seed, 0), text(row.flag.replace("_", " "))),
        *part(row.flagged, row.accuracy_flagged, row.low_flagged, row.high_flagged),
        *part(row.others, row.accuracy_others, row.low_others, row.high_others),
    )
