"""What a finished trial of `avqa` answers: the protocol of `trainers.avqa.protocol`, with and without a modality.

It is of another split than the one by which trials are chosen.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from models.settings import Modality
from shards.atomic import write_text
from shards.baselines import look_up
from shards.questions import Question, load_questions
from trainers.avqa.accuracy import ALL, scores
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.protocol import EvaluationProtocol, right_answers, scored_cases
from trainers.config import TrainConfig
from trainers.loop import local_rank
from trainers.recipes import recipe_of
from trainers.runs import read_run
from tuning.config import AnswerProtocol

FILE = "answers.json"
VERSION = 2  # of the file; the first is a plain list, whose answers with other steps are those with the run's own
CASES: dict[str, Modality | None] = {"audio missing": "audio", "visual missing": "visual", "complete": None}
BLIND = "question alone"  # look-up, which neither hears nor sees: the same for every trial


@dataclass(frozen=True)
class Answer:
    """One figure of a trial.

    Attributes:
        case: of `CASES`, or `BLIND`.
        steps: of the diffusion; 0: those that it was trained with.
        kind: of question, a family's average, or "all".
        accuracy: 0..1 over `samples`.
    """

    case: str
    steps: int
    kind: str
    accuracy: float
    samples: int


def has_protocol(config: TrainConfig) -> bool:
    """Whether finished trials of a recipe answer test questions."""
    recipe = recipe_of(config)
    return "questions" in recipe.task.given and recipe.load is not None


def run_protocol(folder: Path, place: Path, protocol: AnswerProtocol, threads: int = 1) -> None:
    """Have the finished run in `folder` answer, unless it did; the figures go to `place`.

    Raises:
        InputError: the split has no questions.
    """
    if answered(place):
        return
    device = local_rank(threads).device
    predictor = load_answerer(read_run(folder), device)
    save_answers(place, _answers(predictor, protocol, device))


def save_answers(place: Path, answers: Iterable[Answer]) -> None:
    """Write a trial's answers into its folder in the sweep."""
    record = {"version": VERSION, "answers": [asdict(answer) for answer in answers]}
    write_text(place / FILE, json.dumps(record, indent=1) + "\n")


def answered(place: Path) -> tuple[Answer, ...]:
    """What `run_protocol` left in `place`; nothing if it was not there, or is to be made anew."""
    try:
        found = json.loads((place / FILE).read_text())
    except FileNotFoundError:
        return ()
    current = isinstance(found, dict)
    answers = tuple(Answer(**record) for record in (found["answers"] if current else found))
    return answers if current or not any(answer.steps for answer in answers) else ()


def outdated(place: Path) -> bool:
    """Whether the answers in `place` are to be made anew."""
    return (place / FILE).exists() and not answered(place)


def summary(answers: tuple[Answer, ...]) -> dict[str, float]:
    """For MLflow: `protocol/audio_missing`, ..., and the mean over the cases."""
    whole = {a.case: a.accuracy for a in answers if a.kind == ALL and not a.steps}
    out = {f"protocol/{case.replace(' ', '_')}": value for case, value in whole.items()}
    cases = [value for case, value in whole.items() if case in CASES]
    return {**out, "protocol/mean": sum(cases) / len(cases)} if cases else {}


def _answers(predictor: QuestionPredictor, protocol: AnswerProtocol, device: torch.device) -> Iterator[Answer]:
    config = predictor.config
    clips, questions = predictor.clips(config.data), load_questions(config.questions)
    asking = EvaluationProtocol.of(questions, protocol.split, clips, 0)
    yield from _blind(questions, asking)
    for steps in itertools.chain([0], _other_steps(predictor, protocol)):
        for case, missing in CASES.items():
            if missing in scored_cases(predictor) and (missing is not None or not steps):
                right = right_answers(predictor, clips, asking, missing, protocol.batch_size, 0, device)
                for score in scores(asking.asked.questions, right, asking.left[missing]):
                    yield Answer(case, steps, score.kind, score.accuracy, score.samples)


def _blind(questions: Sequence[Question], asking: EvaluationProtocol) -> Iterator[Answer]:
    asked = asking.asked.questions
    guesses = look_up([q for q in questions if q.split == "train"], asked)
    right = np.array([guess == q.answer for guess, q in zip(guesses, asked, strict=True)])
    for score in scores(asked, right, asking.left[None]):
        yield Answer(BLIND, 0, score.kind, score.accuracy, score.samples)


def _other_steps(predictor: QuestionPredictor, protocol: AnswerProtocol) -> Iterator[int]:
    """The wanted numbers of steps that this run's diffusion can take, each set while it is out."""
    avr = predictor.diffusion
    if avr is None:
        return
    own = avr.steps
    for steps in protocol.steps:
        if steps <= avr.start and steps != own:
            avr.steps = steps
            yield steps
    avr.steps = own
