"""Where each of many texts stands, without an object for each of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate, chain

import numpy as np


def hashed(names: Iterable[str]) -> np.ndarray:
    """64 bits of each name's BLAKE2 hash, uint64 [S]."""
    return np.fromiter(map(_hash, names), np.uint64)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def index_type(size: int) -> type[np.signedinteger]:
    """The smaller one of int32 and int64 that holds so many positions."""
    return np.int32 if size <= 2**31 else np.int64


class Positions(Mapping[str, int]):
    """Text to position: 12 bytes a text, which is found by its hash and compared where it stands.

    Args:
        parts: the texts, one part behind the other; positions run through. Of a text that is there twice the first
            position counts.
    """

    def __init__(self, *parts: Sequence[str]):
        self._parts = parts
        self._firsts = list(accumulate(map(len, parts), initial=0))
        hashes = np.concatenate([hashed(part) for part in parts]) if parts else np.empty(0, np.uint64)
        self._order = np.argsort(hashes, kind="stable").astype(index_type(len(hashes)))
        self._hashes = hashes[self._order]

    def __getitem__(self, text: str) -> int:
        wanted, hashes, order = _hash(text), self._hashes.data, self._order.data  # of Python's own integers
        at = bisect_left(hashes, wanted)
        while at < len(hashes) and hashes[at] == wanted:
            if self.text(order[at]) == text:
                return order[at]
            at += 1
        raise KeyError(text)

    def __len__(self) -> int:
        return self._firsts[-1]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)

    def text(self, position: int) -> str:
        """What stands there."""
        part, at = self.place(position)
        return self._parts[part][at]

    def place(self, position: int) -> tuple[int, int]:
        """The number of the part that a position is in, and the position there."""
        part = bisect_right(self._firsts, position) - 1
        return part, position - self._firsts[part]

    def repeated(self) -> tuple[int, int] | None:
        """The first position of a text that stood before, behind the position where it did; None of none."""
        alike = np.sort(self._order[1:][self._hashes[1:] == self._hashes[:-1]])
        for position in alike.tolist():
            if (first := self[self.text(position)]) != position:
                return first, position
        return None
