"""Entries of MUSIC-AVQA's question files, and of those made from them (v2.0, R), as questions.

A file is a list of ``{video_id, question_id, type: '["Audio", "Counting"]', question_content with
<Object>, <LR>, <FL>, ..., templ_values: '["flute", "left"]', question_deleted, anser}``. Its values fill
the placeholders in turn. v2.0's added entries have no question_id, may hold templ_values as a list, and where
``unmatch_audio`` names another video, the sound is that one's: the clip is called ``<video>+<other>``, to be
made as ``<video>+<other>.mp4``. R's rephrasings are filled already, may lack templ_values, and share the
question_id of what they rephrase.
"""

from __future__ import annotations

import ast
import collections
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.corpora.public.question_files import entries, question_of, text_of
from shards.errors import InputError
from shards.questions import Question

TYPES = {
    "Audio": ("Counting", "Comparative"),
    "Visual": ("Counting", "Location"),
    "Audio-Visual": ("Existential", "Location", "Counting", "Comparative", "Temporal"),
}
INSTRUMENTS = (
    *("accordion", "acoustic_guitar", "bagpipe", "banjo", "bassoon", "cello", "clarinet", "congas", "drum"),
    *("electric_bass", "erhu", "flute", "guzheng", "piano", "pipa", "saxophone", "suona", "trumpet", "tuba"),
    *("ukulele", "violin", "xylophone"),
)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = ("left", "middle", "right", "indoor", "outdoor")
ANSWERS = frozenset({*INSTRUMENTS, *NUMBERS, *PLACES, "more than ten", "yes", "no", "simultaneously"})  # all 42
_PLACEHOLDER = re.compile("<[A-Za-z]+>")
_DELETED = {**dict.fromkeys(("", "0", "false", "none"), False), **dict.fromkeys(("1", "true"), True)}


@dataclass
class Entries:
    """What question files hold.

    Attributes:
        questions: in the files' order; an id that is there again has a number.
        sources: clip -> the videos that its picture and its sound are from.
        unnumbered: ids of the questions whose entries have none; they are named by file and place.
        deleted: how many entries say that they are.
        notes: what to print about it.
    """

    questions: list[Question] = field(default_factory=list)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    unnumbered: set[str] = field(default_factory=set)
    deleted: int = 0
    notes: list[str] = field(default_factory=list)


def read_entries(files: Sequence[tuple[str, Path]], *, rephrased: bool = False) -> Entries:
    """All questions of (split, file) that are not deleted.

    Args:
        files: the split of a file's questions, and the file.
        rephrased: questions are filled already, whatever ``templ_values`` says.

    Raises:
        InputError: a file is not of this form, naming the entry and the field; every question is deleted.
    """
    found = Entries()
    for split, path in files:
        total = gone = 0
        for where, number, entry in entries(path):
            total += 1
            if _is_deleted(where, entry):
                gone += 1
                continue
            clip, found.sources[clip] = _clip(where, entry)
            question = _question(where, entry, clip, split, f"{path.stem}-{number}", rephrased)
            if entry.get("question_id") is None:
                found.unnumbered.add(question.id)
            found.questions.append(question)
        found.deleted += gone
        if gone == total:
            found.notes.append(f"{path.name}: all {total} questions are deleted")
    if not found.questions:
        names = ", ".join(str(path) for _, path in files)
        message = f"all {found.deleted} questions are deleted"
        raise InputError(message, file=names, field="question_deleted", remedy="give 0 to those that are to be asked")
    found.questions = _unique(found.questions)
    return found


def fill(template: str, values: Sequence[str]) -> str:
    """The template with each placeholder replaced by its value, in turn.

    Raises:
        ValueError: there are more or fewer values than placeholders.
    """
    wanted = len(_PLACEHOLDER.findall(template))
    if wanted != len(values):
        raise ValueError(f"{len(values)} values for {wanted} placeholders")
    left = iter(values)
    return _PLACEHOLDER.sub(lambda _: next(left), template).strip()


def _is_deleted(where: str, entry: Mapping[str, Any]) -> bool:
    """``question_deleted`` as a number, a truth value or the text of either; absent: it is not."""
    text = str(entry.get("question_deleted", "")).strip().lower()
    if text not in _DELETED:
        raise InputError(f"'{text}' is neither", file=where, field="question_deleted", remedy="give 0 or 1")
    return _DELETED[text]


def _question(where: str, entry: Mapping[str, Any], clip: str, split: str, spare_id: str, rephrased: bool) -> Question:
    modality, kind = _list(where, entry, "type", 2)
    answer = text_of(where, entry, "anser")
    if kind not in TYPES.get(modality, ()):
        raise InputError(f"'{modality} {kind}' is no type", file=where, field="type", remedy=f"one of {TYPES}")
    if answer not in ANSWERS:
        raise InputError(f"'{answer}' is not among the 42", file=where, field="anser", remedy="correct or delete it")
    content = text_of(where, entry, "question_content")
    filled = rephrased and not _PLACEHOLDER.search(content)
    values = [] if filled or entry.get("templ_values") is None else _list(where, entry, "templ_values")
    try:
        text = fill(content, values)
    except ValueError as error:
        raise InputError(str(error), file=where, field="templ_values", remedy="one per <...>") from None
    has_id = entry.get("question_id") is not None
    return question_of(
        where,
        id=text_of(where, entry, "question_id") if has_id else spare_id,
        clip=clip,
        question=text,
        answer=answer,
        type=f"{modality} {kind}",
        split=split,
    )


def _list(where: str, entry: Mapping[str, Any], field: str, length: int | None = None) -> list[str]:
    """A list of strings, or a string that holds one."""
    value = entry.get(field)
    if isinstance(value, str):
        value = _parsed(value)
    fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not fine or (length is not None and len(value or ()) != length):
        remedy = """the form is '["Audio", "Counting"]'"""
        raise InputError("no list of strings", file=where, field=field, remedy=remedy)
    return list(value or ())


@functools.lru_cache(maxsize=4096)  # a few hundred lists, again and again
def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _clip(where: str, entry: Mapping[str, Any]) -> tuple[str, tuple[str, str]]:
    """The clip's id, and the videos that its picture and its sound are from."""
    video = text_of(where, entry, "video_id")
    if entry.get("unmatch_audio") is None:
        return video, (video, video)
    other = text_of(where, entry, "unmatch_audio")
    return f"{video}+{other}", (video, other)


def _unique(questions: Sequence[Question]) -> list[Question]:
    """Ids that are there again get a number, in the files' order."""
    counts: collections.Counter[str] = collections.Counter()
    unique = []
    for question in questions:
        counts[question.id] += 1
        again = counts[question.id]
        unique.append(question if again == 1 else question.model_copy(update={"id": f"{question.id}-{again}"}))
    return unique
