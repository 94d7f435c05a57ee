"""Running mean and deviation that come out the same whatever the order of work."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shards.schema import Frozen, Statistics


class Moments(Frozen):
    """Count, sum and sum of squares per channel, over ``samples`` samples.

    A sum of samples' sums is kept with what its rounding left over (``total_rest``, ``squares_rest``), so that
    the same samples give the same statistics to the bit, into whichever shards they went.
    """

    samples: int = 0
    count: int = 0
    total: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    total_rest: tuple[float, ...] = ()
    squares_rest: tuple[float, ...] = ()


def audio_moments(fbank: np.ndarray) -> Moments:
    """Of a log-mel [frames, 128], one channel."""
    values = fbank.astype(np.float64)
    return Moments(samples=1, count=values.size, total=(float(values.sum()),), squares=(float((values**2).sum()),))


def visual_moments(frames: np.ndarray) -> Moments:
    """Of uint8 [N, H, W, 3], per colour channel, in whole units 0..255 (exact)."""
    values = np.arange(256, dtype=np.int64)
    counts = [np.bincount(frames[..., c].ravel(), minlength=256) for c in range(3)]
    return Moments(
        samples=1,
        count=frames.size // 3,
        total=tuple(float(c @ values) for c in counts),
        squares=tuple(float(c @ values**2) for c in counts),
    )


def channel_moments(values: np.ndarray) -> Moments:
    """Of features [..., C], per channel, in float64."""
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return Moments(
        samples=1,
        count=len(rows),
        total=tuple(rows.sum(axis=0).tolist()),
        squares=tuple((rows**2).sum(axis=0).tolist()),
    )


def add(parts: Sequence[Moments]) -> Moments:
    """The sum; exact summation, so grouping does not matter."""
    parts = [part for part in parts if part.samples]
    total, total_rest = _sums([row for part in parts for row in (part.total, part.total_rest) if row])
    squares, squares_rest = _sums([row for part in parts for row in (part.squares, part.squares_rest) if row])
    return Moments(
        samples=sum(part.samples for part in parts),
        count=sum(part.count for part in parts),
        total=total,
        squares=squares,
        total_rest=total_rest,
        squares_rest=squares_rest,
    )


def _sums(rows: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel the sum, rounded once, and what the rounding left over."""
    columns = list(zip(*rows, strict=True))
    total = tuple(math.fsum(column) for column in columns)
    return total, tuple(math.fsum((*column, -x)) for column, x in zip(columns, total, strict=True))


def statistics(moments: Moments, unit: float = 1.0) -> Statistics | None:
    """Mean and deviation, divided by ``unit``; ``None`` of nothing."""
    if not moments.samples:
        return None
    mean = [total / moments.count for total in moments.total]
    spread = [
        math.sqrt(max(squares / moments.count - m * m, 0.0)) for squares, m in zip(moments.squares, mean, strict=True)
    ]
    return Statistics(mean=tuple(m / unit for m in mean), std=tuple(s / unit for s in spread), samples=moments.samples)
