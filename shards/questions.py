"""Questions about clips: ``questions.jsonl``, one json a line, and the vocabulary of a set of them."""

from __future__ import annotations

import collections
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import pydantic

from shards.atomic import write_text
from shards.errors import InputError, nearest
from shards.json_lines import numbered_lines, parse_line
from shards.published_words import CLIP_IDS, UNKNOWN_PIECE, clip_ids, released_words, word_pieces
from shards.schema import Frozen

LINE = 'a line is {"id": ..., "clip": ..., "question": ..., "answer": ..., "type": ..., "split": ...}'
QUESTIONS_FILE = "questions.jsonl"
PADDING, UNKNOWN = "<pad>", "<unknown>"
Rule = Literal["words", "released", "clip", "released+clip", "pieces"]
_WORD = re.compile(r"\w+(?:'\w+)*")


class Question(Frozen):
    """One question about one clip.

    Attributes:
        id: unique in its file.
        clip: the manifest's id of the clip; several questions may share one.
        question: the filled text.
        answer: what is right.
        type: the kind of question, such as "Audio Counting"; accuracies are told by it.
        split: the question's: train, val, test or another. MUSIC-AVQA's official files ask about one clip in
            val and test, so the clip's own split in the shards may be another one.
        choices: the answers to choose from, the right one among them; None: all that are known.
    """

    id: str = pydantic.Field(min_length=1)
    clip: str = pydantic.Field(min_length=1)
    question: str = pydantic.Field(min_length=1)
    answer: str = pydantic.Field(min_length=1)
    type: str = pydantic.Field(min_length=1)
    split: str = pydantic.Field(pattern=r"^[A-Za-z0-9_-]+$")
    choices: tuple[str, ...] | None = None

    @pydantic.field_validator("question")
    @classmethod
    def _has_words(cls, question: str) -> str:
        if not words_of(question):
            raise ValueError("a question has words")
        return question

    @pydantic.model_validator(mode="after")
    def _can_be_answered(self) -> Question:
        if self.choices is not None and self.answer not in self.choices:
            raise ValueError(f"the answer '{self.answer}' is not among the choices")
        return self


class Vocabulary(Frozen):
    """The words and answers of the train questions, or those of a published network.

    Attributes:
        words: padding, the unknown word, then words by falling frequency, equal ones by the alphabet; of a
            published network in its own order, padding first, and (but for `pieces`) without an unknown word.
        answers: every answer (and choice) of the train questions, sorted; of a published network in its order.
        rule: how a text becomes ids (`shards.published_words`). `words`: ours. `released`: AVST's, a word that
            is not known is refused. `clip`: CLIP's 77 byte pairs, for which `words` holds padding alone.
            `released+clip`: the one, then the other. `pieces`: BERT's.
    """

    words: tuple[str, ...]
    answers: tuple[str, ...]
    rule: Rule = "words"

    @classmethod
    def of(cls, questions: Iterable[Question], split: str = "train") -> Vocabulary:
        """The vocabulary of the questions of `split`; of the others nothing is used.

        Raises:
            InputError: there are none.
        """
        asked = _of_split(questions, split)
        counts = collections.Counter(word for question in asked for word in words_of(question.question))
        words = sorted(counts, key=lambda word: (-counts[word], word))
        answers = {answer for question in asked for answer in (question.answer, *(question.choices or ()))}
        return cls(words=(PADDING, UNKNOWN, *words), answers=tuple(sorted(answers)))

    @classmethod
    def released(cls, questions: Iterable[Question], rule: Rule = "released", split: str = "train") -> Vocabulary:
        """As the released code of AVST, Missing-AVQA and PSTP-Net has it: words and answers of the questions of
        `split` in the order of first sight, padding before them.

        Raises:
            InputError: there are none.
        """
        asked = _of_split(questions, split)
        words = dict.fromkeys(word for question in asked for word in released_words(question.question))
        kept = (PADDING,) if rule == "clip" else (PADDING, *words)
        return cls(words=kept, answers=tuple(dict.fromkeys(question.answer for question in asked)), rule=rule)

    def record(self) -> dict[str, object]:
        """As plain values, for a checkpoint's JSON; `rule` where it is not ours."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return CLIP_IDS if "clip" in self.rule else len(self.words)

    def split(self, text: str) -> list[str]:
        """The words of a question, by the rule."""
        if self.rule == "words":
            return words_of(text)
        return word_pieces(text, self._places) if self.rule == "pieces" else released_words(text)

    def unknown(self, text: str, length: int | None = None) -> list[str]:
        """Words that are not known, each once, among the first `length` of a question; CLIP knows every word."""
        if self.rule == "clip":
            return []
        known = self._places
        return [w for w in dict.fromkeys(self.split(text)[:length]) if w not in known or w == UNKNOWN_PIECE]

    def encode(self, text: str, length: int) -> list[int]:
        """Ids of the words of `text`: exactly `length`, cut or filled with 0; an unknown word is 1 (by the rule
        `pieces` [UNK]). By the rule `clip` they are CLIP's 77 whatever `length` is, by `released+clip` both.

        Raises:
            ValueError: `length` is below 1.
            InputError: by the rule `released`, a word that is not known.
        """
        if length < 1:
            raise ValueError(f"a question of length {length} has no word")
        if self.rule == "clip":
            return clip_ids(text)
        ids = self._ids(text)[:length]
        ids += [0] * (length - len(ids))
        return [*ids, *clip_ids(text)] if self.rule == "released+clip" else ids

    def _ids(self, text: str) -> list[int]:
        words = self.split(text)
        if self.rule in ("words", "pieces"):
            spare = 1 if self.rule == "words" else self._places.get(UNKNOWN_PIECE, 0)
            return [self._word_ids.get(word, spare) for word in words]
        if unknown := self.unknown(text):
            hint = "".join(nearest(word, self.words[1:]) for word in unknown[:1])
            message = f"no published words: {', '.join(map(repr, unknown))} (question: {text})"
            remedy = f"{hint}ask with words of the train questions, in their case; the question mark ends it"
            raise InputError(message, field="question", remedy=remedy)
        return [self._word_ids[word] for word in words]

    def knows(self, text: str) -> bool:
        """Whether `text` is one of the answers."""
        return text in self._answer_ids

    def answer(self, text: str) -> int:
        """The index of an answer.

        Raises:
            InputError: it is not one of `answers`, naming the nearest.
        """
        if not self.knows(text):
            remedy = nearest(text, self.answers).rstrip() or "ask questions that the train split answers"
            raise InputError(f"'{text}' is no answer of the train questions", field="answer", remedy=remedy)
        return self._answer_ids[text]

    def allowed(self, question: Question) -> list[bool]:
        """Which answers [A] the question may be answered with: those of its choices that are known, or all where it has
        no choices or none is known."""
        among = [question.choices is None or answer in question.choices for answer in self.answers]
        return among if any(among) else [True] * len(self.answers)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        """Without padding and the unknown word, which no text may name."""
        return {word: place for word, place in self._places.items() if self.rule != "words" or place > 1}

    @cached_property
    def _answer_ids(self) -> dict[str, int]:
        return {answer: place for place, answer in enumerate(self.answers)}


def _of_split(questions: Iterable[Question], split: str) -> list[Question]:
    asked = [question for question in questions if question.split == split]
    if not asked:
        raise InputError(f"no questions of split '{split}'", remedy=f"give questions of split '{split}'")
    return asked


def words_of(text: str) -> list[str]:
    """The words of a question: lower case, without punctuation ("acoustic_guitar" is one word)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """The questions of a file, in its order.

    Raises:
        InputError: with ``file:line`` and the field: unreadable, empty, a line that is no question, an id
            that is there twice.
    """
    path = Path(path)
    questions: list[Question] = []
    lines: dict[str, int] = {}
    for line, content in numbered_lines(path, "check the questions' path"):
        question = parse_line(Question, f"{path}:{line}", content, LINE)
        first = lines.setdefault(question.id, line)
        if first != line:
            message = f"'{question.id}' is the id of lines {first} and {line}"
            raise InputError(message, file=f"{path}:{line}", field="id", remedy="give every question its own")
        questions.append(question)
    if not questions:
        raise InputError("the file has no questions", file=path, remedy="add at least one")
    return tuple(questions)


def save_questions(path: str | Path, questions: Sequence[Question]) -> Path:
    """Write a file, whole or not at all; the same questions give the same bytes."""
    rows = (question.model_dump(mode="json", exclude_none=True) for question in questions)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Path(path)
