"""Pairs of clips whose hashes are close, found in sorted orders: memory and time grow with clips, not with pairs.

Source: Charikar, "Similarity estimation techniques from rounding algorithms" (STOC 2002): hashes whose bits were
permuted at random are sorted, and each is compared with its neighbours; close hashes are neighbours in some order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BITS = 41  # of the longer hash
BLOCK = 1 << 18  # hashes that are compared with their neighbours at a time
CLIP_BITS, APART_BITS = 28, 7  # of an edge, as one number: clip, other clip, bits in which their hashes differ
LOW, HIGH = np.uint64(APART_BITS), np.uint64(APART_BITS + CLIP_BITS)
APART, OTHERS = (np.uint64((1 << bits) - 1) for bits in (APART_BITS, APART_BITS + CLIP_BITS))

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
    edges = np.zeros(0, np.uint64)
    for _ in range(tables):
        order = np.argsort(_permuted(flat, rng.permutation(BITS)), kind="stable")
        edges = _closest([edges, *_neighbours(flat[order], owner[order], neighbours, distance)], nearest)
    return _pairs(edges)


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


def _neighbours(values: np.ndarray, owners: np.ndarray, reach: int, distance: int) -> Iterator[np.ndarray]:
    """Edges, in both directions, between clips whose hashes are close in a sorted order."""
    for step in range(1, min(reach, len(values) - 1) + 1):
        for begin in range(0, len(values) - step, BLOCK):
            first = slice(begin, min(begin + BLOCK, len(values) - step))
            second = slice(first.start + step, first.stop + step)
            apart = np.bitwise_count(values[first] ^ values[second])
            close = (apart <= distance) & (owners[first] != owners[second])
            one, two = (owners[part][close].astype(np.uint64) for part in (first, second))
            yield _edges(one, two, apart[close])
            yield _edges(two, one, apart[close])


def _edges(clip: np.ndarray, other: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """uint64: clip, other clip, and bits apart, packed so that sorting them sorts by these."""
    return clip << HIGH | other << LOW | apart.astype(np.uint64)


def _closest(parts: Sequence[np.ndarray], nearest: int) -> np.ndarray:
    """Of each clip the edges to the nearest few, each other clip once with its least distance."""
    edges = np.concatenate(parts)
    edges.sort()
    edges = edges[_changes(edges >> LOW)]
    clips, others, apart = edges & ~OTHERS, edges & OTHERS, edges & APART
    edges = clips | apart << np.uint64(CLIP_BITS) | others >> LOW  # by distance, then by the other clip
    edges.sort()
    new = _changes(edges >> HIGH)
    places = np.arange(len(edges), dtype=np.int32)
    edges = edges[places - np.maximum.accumulate(np.where(new, places, 0)) < nearest]
    apart, others = edges >> np.uint64(CLIP_BITS) & APART, edges & (OTHERS >> LOW)
    return edges & ~OTHERS | others << LOW | apart


def _changes(values: np.ndarray) -> np.ndarray:
    """bool: which of sorted values differ from the one before."""
    out = np.ones(len(values), bool)
    out[1:] = values[1:] != values[:-1]
    return out


def _pairs(edges: np.ndarray) -> Pairs:
    """Edges as pairs, each once, in order of (a, b)."""
    clip, other, apart = edges >> HIGH, (edges & OTHERS) >> LOW, edges & APART
    pairs = np.sort(_edges(np.minimum(clip, other), np.maximum(clip, other), apart))
    pairs = pairs[_changes(pairs >> LOW)]
    a, b = (values.astype(np.int32) for values in (pairs >> HIGH, (pairs & OTHERS) >> LOW))
    return a, b, (pairs & APART).astype(np.uint8)
