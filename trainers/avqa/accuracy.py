"""Accuracy by kind of question, as MUSIC-AVQA tells it: averages are over questions, not over kinds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shards.questions import Question
from trainers.scored import ALL as ALL

FAMILIES = ("Audio", "Visual", "Audio-Visual")  # first word of a kind that belongs to one


def family(kind: str) -> str | None:
    """Whose average a kind of question counts in; None: in no one's."""
    first, _, rest = kind.partition(" ")
    return first if rest and first in FAMILIES else None


def average(name: str) -> str:
    """How a family's average is called in rows and tables."""
    return f"{name} average"


@dataclass(frozen=True)
class Score:
    """One figure: a kind of question, a family's average, or `ALL`; accuracy 0..1 over `samples`."""

    kind: str
    accuracy: float
    samples: int


def scores(questions: Sequence[Question], right: np.ndarray, counted: np.ndarray) -> list[Score]:
    """Accuracies from which answers are `right` (bool [Q]), over the `counted` (bool [Q]) questions."""
    return list(_scores(groups(questions), right, counted))


def groups(questions: Sequence[Question]) -> dict[str, np.ndarray]:
    """The members of each kind of question, of the families' averages and of `ALL`, bool [Q], as tables have them."""
    kinds = sorted({q.type for q in questions}, key=lambda kind: (_place(kind), kind))
    out: dict[str, list[bool]] = {}
    for name in (f for f in FAMILIES if any(family(k) == f for k in kinds)):
        out |= {k: [q.type == k for q in questions] for k in kinds if family(k) == name}
        out[average(name)] = [family(q.type) == name for q in questions]
    out |= {k: [q.type == k for q in questions] for k in kinds if family(k) is None}
    out[ALL] = [True] * len(questions)
    return {name: np.array(members, dtype=bool) for name, members in out.items()}


def _place(kind: str) -> int:
    name = family(kind)
    return FAMILIES.index(name) if name else len(FAMILIES)


def _scores(groups: dict[str, np.ndarray], right: np.ndarray, counted: np.ndarray) -> Iterable[Score]:
    for name, members in groups.items():
        chosen = members & counted
        if chosen.any():
            yield Score(name, float(right[chosen].mean()), int(chosen.sum()))
