"""Random draws by (seed, sample id) in bulk: orders of an epoch, and numbers per sample. What a sample gets never
depends on where its shard holds it, nor on which other samples there are.

An id is hashed once per dataset, to 64 bits; a draw mixes them with a key. Shapes: S samples, n draws of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

from models.noise import generator

Uniform = Callable[[int], np.ndarray]  # n numbers in [0, 1) of each sample of a batch, float64 [B, n]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def hashed(names: Iterable[str]) -> np.ndarray:
    """64 bits of each name's BLAKE2 hash, uint64 [S]."""
    digests = (blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def mixed(ids: np.ndarray, *key: object) -> np.ndarray:
    """Another 64 bits of each id, which depend on it and on the key's text alone; uint64 [S]."""
    return _scrambled(ids + generator(*key).integers(2**64, dtype=np.uint64))


def shuffled(ids: np.ndarray, *key: object) -> np.ndarray:
    """Positions [S] in an order that depends on (key, id) alone."""
    return np.argsort(mixed(ids, *key), kind="stable")


def uniform(ids: np.ndarray, n: int, *key: object) -> np.ndarray:
    """Numbers in [0, 1) by (key, id), float64 [S, n]."""
    counter = np.arange(1, n + 1, dtype=np.uint64) * _STEP
    bits = _scrambled(mixed(ids, *key)[:, None] + counter)
    return (bits >> np.uint64(11)) * 2.0**-53


def _scrambled(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a permutation of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
