"""Bootstrap over clips: how far accuracies, and their differences, are known from these clips and seeds.

A clip is drawn with all that was asked about it, and for all methods at once, so that differences are paired (cluster
bootstrap: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; pairing as Koehn, EMNLP 2004).
Seeds are too few to be drawn with replacement (of three, a draw has on average two): they enter as a variance component
with Student's t. Shapes: C clips, N columns (a run under a condition on a kind of question), G kinds of counts,
S seeds, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = 0.95
CHUNK = 2**24  # numbers of a chunk of draws that are in memory at once


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its standard error over clips and seeds.

    Attributes:
        dof: degrees of freedom of Student's t.
    """

    mean: float
    error: float
    dof: float

    @property
    def half(self) -> float:
        """Half width of the 95 % interval; NaN where nothing is known of the error."""
        return float(_quantile(self.dof)) * self.error if self.error else 0.0

    @property
    def p(self) -> float:
        """Two-sided, that the mean is 0; 1 for 0 itself; NaN where nothing is known of the error."""
        from scipy.special import stdtr

        if not self.mean or math.isnan(self.error):
            return 1.0 if not self.mean else math.nan
        return float(2 * stdtr(self.dof, -abs(self.mean) / self.error)) if self.error else 0.0


def _quantile(dof: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(dof, (1 + LEVEL) / 2))


def drawn_shares(
    right: np.ndarray, asked: np.ndarray, group: Sequence[int], draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of right answers, and what they are on other draws of as many clips, all columns on the same ones.

    Args:
        right: right answers about each clip, [C, N].
        asked: questions about each clip, [C, G].
        group: of each column, whose counts are its own, [N].

    Returns:
        shares [N]; draws of them, float32 [B, N], NaN where no clip of a draw was asked about. Equal inputs give equal
        draws.
    """
    columns = list(group)
    right, asked = right.astype(np.float32), asked.astype(np.float32)
    out = np.empty((draws, right.shape[1]), np.float32, order="F")  # a column's draws side by side
    done = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        for weights in _weights(len(right), draws):
            out[done : done + len(weights)] = (weights @ right) / (weights @ asked)[:, columns]
            done += len(weights)
        return right.sum(axis=0, dtype=np.float64) / asked.sum(axis=0, dtype=np.float64)[columns], out


def _weights(clips: int, draws: int) -> Iterator[np.ndarray]:
    """How often each clip is in a draw, float32 [b, C], in chunks of draws."""
    from models.noise import generator  # here, for help without torch

    rng, most = generator("bootstrap", clips), max(1, CHUNK // max(clips, 1))
    for first in range(0, draws, most):
        count = min(most, draws - first)
        places = rng.integers(0, clips, (count, clips)) + clips * np.arange(count)[:, None]
        yield np.bincount(places.ravel(), minlength=count * clips).reshape(count, clips).astype(np.float32)


def over_seeds(values: np.ndarray, draws: np.ndarray, clips: int) -> Estimate:
    """The mean over seeds and its error, of clips and seeds taken at random.

    Var = Var_clips + max(0, MS - Var_both) / S: the bootstrap's variance of the mean over seeds; and, of the sample
    variance of the seeds' values (MS), what is left when the part that these clips explain is taken off (the
    bootstrap's variance of a seed's deviation from the mean, which Var_clips has already): components of variance of a
    crossed design (Searle, Casella & McCulloch, Variance Components, 1992, chapter 4), degrees of freedom by
    Satterthwaite (Biometrics Bulletin 1946). Of one seed, the error is over clips alone.

    Args:
        values: by seed, [S].
        draws: of them, [B, S].
        clips: C, of those that were asked about: of others nothing is known.
    """
    count = len(values)
    mean = float(values.mean())
    if clips < 2:
        return Estimate(mean, math.nan, math.nan)
    exact = clips / (clips - 1)  # a draw's variance is that of the sample, divided by C
    means = draws.mean(axis=1, dtype=np.float64)
    of_clips = exact * _variance(means)
    of_seeds = 0.0
    if count > 1:
        both = exact * sum(_variance(draws[:, s] - means) for s in range(count)) / (count - 1)
        square = float(values.var(ddof=1))
        of_seeds = max(0.0, square - both) / count
    total = of_clips + of_seeds
    parts = of_clips**2 / (clips - 1) + ((square / count) ** 2 / (count - 1) if of_seeds else 0.0)
    return Estimate(mean, math.sqrt(total), total**2 / parts if parts else math.inf)


def _variance(draws: np.ndarray) -> float:
    """Of those that are known."""
    found = float(draws.var())
    return found if math.isfinite(found) else float(np.nanvar(draws))


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's interval of 95 % around a share of `count` (JASA 1927); NaN of nothing.

    Args:
        count: of independent answers; need not be whole (see `effective`), as scipy's ``binomtest`` wants it.
    """
    if not count or math.isnan(count):
        return math.nan, math.nan
    z = _quantile(math.inf)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def effective(share: float, error: float) -> float:
    """As many independent answers as have this standard error: their number over the design effect (Kish, Survey
    Sampling, 1965, section 8.2)."""
    return share * (1 - share) / error**2


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number, [m]: reject those up to 0.05 and at most one family of 20 has a false
    one (Holm, Scandinavian Journal of Statistics 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    out = np.empty_like(values)
    out[order] = np.minimum(steps, 1.0)
    return out
