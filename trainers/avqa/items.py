"""Questions with their clips' features in batches: NaN where a modality is absent, negative frames, choices.

A row depends on (seed, epoch, question) alone, never on its neighbours. Shapes: B questions, T time steps, R
rows of a visual step, Dv width, L words, A answers.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.avqa.batch import NO_ANSWER, AVQABatch
from models.noise import generator
from models.settings import MODALITIES, Modality
from shards.errors import InputError
from shards.positions import index_type
from shards.questions import Question, Vocabulary, words_of
from trainers.avqa.clips import Clips
from trainers.data import Items, subset

NOWHERE = -1
NOTHING: Mapping[str, Sequence[Modality]] = {}  # is what each clip lacks


@dataclass(frozen=True)
class AnswerableQuestions:
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
    ) -> AnswerableQuestions:
        """The questions of `split` about `clips`, from which `absent` is taken away.

        Raises:
            InputError: none of them can be asked.
        """
        mine = [q for q in questions if q.split == split]
        there = tuple(q for q in mine if q.clip in clips and clips.left(q.clip, absent))
        if not there:
            what = "ask about clips that are not here" if mine else "do not exist"
            message = f"all questions of split '{split}' {what}"
            raise InputError(message, file=clips.folder, field="questions", remedy="give questions about these clips")
        kept = {q.id for q in there}
        return cls(there, tuple(q.id for q in mine if q.id not in kept))

    def about(self, clips: Container[str]) -> AnswerableQuestions:
        """Those about these clips; the others count as neither asked nor lost."""
        return replace(self, questions=tuple(q for q in self.questions if q.clip in clips))


def longest(questions: Sequence[Question]) -> int:
    """Words of the longest question."""
    return max(len(words_of(q.question)) for q in questions)


class QuestionItems(Items):
    """Questions about clips, by the batch.

    Args:
        clips: the features.
        questions: in order.
        vocabulary: of the model.
        words: L, to which questions are padded or cut.
        seed: of the negative frames.
        absent: a modality that is taken away from every clip.
        negatives: draw a frame of another clip for every time step (AVST's match loss).
        lacks: by clip, what is taken away from it; frames of other clips are those that are left.
        proportion: share of the questions that is trained on; frames of other clips are of those asked about there.

    Attributes:
        present: which modalities of each clip of `clips` are there in these items, bool [clips, 2]; no others are
            read.
    """

    def __init__(
        self,
        clips: Clips,
        questions: Sequence[Question],
        vocabulary: Vocabulary,
        words: int,
        seed: int = 0,
        absent: Modality | None = None,
        negatives: bool = False,
        lacks: Mapping[str, Sequence[Modality]] = NOTHING,
        proportion: float = 1.0,
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
        self.numbers = np.fromiter((clips.number[q.clip] for q in questions), index_type(len(clips.number)))
        self.present = present_in(clips, absent, lacks)
        self.proportion = proportion
        self._pictures: np.ndarray | None = None
        if negatives:
            there = set(self.numbers[subset(self.ids, seed, proportion)].tolist())
            asked = np.array(sorted(there, key=clips.number.text), self.numbers.dtype)
            self._pictures = asked[self.present[asked, MODALITIES.index("visual")]]
            self._places = np.full(len(clips.number), NOWHERE, asked.dtype)  # of a clip among them
            self._places[self._pictures] = np.arange(len(self._pictures))
            if len(self._pictures) < 2:
                message = "negative frames need two clips with pictures"
                remedy = "train on more clips with pictures, or without the match loss (weights.match=0)"
                raise InputError(message, file=clips.folder, remedy=remedy)
        for column, m in enumerate(MODALITIES):
            clips.load(m, self.numbers[self.present[self.numbers, column]].tolist())

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def names(self) -> Sequence[str]:
        """The questions' ids."""
        return [question.id for question in self.questions]

    def batch(self, positions: Sequence[int]) -> AVQABatch:
        """The questions at these positions, features as stored."""
        index, clips = torch.tensor(positions), self.numbers[np.asarray(positions)].tolist()
        present = torch.from_numpy(self.present[clips])
        return AVQABatch(
            self._features("audio", clips),
            self._features("visual", clips),
            present,
            self.labels[index],
            index,
            self.words[index],
            self._negative(positions),
            None if self.allowed is None else self.allowed[index],
        )

    def _features(self, modality: Modality, clips: Sequence[int]) -> Tensor:
        return self.clips.features(modality, clips, self.present[clips, MODALITIES.index(modality)])

    def _negative(self, positions: Sequence[int]) -> Tensor | None:
        """For every time step a frame of another clip, [B, T, R, Dv]."""
        if self._pictures is None:
            return None
        drawn = [self._drawn(i, self._pictures) for i in positions]
        clips, steps = (np.concatenate(column) for column in zip(*drawn, strict=True))
        return self.clips.frames(clips.tolist(), steps.tolist()).unflatten(0, (len(positions), -1))

    def _drawn(self, i: int, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clips that have pictures and are another than that of question `i`, and a step of each, [T]."""
        rng, steps = generator("negative", self.seed, self.epoch, self.questions[i].id), self.clips.spec.steps
        own = int(self._places[self.numbers[i]])
        others = len(pictures) - (own != NOWHERE)
        drawn, step = np.divmod(rng.integers(others * steps, size=steps), steps)
        if own != NOWHERE:
            drawn += drawn >= own
        return pictures[drawn], step


def present_in(clips: Clips, absent: Modality | None, lacks: Mapping[str, Sequence[Modality]]) -> np.ndarray:
    """What is there at the clips' source, without `absent` and without what each one lacks, bool [clips, 2]."""
    out = clips.present.copy()
    if absent is not None:
        out[:, MODALITIES.index(absent)] = False
    for clip, gone in lacks.items():
        out[clips.number[clip], [MODALITIES.index(m) for m in gone]] = False
    return out
