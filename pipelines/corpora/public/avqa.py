"""AVQA's questions (Yang et al., ACM MM 2022): four choices each, on VGGSound's 10 s videos.

A file is a list of ``{id, video_name: "<YouTube id>_<start, 6 digits>", video_id, question_text, multi_choice
(4), answer (0-3), question_relation (Both, Sound, View), question_type}``. Published are ``train_qa.json``
and ``val_qa.json``, which stays val here. Some entries of val have fewer choices, or None among them: those left are
the question's.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.public.question_files import (
    OFFICIAL,
    QuestionFilesConfig,
    entries,
    question_of,
    text_of,
    write_corpus,
)
from shards.errors import InputError
from shards.questions import Question

FILES = {split: (f"{split}_qa.json",) for split in ("train", "val", "test")}
TYPES = ("Which", "Come From", "Happening", "Where", "Why", "Before Next", "When", "Used For")
CHOICES = 4
RELATIONS = ("Both", "Sound", "View")


class AvqaConfig(QuestionFilesConfig):
    """Multiple-choice questions about VGGSound's videos: AVQA."""


def build(config: AvqaConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Write ``questions.jsonl``, ``corpus.json`` and, given the folder of ``<video_name>.mp4``, ``manifest.csv``.

    Raises:
        InputError: a file is not of this form, naming the entry and the field.
    """
    files = config.find(FILES)
    questions, relations = [], collections.Counter[str]()
    ids: dict[str, str] = {}
    for split, path in files:
        for where, _, entry in entries(path):
            question = _question(where, entry, split)
            if (first := ids.setdefault(question.id, where)) != where:
                message = f"'{question.id}' is the id of {first}, too"
                raise InputError(message, file=where, field="id", remedy="give every question its own")
            questions.append(question)
            relations[_one_of(where, entry, "question_relation", RELATIONS)] += 1
    rows = None
    if config.videos is not None:
        folder = config.videos.resolve()
        rows = {question.clip: {"path": str(folder / f"{question.clip}.mp4")} for question in questions}
    facts = {
        "files": [f"{split}: {path.name}" for split, path in files],
        "relations": dict(sorted(relations.items())),
        "fewer_than_four_choices": sum(len(question.choices or ()) < CHOICES for question in questions),
    }
    return write_corpus(out, "avqa", {OFFICIAL: questions}, rows, facts)


def _question(where: str, entry: Mapping[str, Any], split: str) -> Question:
    texts, place = _choices(where, entry), entry.get("answer")
    if not isinstance(place, int) or isinstance(place, bool) or place not in range(len(texts)):
        raise InputError(f"{place!r} is no choice", file=where, field="answer", remedy=f"give 0 to {len(texts) - 1}")
    answer, choices = texts[place], tuple(text for text in texts if text is not None)
    if answer is None:
        raise InputError(f"choice {place} is empty", file=where, field="answer", remedy="correct or delete the entry")
    if len(choices) < 2:
        raise InputError("one choice is none", file=where, field="multi_choice", remedy="give two to four strings")
    return question_of(
        where,
        id=text_of(where, entry, "id"),
        clip=text_of(where, entry, "video_name"),
        question=text_of(where, entry, "question_text"),
        answer=answer,
        type=_one_of(where, entry, "question_type", TYPES),
        split=split,
        choices=choices,
    )


def _choices(where: str, entry: Mapping[str, Any]) -> list[str | None]:
    """Up to four texts; a choice that is missing is None, as in some entries of val_qa.json."""
    choices = entry.get("multi_choice")
    fine = isinstance(choices, list) and all(text is None or isinstance(text, str) for text in choices)
    if not fine or not choices or len(choices) > CHOICES:
        raise InputError("no choices", file=where, field="multi_choice", remedy="give two to four strings")
    return [(text or "").strip() or None for text in choices]


def _one_of(where: str, entry: Mapping[str, Any], field: str, names: Sequence[str]) -> str:
    """A name of the list; the files' spelling may differ in case and in "/" or "_" for a space."""
    text = text_of(where, entry, field)
    for name in names:
        if "".join(filter(str.isalpha, name)).lower() == "".join(filter(str.isalpha, text)).lower():
            return name
    raise InputError(f"'{text}' is unknown", file=where, field=field, remedy=f"one of {', '.join(names)}")
