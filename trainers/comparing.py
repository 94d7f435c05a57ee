"""Methods beside each other: accuracies with their intervals, and differences, from right and wrong by sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainers.bootstrap import DRAWS, Estimate, drawn_shares, effective, over_seeds, wilson
from trainers.scored import ALL, Samples, Scored
from trainers.tables import UNKNOWN, Interval

Key = tuple[str, str, str]  # line, condition, kind


@dataclass(frozen=True)
class Difference:
    """One method less another, paired by clip and seed.

    Attributes:
        estimate: mean, standard error, degrees of freedom.
        seeds: that both have.
        p: two-sided, not corrected.
    """

    estimate: Estimate
    seeds: int
    p: float


@dataclass(frozen=True)
class _Values:
    """A figure of a line by seed: shares, draws of them, the share of right answers by clip [C, S], and how many clips
    were asked about."""

    seeds: tuple[int | None, ...]
    shares: np.ndarray
    draws: np.ndarray
    clips: np.ndarray
    asked: int

    def at(self, seeds: Sequence[int | None]) -> _Values:
        """Of these seeds; a rule's one value is that of each."""
        places = [0 if self.rule else self.seeds.index(seed) for seed in seeds]
        return _Values(tuple(seeds), self.shares[places], self.draws[:, places], self.clips[:, places], self.asked)

    @property
    def rule(self) -> bool:
        return self.seeds == (None,)


class Comparison:
    """Runs on the same samples, resampled together.

    Args:
        scored: of each run under each condition.
        samples: what they are about.
        by_kind: the conditions of which kinds of question are told; of others only `ALL`.
        draws: of the bootstrap.
    """

    def __init__(self, scored: Sequence[Scored], samples: Samples, by_kind: Iterable[str] = (), draws: int = DRAWS):
        self.networks = {one.line: one.network for one in scored}
        self.methods = {one.line: one.method or one.line for one in scored}
        self.train_missing = {one.line: one.train_missing for one in scored}
        self.conditions = tuple(dict.fromkeys(one.condition for one in scored))
        self.kinds = tuple(samples.kinds)
        self.clips = len(set(samples.clusters))
        places = {name: i for i, name in enumerate(dict.fromkeys(samples.clusters))}
        cluster = np.array([places[name] for name in samples.clusters], dtype=np.intp)
        detailed, counts = set(by_kind), dict[tuple[str, str], int]()
        right, asked = list[np.ndarray](), list[np.ndarray]()
        group: list[int] = []
        self._columns: dict[Key, dict[int | None, int]] = {}
        for one in scored:
            for kind in self.kinds if one.condition in detailed else (ALL,):
                members = samples.kinds[kind] & one.counted
                if not members.any():
                    continue
                if (one.condition, kind) not in counts:
                    counts[one.condition, kind] = len(asked)
                    asked.append(np.bincount(cluster[members], minlength=self.clips))
                self._columns.setdefault((one.line, one.condition, kind), {})[one.seed] = len(right)
                right.append(np.bincount(cluster[members], one.right[members], minlength=self.clips))
                group.append(counts[one.condition, kind])
        self._group, self._asked = group, np.stack(asked, axis=1)
        self._right = np.stack(right, axis=1)
        self._shares, self._draws = drawn_shares(self._right, self._asked, group, draws)

    def lines(self) -> list[str]:
        """In order of appearance."""
        return list(self.networks)

    def interval(self, line: str, conditions: Sequence[str], kind: str = ALL) -> Interval:
        """Of the mean over seeds and conditions: Student's t with the bootstrap over clips (`over_seeds`). Of one seed,
        or of a rule, under one condition Wilson's with as many answers as the clips are worth (`effective`); so, too,
        where all answers are right, or none, or about one clip. NaN where it was not judged."""
        found = self._values(line, conditions, kind)
        if found is None:
            return UNKNOWN
        estimate = over_seeds(found.shares, found.draws, found.asked)
        if not estimate.error or found.asked < 2:  # all right or all wrong: as many independent answers as clips
            return wilson(estimate.mean, found.asked)
        if len(found.seeds) > 1 or len(conditions) > 1:
            return estimate.mean - estimate.half, estimate.mean + estimate.half
        alone = self._asked.max() <= 1  # one sample a clip: they are independent
        return wilson(estimate.mean, found.asked if alone else effective(estimate.mean, estimate.error))

    def difference(self, line: str, other: str, conditions: Sequence[str], kind: str = ALL) -> Difference | None:
        """`line` less `other`, the mean over conditions; None where they have no condition or seed in common.

        p is at least 2^(1 - k) for k clips on which they differ, as of a sign test: no more can be known from k. Where
        one clip alone was asked about, p is 1 and its error NaN.
        """
        mine, theirs = self._values(line, conditions, kind), self._values(other, conditions, kind)
        if mine is None or theirs is None:
            return None
        seeds = _common(mine, theirs)
        if not seeds:
            return None
        mine, theirs = mine.at(seeds), theirs.at(seeds)
        estimate = over_seeds(mine.shares - theirs.shares, mine.draws - theirs.draws, mine.asked)
        differ = int(np.count_nonzero((mine.clips - theirs.clips).mean(axis=1).round(9)))
        return Difference(estimate, len(seeds), float(np.fmax(estimate.p, min(1.0, 2.0 ** (1 - differ)))))

    def _values(self, line: str, conditions: Sequence[str], kind: str) -> _Values | None:
        """The mean over conditions, of the seeds that all of them have."""
        found: list[Mapping[int | None, int]] = [self._columns.get((line, c, kind), {}) for c in conditions]
        seeds = [seed for seed in found[0] if all(seed in one for one in found)] if found else []
        if not seeds:
            return None
        places = np.array([[one[seed] for seed in seeds] for one in found])  # [conditions, S]
        draws = _mean([self._draws[:, row] for row in places])
        clips = _mean([self._right[:, row] for row in places])
        asked = self._asked[:, [self._group[first] for first in places[:, 0]]].any(axis=1)
        return _Values(tuple(seeds), self._shares[places].mean(axis=0), draws, clips, int(asked.sum()))


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Of arrays of one shape; in their order in memory, which `numpy.mean` of a list would change."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total / len(arrays)


def _common(mine: _Values, theirs: _Values) -> tuple[int | None, ...]:
    if mine.rule or theirs.rule:
        return theirs.seeds if mine.rule else mine.seeds
    return tuple(seed for seed in mine.seeds if seed in theirs.seeds)
