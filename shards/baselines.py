"""What questions alone give away: the answers of a model that neither sees nor hears."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Sequence

from shards.questions import Question, words_of

Counts = dict[object, collections.Counter[str]]


def majority(train: Iterable[Question], test: Iterable[Question]) -> list[str]:
    """The most frequent answer of each question's type in `train` (one of its choices, if it has some)."""
    return _most_frequent(train, test, (lambda question: question.type, lambda question: None))


def look_up(train: Iterable[Question], test: Iterable[Question]) -> list[str]:
    """The most frequent answer of `train` to each question's very words; to unknown words, of its type."""
    text, kind = _words, (lambda question: question.type)
    return _most_frequent(train, test, (text, kind, lambda question: None))


def accuracies(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """The share of right answers, 0 to 1, by question type, sorted, and of all questions as "all"."""
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        right[question.type].append(question.answer == answer)
        right["all"].append(question.answer == answer)
    names = [*sorted(right.keys() - {"all"}), *(["all"] if right else [])]
    return {name: sum(right[name]) / len(right[name]) for name in names}


def chances(test: Iterable[Question]) -> dict[str, float]:
    """The share of the most frequent answer of each type among `test`: the best that one guess can reach."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for question in test:
        counts[question.type][question.answer] += 1
    return {kind: max(count.values()) / count.total() for kind, count in sorted(counts.items())}


def _most_frequent(
    train: Iterable[Question], test: Iterable[Question], keys: Sequence[Callable[[Question], object]]
) -> list[str]:
    """Answers by the first key that `train` has, the most frequent first; equal ones by the alphabet."""
    tables: list[Counts] = [collections.defaultdict(collections.Counter) for _ in keys]
    for question in train:
        for key, table in zip(keys, tables, strict=True):
            table[key(question)][question.answer] += 1

    @functools.cache
    def answer(known: tuple[object, ...], choices: tuple[str, ...] | None) -> str:
        counts = [table.get(key, collections.Counter()) for key, table in zip(known, tables, strict=True)]
        open_to = choices or {name for table in counts for name in table}
        return min(open_to, key=lambda name: (*(-count[name] for count in counts), name))

    return [answer(tuple(key(question) for key in keys), question.choices) for question in test]


def _words(question: Question) -> str:
    return _joined(question.question)


@functools.lru_cache(maxsize=1 << 16)
def _joined(text: str) -> str:
    return " ".join(words_of(text))
