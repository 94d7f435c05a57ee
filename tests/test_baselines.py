"""Models that neither see nor hear."""

from __future__ import annotations

import pytest

from shards.baselines import accuracies, chances, look_up, majority
from shards.questions import Question

pytestmark = pytest.mark.unit


def ask(text: str, answer: str, kind: str = "Audio Counting", split: str = "train", **changes) -> Question:
    ask.count += 1  # type: ignore[attr-defined]
    fields = {"id": str(ask.count), "clip": "c", "type": kind, "split": split}  # type: ignore[attr-defined]
    return Question(question=text, answer=answer, **(fields | changes))


ask.count = 0  # type: ignore[attr-defined]
TRAIN = [
    *(ask("how many cats", "two") for _ in range(3)),
    *(ask("how many dogs", "one") for _ in range(2)),
    *(ask("how many birds", "one") for _ in range(2)),
    ask("is it loud", "yes", "Audio Comparative"),
]


def test_the_look_up_knows_words_and_falls_back_on_the_type():
    asked = [
        ask("How many cats?", "two", split="test"),
        ask("how many frogs", "one", split="test"),
        ask("is it", "no", "Audio Comparative", split="test"),
        ask("where", "yes", "Visual Location", split="test"),
    ]
    assert look_up(TRAIN, asked) == ["two", "one", "yes", "one"]
    assert majority(TRAIN, asked) == ["one", "one", "yes", "one"]
    assert accuracies(asked, look_up(TRAIN, asked)) == {
        "Audio Comparative": 0.0,
        "Audio Counting": 1.0,
        "Visual Location": 0.0,
        "all": 0.5,
    }


def test_only_choices_are_chosen_and_ties_go_by_the_alphabet():
    asked = [
        ask("how many cats", "one", split="test", choices=("three", "one")),
        ask("how many cats", "c", split="test", choices=("c", "b")),
    ]
    assert look_up(TRAIN, asked) == ["one", "b"]
    assert look_up(TRAIN[1:3] + TRAIN[3:5], [ask("how many", "two")]) == ["one"]


def test_chance_is_the_most_frequent_answers_share():
    assert chances(TRAIN) == {"Audio Comparative": 1.0, "Audio Counting": 4 / 7}
    assert accuracies([], []) == {}
