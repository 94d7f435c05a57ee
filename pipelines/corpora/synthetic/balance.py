"""Choosing which questions to ask, so that a question does not give its answer away.

Clips come in the order of their numbers, and what is asked about one depends on those before it alone: clip 7
of 100 is asked what clip 7 of 10,000 is asked. A question is asked only if its answer is not ahead of the
rarest one of its template, in its split, whatever fills the template, and hardly ahead among those filled
alike.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.corpora.synthetic.question_templates import TEMPLATES, Facts, Rank, Template
from pipelines.corpora.synthetic.scenes import rng_of
from shards.questions import Question

AHEAD = 1  # an answer of a template may lead the rarest by so many questions
AHEAD_FILLED = 2  # and so among the questions that share a filling
AHEAD_RANKED = 3  # and so where answers and their ranks are balanced together
LEADS_OF_MANY = 4  # times these leads where a clip is asked many questions: else few have an answer that fits


@dataclass(frozen=True)
class Cell:
    """Questions among which outcomes are balanced: this one's outcome, all there are, the lead it may have."""

    key: object
    outcome: Hashable
    outcomes: Sequence[Hashable]
    most: int


@dataclass(frozen=True)
class Candidate:
    """A question that could be asked."""

    template: Template
    filling: tuple[str, ...]
    answer: str
    rank: Rank | None = None

    @property
    def cells(self) -> Iterator[Cell]:
        """Where its answer is to be balanced."""
        return self._of_two() if self.template.of_two else self._by_answer()

    def _by_answer(self) -> Iterator[Cell]:
        text, answers = self.template.text, self.template.answers
        if self.rank is not None:
            yield Cell(text, self.answer, answers, AHEAD_RANKED)
            yield Cell((text, self.rank.among), self.rank.rank, range(self.rank.ranks), AHEAD_RANKED)
            return
        yield Cell(text, self.answer, answers, AHEAD)
        for place, word in enumerate(self.filling):
            yield Cell((text, place, word), self.answer, answers, AHEAD_FILLED)
        if len(self.filling) > 1:
            yield Cell((text, self.filling), self.answer, answers, AHEAD_FILLED)

    def _of_two(self) -> Iterator[Cell]:
        """Either of the two classes is as often the answer: as the first named, and whoever it is."""
        text, first = self.template.text, self.answer == self.filling[0]
        yield Cell(text, first, (False, True), AHEAD)
        for word in self.filling:
            yield Cell((text, word), word == self.answer, (False, True), AHEAD_FILLED)
        yield Cell((text, frozenset(self.filling)), self.answer, self.filling, AHEAD_FILLED)


class Balance:
    """The questions asked so far in one split.

    Args:
        leads: how many times the usual lead an answer may have.
    """

    def __init__(self, leads: int = 1) -> None:
        self.leads = leads
        self.kinds: collections.Counter[str] = collections.Counter()
        self.cells: dict[object, collections.Counter[Hashable]] = collections.defaultdict(collections.Counter)

    def fits(self, candidate: Candidate) -> bool:
        """Whether its answer is not too far ahead in any of its cells."""
        return all(self._lead(cell) < cell.most * self.leads for cell in candidate.cells)

    def add(self, candidate: Candidate) -> None:
        """Count it as asked."""
        self.kinds[candidate.template.kind] += 1
        for cell in candidate.cells:
            self.cells[cell.key][cell.outcome] += 1

    def count(self, template: Template) -> int:
        """How often the template was."""
        return self.cells[template.text].total()

    def _lead(self, cell: Cell) -> int:
        counts = self.cells[cell.key]
        return counts[cell.outcome] - min(counts[outcome] for outcome in cell.outcomes)


def ask_all(
    scenes: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    most: int,
    seed: int,
    templates: Sequence[Template] = TEMPLATES,
) -> list[Question]:
    """Up to ``most`` questions about each scene, no two of a kind, balanced within each split."""
    return [question for question, _ in ask_with_fillings(scenes, splits, most, seed, templates)]


def ask_with_fillings(
    scenes: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    most: int,
    seed: int,
    templates: Sequence[Template],
    most_of_train: int | None = None,
) -> list[tuple[Question, Candidate]]:
    """As `ask_all`: each question with what it was made of.

    Args:
        most_of_train: most questions about a train scene, several of a kind; None: as about any other.
    """
    balances: dict[str, Balance] = collections.defaultdict(Balance)
    if most_of_train is not None:
        balances["train"] = Balance(LEADS_OF_MANY)
    questions = []
    for scene, split in zip(scenes, splits, strict=True):
        rng = rng_of(seed, f"ask-{scene['id']}")
        facts, balance = Facts.of(scene), balances[split]
        if split == "train" and most_of_train is not None:
            chosen = choose_in_rounds(facts, balance, most_of_train, rng, templates)
        else:
            chosen = choose(facts, balance, most, rng, templates)
        for number, candidate in enumerate(chosen):
            question = Question(
                id=f"{scene['id']}-{number}",
                clip=scene["id"],
                question=candidate.template.text.format(*candidate.filling),
                answer=candidate.answer,
                type=candidate.template.kind,
                split=split,
            )
            questions.append((question, candidate))
    return questions


def choose_in_rounds(
    facts: Facts, balance: Balance, most: int, rng: np.random.Generator, templates: Sequence[Template]
) -> list[Candidate]:
    """Ask about one clip as often as `most` says: a kind at most once a round, until a round has nothing to ask."""
    chosen: list[Candidate] = []
    while len(chosen) < most and (
        found := choose(facts, balance, most - len(chosen), rng, templates, besides=frozenset(chosen))
    ):
        chosen += found
    return chosen


def choose(
    facts: Facts,
    balance: Balance,
    most: int,
    rng: np.random.Generator,
    templates: Sequence[Template] = TEMPLATES,
    besides: Collection[Candidate] = (),
) -> list[Candidate]:
    """Ask about one clip: the kinds asked least come first, and within a kind the template asked least.

    Args:
        besides: what was asked about the clip already.
    """
    chosen: list[Candidate] = []
    order = rng.permutation(list(dict.fromkeys(template.kind for template in templates))).tolist()
    for kind in sorted(order, key=lambda kind: balance.kinds[kind]):
        others = (candidate for candidate in _candidates(facts, kind, templates) if candidate not in besides)
        fitting = [candidate for candidate in others if balance.fits(candidate)]
        if fitting and len(chosen) < most:
            least = min(balance.count(candidate.template) for candidate in fitting)
            fitting = [one for one in fitting if balance.count(one.template) == least]
            chosen.append(fitting[rng.integers(len(fitting))])
            balance.add(chosen[-1])
    return chosen


def _candidates(facts: Facts, kind: str, templates: Sequence[Template]) -> Iterator[Candidate]:
    for template in templates:
        if template.kind == kind:
            for filling, answer in template.ask(facts):
                if answer in template.answers:
                    rank = template.rank and template.rank(facts, filling, answer)
                    yield Candidate(template, filling, answer, rank)
