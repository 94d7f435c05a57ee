"""Do onsets of sound and motion of the picture go together: an estimate from few frames, no measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.fbank import FRAME_RATE

LEAST_INTERVALS = 6


def agreement(onsets: np.ndarray, change: np.ndarray, times: Sequence[float]) -> float | None:
    """Correlation, -1 to 1, of onset strength and motion over the intervals between frames.

    With 10 frames of 10 s an interval lasts a second, so only what comes and goes slower can show; chance gives
    values within 0.33 in two of three clips. ``None`` for fewer than 6 intervals, or where nothing changes.

    Args:
        onsets: float [log-mel frames], how much louder each is than the one before.
        change: float [N - 1], mean change from each picture to the next.
        times: seconds of the N pictures, from the clip's start.
    """
    edges = np.asarray(times, np.float64)
    if len(edges) != len(change) + 1 or len(change) < LEAST_INTERVALS or not len(onsets):
        return None
    places = np.clip(np.round(edges * FRAME_RATE).astype(int), 0, len(onsets))
    sums = np.concatenate([[0.0], np.cumsum(onsets, dtype=np.float64)])
    lengths = np.diff(places)
    heard = lengths > 0
    if heard.sum() < LEAST_INTERVALS:
        return None
    rate = (sums[places[1:]] - sums[places[:-1]])[heard] / lengths[heard]
    speed = change[heard] / np.maximum(np.diff(edges)[heard], 1e-6)
    if rate.std() < 1e-9 or speed.std() < 1e-9:
        return None
    return float(np.corrcoef(rate, speed)[0, 1])
