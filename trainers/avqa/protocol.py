"""One protocol for all runs: the same questions, three times each, and which clips lack what at a missing rate.

Every run answers every question with what is there, without sound, and without picture. Since an answer
depends on its own sample alone, accuracy at a missing rate follows from these and from which clips lack the
modality at that rate. Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.conditions import observed_condition
from models.settings import MODALITIES, Modality
from shards.baselines import look_up, majority
from shards.errors import InputError
from shards.questions import Question
from trainers.answers import Answers
from trainers.avqa.accuracy import scores
from trainers.avqa.clips import Clips
from trainers.avqa.items import AnswerableQuestions, QuestionItems
from trainers.avqa.masks import Draws, draw, lost
from trainers.avqa.predict import QuestionPredictor
from trainers.avqa.results import Result
from trainers.data import batches

BLIND = {"question look-up": look_up, "majority of the kind": majority}
Rights = Mapping[Modality | None, np.ndarray]  # by what is missing: which answers are right, bool [Q]


@dataclass(frozen=True)
class EvaluationProtocol:
    """What all runs are asked.

    Attributes:
        asked: questions of the split, and those that can't be asked.
        left: by what is missing: questions of whose clip something is left, bool [Q].
        draws: which clips lack what at which rate.
    """

    asked: AnswerableQuestions
    left: Rights
    draws: Draws

    @classmethod
    def of(cls, questions: Sequence[Question], split: str, clips: Clips, seed: int) -> EvaluationProtocol:
        """The questions of a split about `clips`; `seed` is of the draws."""
        asked = AnswerableQuestions.of(questions, split, clips)
        left = {m: np.array([clips.left(q.clip, m) for q in asked.questions]) for m in (None, *MODALITIES)}
        return cls(asked, left, draw(seed, dict.fromkeys(q.clip for q in asked.questions)))

    def at(self, modality: Modality, rate: int) -> np.ndarray:
        """Which questions lack `modality` at a rate, bool [Q]."""
        return np.array([lost(self.draws[q.clip][modality], rate) for q in self.asked.questions])


def scored_cases(predictor: QuestionPredictor) -> list[Modality | None]:
    """What is taken away from the run: nothing, sound, picture; from a specialist its own modality alone."""
    whole: list[Modality | None] = [None, *MODALITIES]
    return [m for m in whole if predictor.sees(m)]


def right_answers(
    predictor: QuestionPredictor,
    clips: Clips,
    protocol: EvaluationProtocol,
    missing: Modality | None,
    size: int,
    loaders: int,
    device: torch.device,
) -> np.ndarray:
    """Which answers are right with `missing` taken away, bool [Q]; False where nothing is left. Else as `answers`."""
    out = np.zeros(len(protocol.asked.questions), dtype=bool)
    if (found := answers(predictor, clips, protocol, missing, size, loaders, device)) is not None:
        out[found.index] = found.right
    return out


@torch.inference_mode()
def answers(
    predictor: QuestionPredictor,
    clips: Clips,
    protocol: EvaluationProtocol,
    missing: Modality | None,
    size: int,
    loaders: int,
    device: torch.device,
) -> Answers | None:
    """The answers with `missing` taken away, of the questions of whose clip something is left; None: of none.

    Args:
        clips: features as the run takes them.
        size, loaders: of the batches.

    Raises:
        FloatingPointError: logits are NaN, which argmax would count as the first answer.
    """
    items = QuestionItems(clips, protocol.asked.questions, predictor.vocabulary, predictor.words, absent=missing)
    order = protocol.left[missing].nonzero()[0].tolist()
    parts = []
    for batch in batches(items, order, size, loaders, drop_last=False):
        there = batch.to(device)
        logits = predictor(there)  # type: ignore[arg-type]
        if bool((bad := logits.isnan().any(dim=1)).any()):
            first = protocol.asked.questions[int(batch.index[bad.cpu()][0])]
            where = f"question '{first.id}' without {missing}" if missing else f"question '{first.id}'"
            raise FloatingPointError(f"{predictor.config.method}: the logits of {where} are NaN")
        observed = [observed_condition(row) for row in predictor.seen(batch.present).tolist()]
        parts.append(Answers.of(batch.index, logits, there.label, observed))
    return Answers.joined(parts) if parts else None


def results_of(
    predictor: QuestionPredictor,
    protocol: EvaluationProtocol,
    rates: Sequence[int],
    answer: Callable[[Modality | None], np.ndarray],
) -> Iterator[Result]:
    """All figures of one run; `answer` tells, by what is missing, which of its answers are right."""
    config, run = predictor.config, predictor.run
    says = {
        "method": config.method,
        "network": config.network,
        "seed": config.seed,
        "trained": predictor.trained,
        "parameters": predictor.parameters,
        "run": run.folder.name,
        **run.cost(),
    }
    yield from _figures(protocol, {m: answer(m) for m in scored_cases(predictor)}, rates, says)


def _figures(
    protocol: EvaluationProtocol, right: Rights, rates: Sequence[int], says: dict[str, Any]
) -> Iterator[Result]:
    """A run's figures from its answers: with everything, and by modality and missing rate."""
    questions = protocol.asked.questions
    if None in right:
        yield from _scored(questions, right[None], protocol.left[None], "none", 0, says)
    for modality in (m for m in MODALITIES if m in right):
        for rate in rates:
            gone = protocol.at(modality, rate)
            whole = right.get(None, right[modality])  # a specialist never looks at the modality
            answers = np.where(gone, right[modality], whole)
            yield from _scored(questions, answers, protocol.left[modality], modality, rate, says)


def _scored(
    questions: Sequence[Question],
    right: np.ndarray,
    counted: np.ndarray,
    missing: str,
    rate: int,
    says: dict[str, Any],
) -> Iterator[Result]:
    for score in scores(questions, right, counted):
        yield Result(
            missing=missing,
            rate=rate,
            kind=score.kind,
            accuracy=score.accuracy,
            samples=score.samples,
            **says,
        )


def blind_results(questions: Sequence[Question], protocol: EvaluationProtocol) -> Iterator[Result]:
    """The figures of the rules that neither hear nor see.

    Raises:
        InputError: there are no train questions to learn them from.
    """
    train = [q for q in questions if q.split == "train"]
    if not train:
        message = "the file has no train questions, which the question-only rows are learnt from"
        raise InputError(message, field="questions", remedy="give the file that the runs were trained on")
    asked = protocol.asked.questions
    for method, rule in BLIND.items():
        answers = zip(rule(train, asked), asked, strict=True)
        right = np.array([answer == question.answer for answer, question in answers])
        says: dict[str, Any] = {"method": method, "network": "", "seed": 0, "run": ""}
        says |= {"trained": 0, "parameters": 0, "epoch_seconds": 0.0, "peak_memory_mb": 0.0}
        for missing in ("none", *MODALITIES):
            left = protocol.left[None if missing == "none" else missing]  # type: ignore[index]
            yield from _scored(asked, right, left, missing, 0 if missing == "none" else 100, says)
