"""How sure a method was of its answers, and whether they are right, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainers.answers import Answers
from trainers.calibration import Calibration
from trainers.confidence import negative_log_likelihood, probabilities


@dataclass(frozen=True)
class Judged:
    """A method's answers under a condition, by sample: whether they are right, and how sure it was of them; [N].

    Attributes:
        calibrated: confidence is that of scaled logits.
        nll: -log p of the label, NaN where that is none of the answers.
    """

    method: str
    selection: str
    seed: int
    condition: str
    run: str
    calibrated: bool
    index: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
    nll: np.ndarray


def judged(name: tuple[str, str, int, str, str], answers: Answers, calibration: Calibration | None) -> Iterator[Judged]:
    """The answers as the run gives them, and, of a calibrated run, with its temperatures.

    Args:
        name: method, selection, seed, condition, run.
    """
    scales: list[tuple[bool, float | np.ndarray]] = [(False, 1.0)]
    if calibration is not None:
        scales.append((True, calibration.temperatures(name[1], answers.observed)))
    for calibrated, temperature in scales:
        confidence = probabilities(answers.logits, temperature).max(axis=1)
        nll = negative_log_likelihood(answers.logits, answers.label, temperature)
        yield Judged(*name, calibrated, answers.index, answers.right, confidence, nll)
