"""Choosing which questions to ask, so that a question does not give its answer away.

Clips come in the order of their numbers, and what is asked about one depends on those before it alone: clip 7
of 100 is asked what clip 7 of 10,000 is asked. A question is asked only if its answer is not ahead of the
rarest one of its template, in its split, whatever fills the template, and hardly ahead among those filled
alike.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.corpora.synthetic.question_templates import KINDS, TEMPLATES, Facts, Template
from pipelines.corpora.synthetic.scenes import rng_of
from shards.questions import Question

AHEAD = 1  # an answer of a template may lead the rarest by so many questions
AHEAD_FILLED = 2  # and so among the questions that share a filling


@dataclass(frozen=True)
class Candidate:
    """A question that could be asked."""

    template: Template
    filling: tuple[str, ...]
    answer: str

    @property
    def cells(self) -> Iterator[tuple[object, int]]:
        """Where its answer is to be balanced, with the lead that is allowed there."""
        yield self.template.text, AHEAD
        for place, word in enumerate(self.filling):
            yield (self.template.text, place, word), AHEAD_FILLED
        if len(self.filling) > 1:
            yield (self.template.text, self.filling), AHEAD_FILLED


class Balance:
    """The questions asked so far in one split."""

    def __init__(self) -> None:
        self.kinds: collections.Counter[str] = collections.Counter()
        self.cells: dict[object, collections.Counter[str]] = collections.defaultdict(collections.Counter)

    def fits(self, candidate: Candidate) -> bool:
        """Whether its answer is not too far ahead in any of its cells."""
        return all(self._lead(candidate, cell) < most for cell, most in candidate.cells)

    def add(self, candidate: Candidate) -> None:
        """Count it as asked."""
        self.kinds[candidate.template.kind] += 1
        for cell, _ in candidate.cells:
            self.cells[cell][candidate.answer] += 1

    def asked(self, template: Template) -> int:
        """How often the template was."""
        return self.cells[template.text].total()

    def _lead(self, candidate: Candidate, cell: object) -> int:
        counts = self.cells[cell]
        return counts[candidate.answer] - min(counts[answer] for answer in candidate.template.answers)


def ask_all(scenes: Sequence[Mapping[str, Any]], splits: Sequence[str], most: int, seed: int) -> list[Question]:
    """Up to ``most`` questions about each scene, no two of a kind, balanced within each split."""
    balances: dict[str, Balance] = collections.defaultdict(Balance)
    questions = []
    for scene, split in zip(scenes, splits, strict=True):
        chosen = choose(Facts.of(scene), balances[split], most, rng_of(seed, f"ask-{scene['id']}"))
        for number, candidate in enumerate(chosen):
            question = Question(
                id=f"{scene['id']}-{number}",
                clip=scene["id"],
                question=candidate.template.text.format(*candidate.filling),
                answer=candidate.answer,
                type=candidate.template.kind,
                split=split,
            )
            questions.append(question)
    return questions


def choose(facts: Facts, balance: Balance, most: int, rng: np.random.Generator) -> list[Candidate]:
    """Ask about one clip: the kinds asked least come first, and within a kind the template asked least."""
    chosen: list[Candidate] = []
    order = rng.permutation(KINDS).tolist()
    for kind in sorted(order, key=lambda kind: balance.kinds[kind]):
        fitting = [candidate for candidate in _candidates(facts, kind) if balance.fits(candidate)]
        if fitting and len(chosen) < most:
            least = min(balance.asked(candidate.template) for candidate in fitting)
            fitting = [one for one in fitting if balance.asked(one.template) == least]
            chosen.append(fitting[rng.integers(len(fitting))])
            balance.add(chosen[-1])
    return chosen


def _candidates(facts: Facts, kind: str) -> Iterator[Candidate]:
    for template in TEMPLATES:
        if template.kind == kind:
            for filling, answer in template.ask(facts):
                if answer in template.answers:
                    yield Candidate(template, filling, answer)
