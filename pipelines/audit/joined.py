"""Duplicates joined to groups of clips that must not be divided between splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.audit.duplicates import ClipFiles, Columns, Match
from pipelines.audit.part import ClipRecord

AUDIO, VISUAL, SOURCE = 1, 2, 4  # bits
NAMES = {AUDIO: "duplicate_audio", VISUAL: "duplicate_visual", SOURCE: "shared_source"}


class Joined:
    """What a clip's duplicates make of it.

    Attributes:
        matches: pairs of duplicates, in order of their positions.
        component: int32 [clips], equal for clips that duplicates, a common file or a common group join.
    """

    def __init__(self, matches: Sequence[Match], columns: Columns, files: ClipFiles):
        self.matches, self._files, self._groups = matches, files, columns.groups
        self.component = components(len(columns.digests), matches, np.asarray(columns.groups))
        sizes = np.bincount(self.component)
        self._several = sizes > 1
        self._divided = _divided(self.component, np.asarray(columns.splits), len(sizes))
        self._bits = np.zeros(len(columns.digests), np.uint8)
        self._partner: dict[int, tuple[float, int]] = {}
        for one in matches:
            bits = AUDIO * bool(one.audio) | VISUAL * bool(one.visual) | SOURCE * one.source
            for clip, other in ((one.a, one.b), (one.b, one.a)):
                self._bits[clip] |= bits
                known = self._partner.get(clip, (-1.0, -1))
                self._partner[clip] = max(known, (max(one.audio, one.visual), -other))
        self._representatives = self._first_of_several()
        self._names: dict[int, str] = {}

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
        if clip not in self._partner:
            return ""
        return self._files.record(-self._partner[clip][1]).id

    def group(self, clip: int, record: ClipRecord) -> str:
        """Name for the manifest's column ``group``: that of the manifest, or made from the first clip's id."""
        number = int(self.component[clip])
        if not self._several[number]:
            return record.group or ""
        if number not in self._names:
            first = self._files.record(self._representatives[number])
            self._names[number] = first.group or f"same:{first.id}"
        return self._names[number]

    def _first_of_several(self) -> dict[int, int]:
        """By component of several clips: its first clip with a group, else its first."""
        found: dict[int, int] = {}
        several = np.flatnonzero(self._several[self.component])
        grouped = np.asarray(self._groups)[several] >= 0
        for clip in (*several[grouped], *several[~grouped]):
            found.setdefault(int(self.component[clip]), int(clip))
        return found


def components(count: int, matches: Sequence[Match], groups: np.ndarray) -> np.ndarray:
    """int32 [count]: equal for clips that duplicates, a common file or a common group (-1: none) join."""
    joined = np.array([(one.a, one.b) for one in matches], np.int64).reshape(-1, 2)
    rows = np.flatnonzero(groups >= 0)
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
