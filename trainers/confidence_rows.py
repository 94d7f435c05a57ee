"""Rows of confidence.csv and risk_coverage.csv."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trainers.confidence import (
    area_under_risk_coverage,
    expected_calibration_error,
    least_count,
    risk_coverage,
    selected,
)
from trainers.judged import Judged

FILES = CONFIDENCE_FILE, RISK_FILE = "confidence.csv", "risk_coverage.csv"
NONE, TEMPERATURE = "none", "temperature"  # how logits are scaled
SHOWN = 8  # conditions side by side
WHOLE = "complete"  # the condition that the others are compared with
COVERAGES = tuple(round(0.05 * n, 2) for n in range(1, 21))


@dataclass(frozen=True)
class ConfidenceRow:
    """A method's confidence under a condition, by seed.

    Attributes:
        scaling: of the logits: "none", or "temperature" (of a calibrated run, which has a row of each).
        samples: over which the figures are.
        accuracy: 0..1.
        confidence: mean of the highest probability.
        ece: expected calibration error, 0..1.
        nll: mean -log p of the right answer, where that is among the answers.
        aurc: area under the risk-coverage curve.
        change: mean of the confidence less that of the same samples when complete; NaN: those were not asked about.
        raised: share of these samples whose confidence is higher than when complete.
        coverage, error: share of answers that `abstain_below` leaves (all without it), and the wrong ones among them.
    """

    method: str
    selection: str
    seed: int
    condition: str
    scaling: str
    samples: int
    accuracy: float
    confidence: float
    ece: float
    nll: float
    aurc: float
    change: float
    raised: float
    coverage: float
    error: float
    run: str

    @property
    def name(self) -> str:
        """Method and selection, as tables and reports name them."""
        return f"{self.method}, {self.selection}" if self.selection else self.method


@dataclass(frozen=True)
class RiskRow:
    """A point of a risk-coverage curve: the share of wrong answers among the surest `coverage` of them."""

    method: str
    selection: str
    seed: int
    condition: str
    scaling: str
    coverage: float
    risk: float

    @property
    def name(self) -> str:
        """Method and selection, as tables and reports name them."""
        return f"{self.method}, {self.selection}" if self.selection else self.method


def confidence_rows(answers: Sequence[Judged], abstain_below: float | None = None) -> list[ConfidenceRow]:
    """A row for each, in their order."""
    whole = {_key(one): one for one in answers if one.condition == WHOLE}
    return [_row(one, whole.get(_key(one)), abstain_below) for one in answers]


def _key(one: Judged) -> tuple[str, str, str, bool]:
    return one.run, one.method, one.selection, one.calibrated


def _row(one: Judged, whole: Judged | None, abstain_below: float | None) -> ConfidenceRow:
    change = _change(one, whole) if whole is not None else np.empty(0)
    coverage, error = selected(one.confidence, one.right, abstain_below)
    known = one.nll[~np.isnan(one.nll)]
    return ConfidenceRow(
        method=one.method,
        selection=one.selection,
        seed=one.seed,
        condition=one.condition,
        scaling=TEMPERATURE if one.calibrated else NONE,
        samples=len(one.right),
        accuracy=float(one.right.mean()),
        confidence=float(one.confidence.mean()),
        ece=expected_calibration_error(one.confidence, one.right),
        nll=float(known.mean()) if len(known) else math.nan,
        aurc=area_under_risk_coverage(one.confidence, one.right),
        change=float(change.mean()) if len(change) else math.nan,
        raised=float((change > 0).mean()) if len(change) else math.nan,
        coverage=coverage,
        error=error,
        run=one.run,
    )


def _change(one: Judged, whole: Judged) -> np.ndarray:
    """Confidence less that of the same samples when complete."""
    _, mine, theirs = np.intersect1d(one.index, whole.index, assume_unique=True, return_indices=True)
    return one.confidence[mine] - whole.confidence[theirs]


def risk_rows(answers: Sequence[Judged]) -> Iterator[RiskRow]:
    """The curves at `COVERAGES`."""
    for one in answers:
        risk, scaling = risk_coverage(one.confidence, one.right), TEMPERATURE if one.calibrated else NONE
        for coverage in COVERAGES:
            at = max(least_count(coverage, len(risk)), 1) - 1
            yield RiskRow(one.method, one.selection, one.seed, one.condition, scaling, coverage, float(risk[at]))


def shown_conditions(rows: Sequence[ConfidenceRow]) -> list[str]:
    """Those that a table or figure has room for: the first few (a corruption at five severities is five)."""
    return list(dict.fromkeys(row.condition for row in rows))[:SHOWN]


def final_rows(rows: Sequence[ConfidenceRow]) -> list[ConfidenceRow]:
    """Of a calibrated run the rows after scaling, of others those that there are."""
    scaled = {(row.run, row.method) for row in rows if row.scaling == TEMPERATURE}
    return [row for row in rows if row.scaling == TEMPERATURE or (row.run, row.method) not in scaled]
