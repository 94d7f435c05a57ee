"""Question answering with missing modalities: complete, without sound, without picture, at missing rates.

What is asked and how it is scored is in `trainers.avqa.protocol`; here runs, inputs and results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.settings import Modality
from shards.atomic import write_text
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.questions import Question, load_questions
from shards.sequence import StepChoice
from shards.store import absolute
from trainers.answers import Answers
from trainers.audit_table import audit_fingerprint, write_by_audit
from trainers.avqa.clips import Clips, media_name
from trainers.avqa.config import QuestionEvaluation
from trainers.avqa.figure import figure
from trainers.avqa.masks import write_masks
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.protocol import (
    AnsweredCase,
    EvaluationProtocol,
    answered_cases,
    answers,
    blind_cases,
    blind_results,
    blind_scored,
    results_of,
    samples_of,
    scored_cases,
    scored_of,
)
from trainers.avqa.results import CONDITIONS, Line, Result, line_name, markdown, summarise
from trainers.avqa.uncertainty import BASELINES, SETS, cost_points, within_intervals
from trainers.calibration import Calibration, fingerprints, read_calibration
from trainers.comparing import Comparison
from trainers.confidence_table import write_confidence
from trainers.cost import COST_FIGURE, cost_markdown, write_cost_figure
from trainers.differences import chosen_baseline, write_differences
from trainers.identity import content_settings
from trainers.judged import Judged, judged
from trainers.loop import local_rank
from trainers.recipe import FinishedRun, first_data
from trainers.resources import Stopwatch
from trainers.scored import ANSWERS_FILE, Scored, write_scored
from trainers.tables import write_rows


@dataclass(frozen=True)
class AnswerEvaluation:
    """Runs, clips (by the time steps that runs take) and questions; see `trainers.recipe.Evaluation`."""

    config: QuestionEvaluation
    questions: Sequence[Question]
    clips: Mapping[StepChoice, Clips]
    protocol: EvaluationProtocol
    predictors: tuple[QuestionPredictor, ...]
    inputs: dict[str, Any]
    experiment: str
    device: torch.device
    calibrations: Mapping[str, Calibration | None]
    judged: list[Judged] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Answers that the methods give, over all cases."""
        return sum(len(scored_cases(p)) for p in self.predictors) * len(self.protocol.asked.questions)

    def rows(self, advance: Callable[..., None]) -> list[Result]:
        """Accuracy by method, network, seed, missing modality, rate and kind of question.

        Raises:
            FloatingPointError: a method's logits are NaN.
        """
        rules = blind_cases(self.questions, self.protocol)
        results = blind_results(self.protocol, rules)
        self.scored.extend(blind_scored(rules))
        for predictor in self.predictors:
            cases = self._cases(predictor, advance)
            results += results_of(predictor, self.protocol, cases)
            self.scored.extend(scored_of(predictor, cases))
        return within_intervals(results, self.comparison)

    @cached_property
    def comparison(self) -> Comparison:
        """All that was answered, once it was."""
        return Comparison(self.scored, samples_of(self.protocol), by_kind=CONDITIONS.values())

    def _cases(self, predictor: QuestionPredictor, advance: Callable[..., None]) -> list[AnsweredCase]:
        right, seconds = dict[Modality | None, np.ndarray](), dict[Modality | None, float]()
        for missing in scored_cases(predictor):
            watch = Stopwatch(self.device)
            right[missing] = self._answer(predictor, advance, missing, watch)
            seconds[missing] = watch.per_sample()
        return list(answered_cases(self.protocol, right, self.config.rates, seconds))

    def _answer(
        self, predictor: QuestionPredictor, advance: Callable[..., None], missing: Modality | None, watch: Stopwatch
    ) -> np.ndarray:
        """Which of a run's answers are right with `missing` taken away, bool [Q]."""
        out = np.zeros(len(self.protocol.asked.questions), dtype=bool)
        if (found := self._answers(predictor, advance, missing, watch)) is not None:
            out[found.index] = found.right
            self.judged.extend(_judged(predictor, missing, found, self.calibrations[predictor.run.folder.name]))
        return out

    def _answers(
        self,
        predictor: QuestionPredictor,
        advance: Callable[..., None],
        missing: Modality | None,
        watch: Stopwatch | None = None,
    ) -> Answers | None:
        size, loaders = self.config.batch_size, self.config.loaders
        clips = self.clips[predictor.config.choice]
        found = answers(predictor, clips, self.protocol, missing, size, loaders, self.device, watch)
        advance(len(self.protocol.asked.questions), method=predictor.config.method)
        return found

    def answers(self, advance: Callable[..., None]) -> Iterator[tuple[FinishedRun, str, Mapping[str, Answers]]]:
        """By run and condition; there is nothing to select."""
        for predictor in self.predictors:
            for missing in scored_cases(predictor):
                if (found := self._answers(predictor, advance, missing)) is not None:
                    yield predictor.run, _condition(missing), {"": found}

    def write(self, out: Path, rows: Sequence[Result]) -> None:
        """Tables, figures, answers.parquet, differences.csv, confidence.csv, and masks.csv: which clip lacks what at
        which rate."""
        notes = {
            "questions": len(self.protocol.asked.questions),
            "clips": len(self.protocol.draws),
            "split": self.config.split,
            "seed": self.config.seed,
            "unasked": len(self.protocol.asked.lost),
        }
        write_rows(out / "results.csv", rows)
        write_scored(out / ANSWERS_FILE, self.scored, samples_of(self.protocol))
        lines = summarise(rows)
        between = [self._write_differences(out), self._write_cost(out, lines)]
        parts = [markdown(lines, notes, between), *write_confidence(out, self.judged, self.config.abstain_below)]
        parts += write_by_audit(out, self.judged, [q.clip for q in self.protocol.asked.questions], self.config.audit)
        write_text(out / "results.md", "\n\n".join(parts) + "\n")
        figure(lines, out / "results.png")
        write_masks(out / "masks.csv", self.protocol.draws)

    def _write_differences(self, out: Path) -> str:
        methods = [predictor.config.method for predictor in self.predictors]
        baseline = chosen_baseline(methods, self.config.baseline, BASELINES)
        return write_differences(out, self.comparison, SETS, baseline)

    def _write_cost(self, out: Path, lines: Sequence[Line]) -> str:
        points, gain = cost_points(self.comparison, lines)
        write_cost_figure(out / COST_FIGURE, points, gain)
        return cost_markdown(points, gain)


def prepare(runs: Sequence[FinishedRun], config: QuestionEvaluation) -> AnswerEvaluation:
    """Load what an evaluation needs.

    Raises:
        InputError: features of another extractor, no questions of the split, two runs of one name.
    """
    data = absolute(config.data or first_data(runs))
    asked = (config.questions or runs[0].config.questions).absolute()  # type: ignore[attr-defined]
    config = config.model_copy(update={"data": data, "questions": asked})
    device = local_rank().device
    predictors = tuple(load_answerer(run, device) for run in runs)
    chosen_baseline([p.config.method for p in predictors], config.baseline, BASELINES)
    questions = load_questions(asked)
    _refuse_twins(predictors)
    clips: dict[StepChoice, Clips] = {}
    for predictor in predictors:
        choice = predictor.config.choice
        clips[choice] = clips.get(choice) or predictor.clips(data, config.resident)
        predictor.check(clips[choice])
    whole = next(iter(clips.values()))
    protocol = EvaluationProtocol.of(questions, config.split, whole, config.seed)
    inputs = {
        "runs": [run.folder.name for run in runs],
        "config": content_settings(config),
        "dataset": whole.info.fingerprint(),
        "questions": file_sha256(asked),
        **audit_fingerprint(config.audit),
    }
    calibrations = {run.folder.name: read_calibration(run) for run in runs}
    inputs |= {"calibrations": known} if (known := fingerprints(calibrations)) else {}
    name = media_name(data)
    return AnswerEvaluation(config, questions, clips, protocol, predictors, inputs, name, device, calibrations)


def _condition(missing: Modality | None) -> str:
    return f"{missing}_missing" if missing else "complete"


def _judged(
    predictor: QuestionPredictor, missing: Modality | None, found: Answers, calibration: Calibration | None
) -> Iterator[Judged]:
    config = predictor.config
    name = line_name(config.network, config.method, config.train_missing.said)
    return judged((name, "", config.seed, _condition(missing), predictor.run.folder.name), found, calibration)


def _refuse_twins(predictors: Sequence[QuestionPredictor]) -> None:
    """Repetitions differ in their seed; other runs of one name would be averaged into it."""
    seen: dict[tuple, QuestionPredictor] = {}
    for p in predictors:
        name = (p.config.network, p.config.method, p.config.train_missing.said, p.config.absent, p.config.seed)
        if (twin := seen.setdefault(name, p)) is not p:
            called = f"'{p.config.method}' on {p.config.network} with seed {p.config.seed}"
            message = f"is {called}, and so is {twin.run.folder.name}"
            raise InputError(message, file=p.run.folder, field="label", remedy="train one with label=NAME")
