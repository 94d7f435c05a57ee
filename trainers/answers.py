"""What a run answered to the samples of a split, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from trainers.calibration import Calibration
from trainers.confidence import negative_log_likelihood, probabilities


@dataclass(frozen=True)
class Answers:
    """Answers by one way of choosing the module; N samples, C answers.

    Attributes:
        index: positions in the split, int64 [N].
        logits: float32 [N, C].
        label: int64 [N]; negative: none of the answers.
        right: bool [N].
        observed: what can be told of each sample without an oracle, [N]; see `models.conditions.observed_condition`.
    """

    index: np.ndarray
    logits: np.ndarray
    label: np.ndarray
    right: np.ndarray
    observed: tuple[str, ...]

    @classmethod
    def of(cls, index: Tensor, logits: Tensor, label: Tensor, observed: Sequence[str]) -> Answers:
        """Of a batch."""
        right = logits.argmax(dim=1) == label
        values = {"index": index, "logits": logits.float(), "label": label, "right": right}
        return cls(**{name: x.cpu().numpy() for name, x in values.items()}, observed=tuple(observed))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several batches, one after the other."""
        names = ("index", "logits", "label", "right")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, observed=tuple(name for part in parts for name in part.observed))


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


def judged(
    name: tuple[str, str, int, str, str], answers: Answers, calibration: Calibration | None
) -> Iterator[Judged]:
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
