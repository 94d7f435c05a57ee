"""Signed distances of simple shapes: negative inside, in the units of the coordinates, arrays of any shape.

Every function takes the coordinates ``u`` (right) and ``v`` (down) and returns an array like them. Union is
``np.minimum``, intersection ``np.maximum``, difference ``np.maximum(a, -b)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]


def circle(u: np.ndarray, v: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
    """Disc around (x, y)."""
    return np.hypot(u - x, v - y) - radius


def ellipse(u: np.ndarray, v: np.ndarray, x: float, y: float, a: float, b: float) -> np.ndarray:
    """Ellipse of half axes a and b; exact in sign, near the edge about right in size."""
    return (np.hypot((u - x) / a, (v - y) / b) - 1) * min(a, b)


def box(u: np.ndarray, v: np.ndarray, x: float, y: float, a: float, b: float) -> np.ndarray:
    """Rectangle of half width a and half height b around (x, y) (Chebyshev distance outside the corners)."""
    return np.maximum(np.abs(u - x) - a, np.abs(v - y) - b)


def bar(u: np.ndarray, v: np.ndarray, start: Point, end: Point, radius: float) -> np.ndarray:
    """Line from start to end with round ends."""
    (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    along = np.clip(((u - x) * dx + (v - y) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(u - x - along * dx, v - y - along * dy) - radius


def convex(u: np.ndarray, v: np.ndarray, corners: Sequence[Point]) -> np.ndarray:
    """Convex polygon, corners clockwise as seen (v points down)."""
    inside = None
    for (x, y), (x2, y2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = float(np.hypot(x2 - x, y2 - y))
        side = ((y2 - y) * (u - x) - (x2 - x) * (v - y)) / length
        inside = side if inside is None else np.maximum(inside, side)
    assert inside is not None, "a polygon has corners"
    return inside


def ring(distance: np.ndarray, width: float) -> np.ndarray:
    """The outline of a shape, ``width`` thick to either side."""
    return np.abs(distance) - width


def union(*distances: np.ndarray) -> np.ndarray:
    """All of the shapes together."""
    return np.minimum.reduce(distances)
