"""What is imported into which shard: decided by the questions alone, so that it stays when files come or go."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.imports.layout import Entry, Found
from pipelines.imports.notes import Note, Outcome, What
from shards.keys import safe_key
from shards.questions import Question
from shards.schema import canonical_json

ORDER = ("train", "val", "test")
UNASKED = "unasked"


@dataclass(frozen=True)
class ImportItem:
    """One clip (or question) to be imported.

    Attributes:
        id: as the question file spells it.
        labels: the kinds of its questions.
        entries: by part, where its arrays lie; empty: nowhere.
    """

    id: str
    split: str
    labels: tuple[str, ...]
    entries: Mapping[str, Entry]

    @property
    def key(self) -> str:
        """In shards."""
        return safe_key(self.id)


@dataclass(frozen=True)
class ImportShard:
    """One shard to be.

    Attributes:
        name: ``train-000042``.
        planned: digest of which items go in.
        digest: of these and of the files that they are made from, by name and size.
    """

    name: str
    items: tuple[ImportItem, ...]

    @property
    def split(self) -> str:
        """The items' split."""
        return self.items[0].split

    @property
    def planned(self) -> str:
        return _digest([[item.id, item.split, item.labels] for item in self.items])

    @property
    def digest(self) -> str:
        files = [[[part, e.file, e.size, e.row] for part, e in sorted(i.entries.items())] for i in self.items]
        return _digest([self.planned, files])


def asked_clips(questions: Sequence[Question], found: Found) -> tuple[list[ImportItem], list[Note]]:
    """The clips that are asked about, in the questions' order; and a note for each that is asked about in several
    splits: its features are in the first of train, val, test."""
    splits: dict[str, set[str]] = {}
    kinds: dict[str, set[str]] = {}
    for question in questions:
        splits.setdefault(question.clip, set()).add(question.split)
        kinds.setdefault(question.clip, set()).add(question.type)
    items, notes = [], []
    for clip, those in splits.items():
        names = sorted(those, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
        items.append(ImportItem(clip, names[0], tuple(sorted(kinds[clip])), found.entries.get(clip, {})))
        if len(names) > 1:
            message = f"asked about in {', '.join(names)}; its features are in {names[0]}"
            remedy = "for a split without common clips take the questions-disjoint.jsonl of 'avmend corpus'"
            notes.append(Note(what=What.SEVERAL_SPLITS, outcome="imported", clip=clip, message=message, remedy=remedy))
    return items, notes


def unasked_clips(asked: Iterable[ImportItem], found: Found, keep: bool) -> tuple[list[ImportItem], list[Note]]:
    """Clips that there are features of and no question about; with `keep` as items of a split of their own."""
    known = {item.id for item in asked}
    left = sorted(found.entries.keys() - known)
    items = [ImportItem(clip, UNASKED, (UNASKED,), found.entries[clip]) for clip in left] if keep else []
    message = "no question asks about it" + (f"; its features are in split '{UNASKED}'" if keep else "")
    remedy = "" if keep else "unasked=keep imports it, too"
    outcome: Outcome = "imported" if keep else "left out"
    first = {clip: next(iter(found.entries[clip].values())).file for clip in left}
    return items, [
        Note(what=What.NO_QUESTION, outcome=outcome, clip=clip, file=first[clip], message=message, remedy=remedy)
        for clip in left
    ]


def asked_questions(questions: Sequence[Question], found: Found) -> tuple[list[ImportItem], list[Note]]:
    """The questions, with where their own features lie. A question that is asked again under another number
    (``123-2``, see `pipelines.corpora.public.music_avqa_entries`) has the file of the first if its text is the same."""
    texts = {question.id: question.question for question in questions}
    items = []
    for question in questions:
        base, dash, number = question.id.rpartition("-")
        again = dash and number.isdigit() and texts.get(base) == question.question
        entries = found.question_entries.get(question.id) or (found.question_entries.get(base, {}) if again else {})
        items.append(ImportItem(question.id, question.split, (question.type,), entries))
    notes = [
        Note(
            what=What.NO_QUESTION,
            outcome="left out",
            question=name,
            file=next(iter(found.question_entries[name].values())).file,
            message="no question has this id",
        )
        for name in sorted(found.question_entries.keys() - texts.keys())
    ]
    return items, notes


def shards_of(items: Sequence[ImportItem], size: int) -> list[ImportShard]:
    """The items by split, `size` to a shard."""
    by_split: dict[str, list[ImportItem]] = {}
    for item in items:
        by_split.setdefault(item.split, []).append(item)
    return [
        ImportShard(f"{split}-{number:06d}", tuple(part))
        for split, those in by_split.items()
        for number, part in enumerate(_batched(those, size))
    ]


def ahead(shard: ImportShard) -> Iterator[tuple[ImportItem, ImportItem | None]]:
    """Each item with the one that follows."""
    return itertools.zip_longest(shard.items, shard.items[1:])


def _batched(items: Sequence[ImportItem], size: int) -> Iterator[Sequence[ImportItem]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
