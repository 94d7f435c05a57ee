"""The account of an import: a line of ``import.jsonl`` for everything that is not simply taken over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from shards.schema import Frozen
from shards.verify import plain

IMPORT_FILE = "import.jsonl"
EXAMPLES = 6  # kinds of note of which one is printed


class What(StrEnum):
    """What a line is about, besides the causes of `shards.causes`; values are never renamed."""

    NO_FEATURES = "question without features"
    NO_QUESTION = "features without question"
    SEVERAL_SPLITS = "clip in several splits"
    ZERO_ROWS = "zero rows"
    FITTED = "rows cut or repeated"
    SAME_ID = "id of several rows"
    STRANGE = "no feature file"


Outcome = Literal["imported", "one modality imported", "left out"]


class Note(Frozen):
    """One line.

    Attributes:
        what: one of `What`, or a cause of `shards.causes`.
        outcome: what became of the clip (or question, or file).
        clip, question: ids, as the question file spells them.
        file: relative to the source's folder.
    """

    what: str
    outcome: Outcome
    clip: str | None = None
    question: str | None = None
    file: str | None = None
    message: str = ""
    remedy: str = ""

    def line(self) -> str:
        """As in ``import.jsonl``."""
        return self.model_dump_json(exclude_none=True) + "\n"


def summary(notes: Sequence[Note]) -> list[str]:
    """Counts by kind and outcome, the most frequent first, with the first of each."""
    counts = Counter((note.what, note.outcome) for note in notes)
    lines = []
    for (what, outcome), count in counts.most_common():
        lines.append(f"{count} {what} ({outcome})")
        first = next(note for note in notes if (note.what, note.outcome) == (what, outcome))
        named = first.file or first.clip or first.question or ""
        if len(lines) <= 2 * EXAMPLES and (first.message or first.remedy):
            remedy = f"; {first.remedy}" if first.remedy else ""
            lines.append(f"  the first, {plain(named)}: {plain(first.message)}{plain(remedy)}")
    return lines
