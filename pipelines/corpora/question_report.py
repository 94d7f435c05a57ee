"""What is known of a set of questions: counts by split and type, and how far questions alone carry."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from shards.baselines import accuracies, chances, look_up, majority
from shards.questions import Question

LEARN_FROM = ("train", "val")  # the first of these splits that has questions


def report(questions: Sequence[Question], asked: str = "test", learnt: str | None = None) -> dict[str, Any]:
    """Counts, and accuracies on split ``asked`` of blind models that know split ``learnt``.

    Args:
        questions: of all splits.
        asked: the split to answer; the last of the questions' own where it has none.
        learnt: the split to learn from; by default train, or val where there is no train.
    """
    splits = {split: [q for q in questions if q.split == split] for split in _splits(questions)}
    rest = [split for split in splits if split != asked] or [asked]
    learnt = learnt or next((split for split in LEARN_FROM if split in rest), rest[0])
    asked = asked if asked in splits else list(splits)[-1]
    train, test = splits[learnt], splits[asked]
    blind = {
        "learnt_from": learnt,
        "asked": asked,
        "look_up": accuracies(test, look_up(train, test)),
        "majority": accuracies(test, majority(train, test)),
        "chance": chances(test),
    }
    return {
        "questions": {split: len(those) for split, those in splits.items()},
        "by_type": {split: _counted(q.type for q in those) for split, those in splits.items()},
        "answers": _counted(q.answer for q in questions),
        "question_only": blind,
    }


def table(found: dict[str, Any]) -> str:
    """The report as lines of text: per type, accuracies of the look-up, of the best guess, and of partial observers."""
    blind = found["question_only"]
    counts = found["by_type"][blind["asked"]]
    columns = {"look-up": blind["look_up"], "chance": blind["chance"]}
    observers = found.get("observers", {})
    if observers:
        columns = {"look-up": blind["look_up"], "majority": blind["majority"], "chance": blind["chance"], **observers}
    width = max(28, *map(len, blind["look_up"]))
    lines = [
        f"question alone, learnt from {blind['learnt_from']}, asked of {blind['asked']} (percent):",
        f"{'type':{width}} {'asked':>6} {' '.join(f'{name:>8}' for name in columns)}",
    ]
    if observers:
        lines[0] = f"{lines[0][:-1]}; observers who know {', '.join(observers)}:"
    for name in blind["look_up"]:
        cells = [f"{100 * column[name]:8.1f}" if name in column else " " * 8 for column in columns.values()]
        lines.append(f"{name:{width}} {counts.get(name, sum(counts.values())):6} {' '.join(cells)}".rstrip())
    return "\n".join(lines)


def _splits(questions: Sequence[Question]) -> list[str]:
    order = ("train", "val", "test")
    found = {question.split for question in questions}
    return sorted(found, key=lambda split: (order.index(split) if split in order else len(order), split))


def _counted(names: Any) -> dict[str, int]:
    return dict(sorted(collections.Counter(names).items()))
