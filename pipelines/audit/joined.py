"""Duplicates joined to groups of clips that must not be divided between splits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.audit.duplicates import ClipFiles, Columns, Match
from pipelines.audit.part import ClipRecord

AUDIO, VISUAL, SOURCE = 1, 2, 4  # bits
NAMES_KEPT = 4096  # of groups: clips of one group are mostly neighbours
NAMES = {AUDIO: "duplicate_audio", VISUAL: "duplicate_visual", SOURCE: "shared_source"}


class Joined:
    """What a clip's duplicates make of it.

    Attributes:
        matches: pairs of duplicates, in order of their positions, an array of `MATCH`.
        component: int32 [clips], equal for clips that duplicates, a common file or a common group join.
    """

    def __init__(self, matches: np.ndarray, columns: Columns, files: ClipFiles):
        self.matches, self._files = matches, files
        count, groups = len(columns.digests), np.asarray(columns.groups)
        self.component = components(count, matches, groups)
        sizes = np.bincount(self.component)
        self._several = sizes > 1
        self._divided = _divided(self.component, np.asarray(columns.splits), len(sizes))
        self._bits, self._partner = _bits(matches, count), _partners(matches, count)
        self._representatives = _representatives(self.component, groups, len(sizes))
        self._name = lru_cache(maxsize=NAMES_KEPT)(self._name_of)

    def flags(self, clip: int) -> tuple[str, ...]:
        """Flags that a clip has for being a duplicate."""
        bits = int(self._bits[clip])
        found = tuple(name for bit, name in NAMES.items() if bits & bit)
        return (*found, "across_splits") if found and self.across(clip) else found

    def across(self, clip: int) -> bool:
        """Whether clips that are joined with it are in another split."""
        return bool(self._divided[self.component[clip]])

    def nearest(self, clip: int) -> str:
        """Id of the clip that is most like it; empty: it has no duplicate."""
        partner = int(self._partner[clip])
        return self._files.record(partner).id if partner >= 0 else ""

    def group(self, clip: int, record: ClipRecord) -> str:
        """Name for the manifest's column ``group``: that of the manifest, or made from the first clip's id."""
        number = int(self.component[clip])
        return self._name(number) if self._several[number] else record.group or ""

    def shown(self, count: int) -> Iterator[Match]:
        """Pairs to show, at most: those across splits first, each clip once, the first ones."""
        seen: set[int] = set()
        divided = self._divided[self.component[self.matches["a"]]]
        for across in (True, False):
            for place in np.flatnonzero(divided == across):
                if 2 * count <= len(seen):
                    return
                one = Match(*self.matches[place].item())
                if not seen & {one.a, one.b}:
                    seen |= {one.a, one.b}
                    yield one

    def _name_of(self, number: int) -> str:
        first = self._files.record(int(self._representatives[number]))
        return first.group or f"same:{first.id}"


def _bits(matches: np.ndarray, count: int) -> np.ndarray:
    """uint8 [count]: how each clip is a duplicate."""
    found = np.zeros(count, np.uint8)
    bits = AUDIO * (matches["audio"] != 0) | VISUAL * (matches["visual"] != 0) | SOURCE * matches["source"]
    for end in ("a", "b"):
        np.bitwise_or.at(found, matches[end], bits.astype(np.uint8))
    return found


def _partners(matches: np.ndarray, count: int) -> np.ndarray:
    """int32 [count]: the clip most like each, of equal ones the first; -1: it has no duplicate."""
    clips, others = (np.concatenate([matches[end], matches[other]]) for end, other in (("a", "b"), ("b", "a")))
    score = np.tile(np.maximum(matches["audio"], matches["visual"]), 2)
    order = np.lexsort((others, -score, clips))
    first = np.ones(len(order), bool)
    first[1:] = clips[order][1:] != clips[order][:-1]
    found = np.full(count, -1, np.int32)
    found[clips[order][first]] = others[order][first]
    return found


def _representatives(component: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """int32 [count]: of each component its first clip with a group, else its first."""
    clips = np.arange(len(component), dtype=np.int32)
    none = np.iinfo(np.int32).max
    grouped, first = (np.full(count, none, np.int32) for _ in range(2))
    np.minimum.at(grouped, component[groups != 0], clips[groups != 0])
    np.minimum.at(first, component, clips)
    return np.where(grouped < none, grouped, first)


def components(count: int, matches: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """int32 [count]: equal for clips that duplicates, a common file or a common group (0: none) join."""
    joined = np.stack([matches["a"], matches["b"]], axis=1)
    rows = np.flatnonzero(groups)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    same = groups[rows[1:]] == groups[rows[:-1]]
    edges = np.concatenate([joined, np.stack([rows[:-1][same], rows[1:][same]], axis=1)])
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _divided(component: np.ndarray, splits: np.ndarray, count: int) -> np.ndarray:
    """bool [components]: its clips are in several splits."""
    low = np.full(count, np.iinfo(np.int32).max)
    high = np.full(count, -1)
    np.minimum.at(low, component, splits)
    np.maximum.at(high, component, splits)
    return high > low
