"""One protocol for all runs: the same questions, three times each, and which clips lack what at a missing rate.

Every run answers every question with what is there, without sound, and without picture. Since an answer
depends on its own sample alone, accuracy at a missing rate follows from these and from which clips lack the
modality at that rate. Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
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
from trainers.avqa.accuracy import groups, scores
from trainers.avqa.clips import Clips
from trainers.avqa.items import AnswerableQuestions, QuestionItems
from trainers.avqa.masks import Draws, draw, lost
from trainers.avqa.predict import QuestionPredictor
from trainers.avqa.results import Result, condition_of, line_name
from trainers.data import batches
from trainers.resources import Stopwatch
from trainers.scored import Samples, Scored

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
    watch: Stopwatch | None = None,
) -> Answers | None:
    """The answers with `missing` taken away, of the questions of whose clip something is left; None: of none.

    Args:
        clips: features as the run takes them.
        size, loaders: of the batches.
        watch: times the answering.

    Raises:
        FloatingPointError: logits are NaN, which argmax would count as the first answer.
    """
    items = QuestionItems(clips, protocol.asked.questions, predictor.vocabulary, predictor.words, absent=missing)
    order = protocol.left[missing].nonzero()[0].tolist()
    parts = []
    for batch in batches(items, order, size, loaders, drop_last=False):
        there = batch.to(device)
        with watch.lap(len(batch)) if watch is not None else nullcontext():
            logits = predictor(there)  # type: ignore[arg-type]
        if bool((bad := logits.isnan().any(dim=1)).any()):
            first = protocol.asked.questions[int(batch.index[bad.cpu()][0])]
            where = f"question '{first.id}' without {missing}" if missing else f"question '{first.id}'"
            raise FloatingPointError(f"{predictor.config.method}: the logits of {where} are NaN")
        observed = [observed_condition(row) for row in predictor.seen(batch.present).tolist()]
        parts.append(Answers.of(batch.index, logits, there.label, observed))
    return Answers.joined(parts) if parts else None


@dataclass(frozen=True)
class AnsweredCase:
    """A run's answers with a modality missing at a rate.

    Attributes:
        missing: "none", "audio" or "visual".
        rate: percent of the clips that lack it.
        right: which answers are right, bool [Q].
        counted: of whose clip something is left, bool [Q].
        seconds: for an answer; NaN where it was not timed.
    """

    missing: str
    rate: int
    right: np.ndarray
    counted: np.ndarray
    seconds: float = float("nan")

    @property
    def condition(self) -> str:
        """As confidence and differences name it."""
        return condition_of(self.missing, self.rate)

    @property
    def follows(self) -> bool:
        """From other cases, and from which clips lack what."""
        return self.missing != "none" and self.rate != 100


def answered_cases(
    protocol: EvaluationProtocol, right: Rights, rates: Sequence[int], seconds: Mapping[Modality | None, float]
) -> Iterator[AnsweredCase]:
    """A run's cases from its answers with everything, and by modality and missing rate.

    Args:
        right: by what is missing, which of its answers are right.
        seconds: by what is missing, for an answer.
    """
    if None in right:
        yield AnsweredCase("none", 0, right[None], protocol.left[None], seconds.get(None, float("nan")))
    for modality in (m for m in MODALITIES if m in right):
        left, less = protocol.left[modality], seconds.get(modality, float("nan"))
        whole, full = right.get(None, right[modality]), seconds.get(None, less)  # a specialist never looks at it
        for rate in rates:
            gone = protocol.at(modality, rate)
            share = float(gone[left].mean()) if left.any() else 0.0
            took = share * less + (1 - share) * full
            yield AnsweredCase(modality, rate, np.where(gone, right[modality], whole), left, took)


def results_of(
    predictor: QuestionPredictor, protocol: EvaluationProtocol, cases: Sequence[AnsweredCase]
) -> list[Result]:
    """All figures of one run."""
    config, run = predictor.config, predictor.run
    says = {
        "method": config.method,
        "network": config.network,
        "seed": config.seed,
        "trained": predictor.trained,
        "parameters": predictor.parameters,
        "run": run.folder.name,
        "train_missing": config.train_missing.said,
        **run.cost(),
    }
    return list(_figures(protocol, cases, says))


def scored_of(predictor: QuestionPredictor, cases: Sequence[AnsweredCase]) -> list[Scored]:
    """The same answers, as intervals and differences are computed from them."""
    config = predictor.config
    line = line_name(config.network, config.method, config.train_missing.said)
    return [
        Scored(line, config.seed, case.condition, case.right, case.counted, config.network, config.method,
               predictor.run.folder.name, kept=not case.follows, train_missing=config.train_missing.said)
        for case in cases
    ]  # fmt: skip


def samples_of(protocol: EvaluationProtocol) -> Samples:
    """The questions; those about one clip stay together."""
    asked = protocol.asked.questions
    clips = [q.clip for q in asked]
    return Samples(clips, clips, groups(asked), [q.id for q in asked], [q.type for q in asked])


def _figures(protocol: EvaluationProtocol, cases: Sequence[AnsweredCase], says: Mapping[str, Any]) -> Iterator[Result]:
    for case in cases:
        for score in scores(protocol.asked.questions, case.right, case.counted):
            yield Result(
                missing=case.missing,
                rate=case.rate,
                kind=score.kind,
                accuracy=score.accuracy,
                samples=score.samples,
                inference_seconds=case.seconds,
                **says,
            )


def blind_cases(questions: Sequence[Question], protocol: EvaluationProtocol) -> dict[str, list[AnsweredCase]]:
    """The answers of the rules that neither hear nor see, by rule.

    Raises:
        InputError: there are no train questions to learn them from.
    """
    train = [q for q in questions if q.split == "train"]
    if not train:
        message = "the file has no train questions, which the question-only rows are learnt from"
        raise InputError(message, field="questions", remedy="give the file that the runs were trained on")
    asked, out = protocol.asked.questions, {}
    for method, rule in BLIND.items():
        answers = zip(rule(train, asked), asked, strict=True)
        right = np.array([answer == question.answer for answer, question in answers])
        out[method] = [AnsweredCase("none", 0, right, protocol.left[None], 0.0)]
        out[method] += [AnsweredCase(m, 100, right, protocol.left[m], 0.0) for m in MODALITIES]
    return out


def blind_results(protocol: EvaluationProtocol, rules: Mapping[str, Sequence[AnsweredCase]]) -> list[Result]:
    """The figures of the rules."""
    says = {"network": "", "seed": 0, "run": "", "trained": 0, "parameters": 0}
    says |= {"epoch_seconds": 0.0, "peak_memory_mb": 0.0, "train_seconds": 0.0}
    return [row for method, cases in rules.items() for row in _figures(protocol, cases, {"method": method, **says})]


def blind_scored(rules: Mapping[str, Sequence[AnsweredCase]]) -> list[Scored]:
    """The same, as differences are computed from them; no seed changes a rule."""
    return [
        Scored(method, None, case.condition, case.right, case.counted)
        for method, cases in rules.items()
        for case in cases
    ]
