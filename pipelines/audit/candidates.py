"""Pairs of clips whose hashes are close, found in sorted orders: memory and time grow with clips, not with pairs.

Source: Charikar, "Similarity estimation techniques from rounding algorithms" (STOC 2002): hashes whose bits were
permuted at random are sorted, and each is compared with its neighbours; close hashes are neighbours in some order.
"""

from __future__ import annotations

import numpy as np

BITS = 41  # of the longer hash
BLOCK = 1 << 18  # hashes that are compared with their neighbours at a time

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # clips a < b, int32, and bits in which they differ, uint8


def close_pairs(
    hashes: np.ndarray, usable: np.ndarray, *, tables: int, neighbours: int, distance: int, nearest: int, seed: int
) -> Pairs:
    """Pairs of clips with hashes at most ``distance`` bits apart, of each clip the nearest few.

    Args:
        hashes: uint64 [clips, windows].
        usable: bool [clips]; the others are in no pair.
        tables: random orders.
        neighbours: on either side, in each order.
        nearest: pairs that a clip may ask for (others may ask for more pairs with it).

    Returns:
        pairs in order of (a, b), each once.
    """
    flat, owner = _distinct(hashes, usable)
    rng = np.random.default_rng(seed)
    found = _none()
    for _ in range(tables):
        order = np.argsort(_permuted(flat, rng.permutation(BITS)), kind="stable")
        found = _closest(_joined(found, _neighbours(flat, owner, order, neighbours, distance)), nearest)
    return found


def equal_pairs(values: np.ndarray, usable: np.ndarray) -> Pairs:
    """Each clip with the next one of the same value, uint64 [clips]."""
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(values[rows], kind="stable")]
    same = values[rows[1:]] == values[rows[:-1]]
    a, b = rows[:-1][same].astype(np.int32), rows[1:][same].astype(np.int32)
    order = np.lexsort((b, a))
    return a[order], b[order], np.zeros(len(a), np.uint8)


def _distinct(hashes: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the usable clips and whose they are, each once per clip: a still's windows must not be its own
    neighbours."""
    rows = np.flatnonzero(usable).astype(np.int32)
    windows = np.sort(hashes[rows], axis=1)
    fresh = np.ones(windows.shape, bool)
    fresh[:, 1:] = windows[:, 1:] != windows[:, :-1]
    return windows[fresh], np.repeat(rows, hashes.shape[1])[fresh.ravel()]


def _permuted(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """uint64 with bits moved."""
    out = np.zeros_like(values)
    for place, bit in enumerate(order):
        out |= ((values >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place)
    return out


def _neighbours(flat: np.ndarray, owner: np.ndarray, order: np.ndarray, reach: int, distance: int) -> Pairs:
    parts = [_none()]
    values, owners = flat[order], owner[order]
    for step in range(1, min(reach, len(order) - 1) + 1):
        for begin in range(0, len(order) - step, BLOCK):
            first = slice(begin, min(begin + BLOCK, len(order) - step))
            second = slice(first.start + step, first.stop + step)
            apart = np.bitwise_count(values[first] ^ values[second])
            close = (apart <= distance) & (owners[first] != owners[second])
            one, two = owners[first][close], owners[second][close]
            parts.append((np.minimum(one, two), np.maximum(one, two), apart[close]))
    return _joined(*parts)


def _none() -> Pairs:
    return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint8)


def _joined(*parts: Pairs) -> Pairs:
    """All of them, each pair once with its least distance, in order of (a, b)."""
    a, b, apart = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((apart, b, a))
    a, b, apart = a[order], b[order], apart[order]
    first = np.ones(len(a), bool)
    first[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return a[first], b[first], apart[first]


def _closest(pairs: Pairs, nearest: int) -> Pairs:
    """Pairs that are among the nearest few of either clip."""
    a, b, apart = pairs
    clip, other, pair = (np.concatenate(both) for both in ((a, b), (b, a), (np.arange(len(a), dtype=np.int32),) * 2))
    order = np.lexsort((other, np.tile(apart, 2), clip))
    new = np.ones(len(order), bool)
    new[1:] = clip[order][1:] != clip[order][:-1]
    places = np.arange(len(order), dtype=np.int32)
    begins = np.maximum.accumulate(np.where(new, places, 0))
    kept = np.zeros(len(a), bool)
    kept[pair[order[places - begins < nearest]]] = True
    return a[kept], b[kept], apart[kept]
