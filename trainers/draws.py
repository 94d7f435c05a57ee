"""Random draws by (seed, sample id) in bulk: orders of an epoch, and numbers per sample. What a sample gets never
depends on where its shard holds it, nor on which other samples there are.

An id is hashed once per dataset, to 64 bits; a draw mixes them with a key. Shapes: S samples, n draws of each. A
sample takes 8 bytes for its id and 4 in an order, and 2 more while the order is made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.noise import generator
from shards.positions import index_type

Uniform = Callable[[int], np.ndarray]  # n numbers in [0, 1) of each sample of a batch, float64 [B, n]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_BITS = 6  # an order is made in so many parts (of 2 to this power), by the first bits of what is sorted
_CHUNK = 1 << 16


def mixed(ids: np.ndarray, *key: object) -> np.ndarray:
    """Another 64 bits of each id, which depend on it and on the key's text alone; uint64 [S]."""
    return _scrambled(ids + _addend(*key))


def _addend(*key: object) -> np.uint64:
    return generator(*key).integers(2**64, dtype=np.uint64)


def shuffled(ids: np.ndarray, *key: object) -> np.ndarray:
    """Positions [S] in an order that depends on (key, id) alone, int32 (int64 of more than these hold): those by which
    `mixed` is sorted, and of equal ids the first one first."""
    addend, part = _addend(*key), np.empty(len(ids), np.uint8)
    for at in range(0, len(ids), _CHUNK):
        part[at : at + _CHUNK] = _scrambled(ids[at : at + _CHUNK] + addend) >> np.uint64(64 - _BITS)
    order = np.empty(len(ids), index_type(len(ids)))
    end = 0
    for number in range(1 << _BITS):
        rows = np.flatnonzero(part == number)
        begin, end = end, end + len(rows)
        order[begin:end] = rows[np.argsort(_scrambled(ids[rows] + addend), kind="stable")]
    return order


def uniform(ids: np.ndarray, n: int, *key: object) -> np.ndarray:
    """Numbers in [0, 1) by (key, id), float64 [S, n]."""
    counter = np.arange(1, n + 1, dtype=np.uint64) * _STEP
    bits = _scrambled(mixed(ids, *key)[:, None] + counter)
    return (bits >> np.uint64(11)) * 2.0**-53


def again(ids: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Other 64 bits of each id for each time that it comes again, the id itself for 0; uint64 [S]."""
    return np.where(times > 0, _scrambled(ids + times.astype(np.uint64)), ids)


def _scrambled(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a permutation of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
