"""Questions with their clips' features as items: NaN where a modality is absent, negative frames, choices.

An item depends on (seed, epoch, question) alone, never on its neighbours. Shapes: T time steps, R rows of a
visual step, Dv width, L words, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.avqa.batch import AVQABatch
from models.cavmae import MODALITIES, Modality
from models.noise import generator
from shards.errors import InputError
from shards.questions import Question, Vocabulary, words_of
from trainers.avqa.clips import Clips
from trainers.data import Item, Items, masked

NO_ANSWER = -1  # label of an answer that training never gave: always wrong, and outside the loss


@dataclass(frozen=True)
class Asked:
    """The questions of one split that can be asked.

    Attributes:
        questions: those whose clip is there and has something left.
        lost: ids of the others (their clips were quarantined, or are of another corpus).
    """

    questions: tuple[Question, ...]
    lost: tuple[str, ...]

    @classmethod
    def of(
        cls, questions: Sequence[Question], split: str, clips: Clips, absent: Modality | None = None
    ) -> Asked:
        """The questions of `split` about `clips`, from which `absent` is taken away.

        Raises:
            InputError: none of them can be asked.
        """
        mine = [q for q in questions if q.split == split]
        there = tuple(q for q in mine if q.clip in clips and clips.left(q.clip, absent))
        if not there:
            what = "ask about clips that are not here" if mine else "do not exist"
            message = f"all questions of split '{split}' {what}"
            raise InputError(
                message, file=clips.folder, field="questions", remedy="give questions about these clips"
            )
        kept = {q.id for q in there}
        return cls(there, tuple(q.id for q in mine if q.id not in kept))


def longest(questions: Sequence[Question]) -> int:
    """Words of the longest question."""
    return max(len(words_of(q.question)) for q in questions)


class QuestionItems(Items):
    """Questions about clips; `kind` is AVQABatch.

    Args:
        clips: the features.
        questions: in order.
        vocabulary: of the model.
        words: L, to which questions are padded or cut.
        seed: of the negative frames.
        absent: a modality that is taken away from every clip.
        negatives: draw a frame of another clip for every time step (AVST's match loss).
    """

    kind = AVQABatch

    def __init__(
        self,
        clips: Clips,
        questions: Sequence[Question],
        vocabulary: Vocabulary,
        words: int,
        seed: int = 0,
        absent: Modality | None = None,
        negatives: bool = False,
    ):
        self.clips, self.questions, self.seed, self.absent = clips, questions, seed, absent
        self.words = torch.tensor([vocabulary.encode(q.question, words) for q in questions])
        known = [vocabulary.knows(q.answer) for q in questions]
        self.labels = torch.tensor(
            [vocabulary.answer(q.answer) if k else NO_ANSWER for q, k in zip(questions, known, strict=True)]
        )
        self.allowed: Tensor | None = None
        if any(q.choices is not None for q in questions):
            self.allowed = torch.tensor([vocabulary.allowed(q) for q in questions])
        spec = clips.spec
        self._blank = {"audio": (spec.steps, spec.audio), "visual": (spec.steps, spec.rows, spec.visual)}
        asked = dict.fromkeys(q.clip for q in questions)
        self._pictures = [c for c in asked if clips.present(c)[1]] if negatives else []
        if negatives and len(self._pictures) < 2:
            remedy = "train on more clips, or a network without a match loss"
            raise InputError("negative frames need two clips with pictures", file=clips.folder, remedy=remedy)
        clips.load(asked)

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, i: int) -> Item:
        question = self.questions[i]
        found = self.clips.features(question.clip)
        values: dict[str, Tensor | None] = {m: found.get(m) if m != self.absent else None for m in MODALITIES}
        negative = self._negative(question) if self._pictures else None
        allowed = None if self.allowed is None else self.allowed[i]
        return (
            *masked(values, self._blank),
            self.labels[i],
            torch.tensor(i),
            self.words[i],
            negative,
            allowed,
        )

    def _negative(self, question: Question) -> Tensor:
        """For every time step a frame of another clip, [T, R, Dv]."""
        rng = generator("negative", self.seed, self.epoch, question.id)
        steps, others = self.clips.spec.steps, len(self._pictures)
        frames: list[Tensor] = []
        while len(frames) < steps:
            clip = self._pictures[int(rng.integers(others))]
            if clip != question.clip:
                frames.append(self.clips.frame(clip, int(rng.integers(steps))))
        return torch.stack(frames)
