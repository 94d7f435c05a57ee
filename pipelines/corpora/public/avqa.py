"""AVQA's questions (Yang et al., ACM MM 2022): four choices each, on VGGSound's 10 s videos.

A file is a list of ``{id, video_name: "<YouTube id>_<start, 6 digits>", video_id, question_text, multi_choice
(4), answer (0-3), question_relation (Both, Sound, View), question_type}``. Published are ``train_qa.json``
and ``val_qa.json``, which stays val here.
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
    }
    return write_corpus(out, "avqa", {OFFICIAL: questions}, rows, facts)


def _question(where: str, entry: Mapping[str, Any], split: str) -> Question:
    choices, place = entry.get("multi_choice"), entry.get("answer")
    fine = isinstance(choices, list) and all(isinstance(text, str) and text.strip() for text in choices)
    if not fine or len(choices or ()) != 4:
        raise InputError("no four choices", file=where, field="multi_choice", remedy="give four strings")
    assert choices is not None
    if not isinstance(place, int) or isinstance(place, bool) or place not in range(4):
        raise InputError(f"{place!r} is no choice", file=where, field="answer", remedy="give 0 to 3")
    texts = tuple(text.strip() for text in choices)
    return question_of(
        where,
        id=text_of(where, entry, "id"),
        clip=text_of(where, entry, "video_name"),
        question=text_of(where, entry, "question_text"),
        answer=texts[place],
        type=_one_of(where, entry, "question_type", TYPES),
        split=split,
        choices=texts,
    )


def _one_of(where: str, entry: Mapping[str, Any], field: str, names: Sequence[str]) -> str:
    """A name of the list; the files' spelling may differ in case and in "/" or "_" for a space."""
    text = text_of(where, entry, field)
    for name in names:
        if "".join(filter(str.isalpha, name)).lower() == "".join(filter(str.isalpha, text)).lower():
            return name
    raise InputError(f"'{text}' is unknown", file=where, field=field, remedy=f"one of {', '.join(names)}")
