"""Are two sketches of the same sound, of the same picture: correlation at the best alignment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import uniform_filter

LEAST_OVERLAP = 0.7  # of the longer sound
DETAIL = 5  # steps and bands: what is slower or broader counts as gain, tone colour, a common envelope
SCALES = (1.0, 0.92, 0.84, 0.76)  # of a crop's sides
CLIMB = (0.04, 0.02, 0.01)  # of a side: steps of the search for the crop
PROMISING = 0.7  # correlation at a coarse alignment from which a better one is searched for
SMALLEST = 0.6  # of a side that a crop may leave

Box = tuple[float, float, float, float]  # top, bottom, left, right, of 1


def sound_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation, -1 to 1, of the details of two sketches of equal steps, uint8 [Ta, M] and [Tb, M], at the best
    lag; half steps count as lags, too, and 70 % of the longer one must overlap.
    """
    if min(len(a), len(b)) < LEAST_OVERLAP * max(len(a), len(b)) or min(len(a), len(b)) < 2:
        return -1.0
    a, b = (sketch.astype(np.float32) for sketch in (a, b))
    between = (b[1:] + b[:-1]) / 2
    return max(_best_lag(_detail(a), _detail(other)) for other in (b, between))


def _detail(sketch: np.ndarray) -> np.ndarray:
    return sketch - uniform_filter(sketch, DETAIL)


def _best_lag(a: np.ndarray, b: np.ndarray) -> float:
    """The highest correlation of a[t + lag] with b[t]."""
    lags = np.arange(-len(b) + 1, len(a))
    begin, end = np.maximum(lags, 0), np.minimum(len(a), lags + len(b))
    size = next_fast_len(len(a) + len(b))
    spectrum = (rfft(a, size, axis=0) * rfft(b, size, axis=0).conj()).sum(axis=1)
    products = irfft(spectrum, size)[lags]
    energy = _energy(a, begin, end) * _energy(b, begin - lags, end - lags)
    allowed = (end - begin >= LEAST_OVERLAP * max(len(a), len(b)) - 1) & (energy > 0)
    if not allowed.any():
        return -1.0
    return float((products[allowed] / np.sqrt(energy[allowed])).max())


def _energy(values: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum((values.astype(np.float64) ** 2).sum(axis=1))])
    return total[end] - total[begin]


def coarser(sketch: np.ndarray, factor: int) -> np.ndarray:
    """A sketch [T, M] with `factor` steps made one (a rest of fewer is dropped)."""
    whole = len(sketch) // factor * factor
    return sketch[:whole].reshape(-1, factor, sketch.shape[1]).mean(axis=1) if factor > 1 else sketch


def same_extent(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation, -1 to 1, of two sketches uint8 [K, S, S, 3] as they are."""
    return _correlation(a.astype(np.float32), b.astype(np.float32))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays [K, S, S, 3], each colour's mean taken out."""
    a, b = (values - values.mean(axis=(0, 1, 2)) for values in (a, b))
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def picture_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation, -1 to 1, of two sketches uint8 [K, S, S, 3], where either may be a crop of the other."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return max(_best_crop(a, b), _best_crop(b, a))


def _best_crop(whole: np.ndarray, part: np.ndarray) -> float:
    """Of the crops of `whole`, the one most like `part`."""
    best, box = _fit(_halved(whole), _halved(part), _coarse())
    if best < PROMISING:
        return best
    best, box = _fit(whole, part, [box])
    for step in CLIMB:
        while True:
            score, near = _fit(whole, part, _near(box, step))
            if score <= best + 1e-4:
                break
            best, box = score, near
    return best


def _halved(frames: np.ndarray) -> np.ndarray:
    """[K, S, S, 3] to [K, S / 2, S / 2, 3]."""
    count, side, _, colours = frames.shape
    return frames.reshape(count, side // 2, 2, side // 2, 2, colours).mean(axis=(2, 4))


@lru_cache(maxsize=1)
def _coarse() -> tuple[Box, ...]:
    boxes: list[Box] = []
    for scale in SCALES:
        offsets = (0.0, (1 - scale) / 2, 1 - scale) if scale < 1 else (0.0,)
        boxes += [(y, y + scale, x, x + scale) for y in offsets for x in offsets]
    return tuple(boxes)


def _near(box: Box, step: float) -> list[Box]:
    boxes = []
    for edge in range(4):
        for change in (-step, step):
            new = list(box)
            new[edge] = round(min(max(new[edge] + change, 0.0), 1.0), 4)
            if new[1] - new[0] >= SMALLEST and new[3] - new[2] >= SMALLEST:
                boxes.append((new[0], new[1], new[2], new[3]))
    return boxes


def _fit(whole: np.ndarray, part: np.ndarray, boxes: Sequence[Box]) -> tuple[float, Box]:
    """The highest correlation of `part` with a crop of `whole` by one of the boxes, and that box."""
    count, side, _, colours = whole.shape
    rows = np.stack([_sampling(top, bottom, side) for top, bottom, _, _ in boxes])  # [B, S, S]
    columns = np.stack([_sampling(left, right, side) for _, _, left, right in boxes])
    wide = whole.transpose(1, 0, 3, 2).reshape(side, -1)  # [S, K * 3 * S]
    crops = (rows @ wide).reshape(len(boxes), side * count * colours, side) @ columns.transpose(0, 2, 1)
    crops = crops.reshape(len(boxes), side, count, colours, side)
    target = part.transpose(1, 0, 3, 2)  # [S, K, 3, S]
    crops = crops - crops.mean(axis=(1, 2, 4), keepdims=True)
    target = target - target.mean(axis=(0, 1, 3), keepdims=True)
    sizes = np.sqrt((crops**2).sum(axis=(1, 2, 3, 4)) * (target**2).sum())
    products = np.tensordot(crops, target, axes=4)
    scores = np.where(sizes > 0, products / np.maximum(sizes, 1e-9), 0.0)
    best = int(scores.argmax())
    return float(scores[best]), boxes[best]


@lru_cache(maxsize=4096)
def _sampling(begin: float, end: float, size: int) -> np.ndarray:
    """[size, size]: what interpolates `size` points of a part of an axis of `size` cells."""
    places = np.clip((begin + (np.arange(size) + 0.5) / size * (end - begin)) * size - 0.5, 0, size - 1)
    low = np.minimum(places.astype(int), size - 2)
    weights = np.zeros((size, size), np.float32)
    weights[np.arange(size), low] = 1 - (places - low)
    weights[np.arange(size), low + 1] = places - low
    return weights
