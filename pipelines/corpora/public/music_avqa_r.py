"""MUSIC-AVQA-R (NeurIPS 2024): MUSIC-AVQA's test questions rephrased, scored on frequent and on rare answers.

``avqa-test-head.json`` and ``avqa-test-tail.json`` hold the rephrasings whose answers are frequent (more than 1.2
times the mean count of an answer of their type) and the others. Train and val are MUSIC-AVQA's updated files.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.public.music_avqa import MusicAvqaConfig, video_rows
from pipelines.corpora.public.music_avqa_entries import read_entries
from pipelines.corpora.public.question_files import OFFICIAL, write_corpus
from shards.errors import InputError
from shards.questions import Question

PARTS = {"avqa-test-head.json": "head", "avqa-test-tail.json": "tail"}
BOTH = "avqa-test-headtail.json"
RATIO = 1.2  # an answer is frequent above so many times the mean count of its type's answers
FILES = {
    "train": ("avqa-train.json",),
    "val": ("avqa-val.json",),
    "test": ("avqa-test-*.json",),
}


class MusicAvqaRConfig(MusicAvqaConfig):
    """Rephrased questions about musical performances, with frequent and rare answers: MUSIC-AVQA-R."""


def build(config: MusicAvqaRConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``questions.jsonl`` (overall), ``questions-head.jsonl``, ``questions-tail.jsonl`` and ``corpus.json``.

    Each holds the same train and val questions, and its own test questions. Where the files of head and tail are not
    both there, the published rule parts those of ``avqa-test-headtail.json``.

    Raises:
        InputError: a file is not of this form; there are no test questions.
    """
    files = _parted(config.find(FILES))
    found = read_entries(files, rephrased=True)
    learnt = [question for question in found.questions if question.split in ("train", "val")]
    test = [question for question in found.questions if question.split not in ("train", "val")]
    if not test:
        remedy = f"give {' and '.join(PARTS)}, or {BOTH}"
        raise InputError("no test questions", field="files", remedy=remedy)
    parted = {question.split for question in test} <= set(PARTS.values())
    head = {question.id for question in test if question.split == "head"} if parted else frequent(test)
    test = [question.model_copy(update={"split": "test"}) for question in test]
    parts = {
        OFFICIAL: test,
        "head": [question for question in test if question.id in head],
        "tail": [question for question in test if question.id not in head],
    }
    facts = {
        "files": [f"{split}: {path.name}" for split, path in files],
        "deleted": found.deleted,
        "head_and_tail": "the files'" if parted else f"by the rule: above {RATIO} times the mean count of the type",
        "test_questions": {name: len(questions) for name, questions in parts.items()},
    }
    sets = {name: [*learnt, *questions] for name, questions in parts.items() if questions}
    summary = write_corpus(out, "music_avqa_r", sets, video_rows(config, found.sources), facts)
    return replace(summary, lines=(summary.lines[0], *found.notes, *summary.lines[1:]))


def frequent(questions: Sequence[Question], ratio: float = RATIO) -> set[str]:
    """Ids of the questions with frequent answers: more than ``ratio`` times the mean count of their type's."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for question in questions:
        counts[question.type][question.answer] += 1
    limits = {kind: ratio * count.total() / len(count) for kind, count in counts.items()}
    return {q.id for q in questions if counts[q.type][q.answer] > limits[q.type]}


def _parted(files: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """The files, those of head and tail called so; each rephrasing once: from these two files, or from that of both."""
    named = [(PARTS.get(path.name, split), path) for split, path in files]
    complete = set(PARTS.values()) <= {split for split, _ in named}
    both = any(path.name == BOTH for _, path in named)
    return [
        (split, path)
        for split, path in named
        if not (complete and path.name == BOTH) and not (both and not complete and path.name in PARTS)
    ]
