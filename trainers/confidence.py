"""Confidence of answers: temperature scaling, calibration error, risk against coverage.

Shapes: N samples, C answers. Confidence is the highest probability of a sample, 0..1. NumPy and SciPy alone.
"""

from __future__ import annotations

import math

import numpy as np

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are looked at


def probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """Softmax of logits [..., C] over a temperature (one, or one per row [...]), float64; a logit of -inf is 0."""
    scaled = logits.astype(np.float64) / np.expand_dims(np.asarray(temperature, np.float64), -1)
    values = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """ECE = sum over bins of |B| / N * |accuracy(B) - mean confidence(B)|, bins ((i - 1) / M, i / M] of equal width
    (Guo et al., On Calibration of Modern Neural Networks, ICML 2017, Eq. 3).

    Args:
        confidence: [N], above 0.
        right: bool [N].
    """
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    surplus = np.bincount(places, confidence - right, minlength=bins)  # |B| * (confidence - accuracy)
    return float(np.abs(surplus).sum() / len(confidence))


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Risk [N]: the share of wrong answers among the n + 1 most confident ones, at coverage (n + 1) / N.

    Equal confidences have no order: errors among them count as spread evenly (the mean over all orders).
    (Geifman & El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017.)
    """
    values, counts = np.unique(-confidence, return_counts=True)
    wrong = np.bincount(np.searchsorted(values, -confidence), ~right.astype(bool), minlength=len(values))
    ends = np.concatenate([[0], np.cumsum(counts)])
    taken = np.arange(1, len(confidence) + 1)
    return np.interp(taken, ends, np.concatenate([[0.0], np.cumsum(wrong)])) / taken


def area_under_risk_coverage(confidence: np.ndarray, right: np.ndarray) -> float:
    """AURC: the mean of `risk_coverage` over all coverages; 0 is best (Geifman, Uziel & El-Yaniv, ICLR 2019)."""
    return float(risk_coverage(confidence, right).mean())


def least_count(share: float, count: int) -> int:
    """The least whole number that is at least `share` of `count`: 55 for 0.55 of 100, whose product in floating point
    is a little more."""
    return math.ceil(round(share * count, 6))


def selected(confidence: np.ndarray, right: np.ndarray, below: float | None) -> tuple[float, float]:
    """Coverage, and the share of wrong answers among the answered, where confidence under `below` abstains.

    The error of no answers at all is 0.
    """
    answered = confidence >= (0.0 if below is None else below)
    wrong = int((~right.astype(bool) & answered).sum())
    return float(answered.mean()), wrong / max(int(answered.sum()), 1)


def negative_log_likelihood(logits: np.ndarray, label: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """-log p(label) of each sample, [N]; NaN where the label is none of the answers (negative, or a logit of -inf).

    Args:
        logits: [N, C].
        label: int [N].
    """
    scaled = logits.astype(np.float64) / np.expand_dims(np.asarray(temperature, np.float64), -1)
    high = scaled.max(axis=1)
    total = high + np.log(np.exp(scaled - high[:, None]).sum(axis=1))
    own = np.take_along_axis(scaled, np.maximum(label, 0)[:, None], axis=1)[:, 0]
    return np.where((label >= 0) & np.isfinite(own), total - own, np.nan)


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature with the least negative log likelihood (Guo et al., section 4.2).

    As in Platt's scaling (1999, section 2.2) the labels count as if one further sample had been wrong: the label has
    the weight 1 - e and all answers share e = 1 / (N + 2), so that a few samples, all right, give no certainty.
    Samples whose label is none of the answers take no part.

    Args:
        logits: [N, C].
        label: int [N].

    Raises:
        ValueError: no sample has its label among the answers.
    """
    from scipy.optimize import minimize_scalar

    known = np.isfinite(negative_log_likelihood(logits, label))
    if not known.any():
        raise ValueError("no sample has its label among the answers")
    logits, label = logits[known], label[known]
    share = 1 / (len(label) + 2)

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        scaled = logits.astype(np.float64) / temperature
        high = scaled.max(axis=1)
        total = high + np.log(np.exp(scaled - high[:, None]).sum(axis=1))
        own = np.take_along_axis(scaled, label[:, None], axis=1)[:, 0]
        others = np.where(np.isfinite(scaled), scaled, np.nan)
        return float(np.mean(total - (1 - share) * own - share * np.nanmean(others, axis=1)))

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
