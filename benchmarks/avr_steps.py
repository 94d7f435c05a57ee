"""The reverse process of AVR in fewer steps: what trained runs answer, and how long it takes.

    python -m benchmarks.avr_steps RUN [RUN ...] --steps 10,5,3,2,1

Every run (of `avmend train avqa` with recovery avr or rmm_avr) is asked all questions of a split without
sound and without picture, once for each number of deterministic (DDIM) steps, from the timestep that it was
trained to start at. The first number is the reference. The time is that of the recovery method alone, for a
batch, all numbers of steps in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks import report
from benchmarks.report import Spread, positive
from models.avqa.batch import AVQABatch
from models.avqa.recovery.avr import AVR
from models.batch import take_away
from models.settings import MODALITIES, Modality
from shards.errors import InputError
from shards.questions import load_questions
from trainers.avqa.clips import Clips
from trainers.avqa.items import QuestionItems
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.avqa.protocol import EvaluationProtocol, right_answers
from trainers.data import batches
from trainers.runs import read_run

CPU = torch.device("cpu")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avr_steps", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--steps", type=_numbers, default=(10, 5, 3, 2, 1), help="default 10,5,3,2,1")
    parser.add_argument("--split", default="test", help="whose questions (default test)")
    parser.add_argument("--batch-size", type=positive, default=64)
    parser.add_argument("--repeats", type=positive, default=5, help="of the timing (default 5)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch (default 1)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    found = report.machine("cpu")
    try:
        rows = measure([AnswerableQuestions.of(run, args) for run in args.runs], args)
    except InputError as error:
        print(error)
        return 2
    settings = {"steps": args.steps, "split": args.split, "runs": [run.name for run in args.runs]}
    record = {"machine": found, "settings": settings, "rows": rows}
    text = _text(args, rows)
    report.save(args.out, "avr-steps", "Steps of AVR", text, record, lambda figure: _draw(figure, rows))
    return 0


@dataclass(frozen=True)
class AnswerableQuestions:
    """A run, its diffusion model, and what it is asked."""

    predictor: QuestionPredictor
    avr: AVR
    clips: Clips
    protocol: EvaluationProtocol

    @classmethod
    def of(cls, run: Path, args: argparse.Namespace) -> AnswerableQuestions:
        p = load_answerer(read_run(run), CPU)
        avr = p.diffusion
        if avr is None:
            remedy = "give runs with recovery=avr or rmm_avr"
            raise InputError(f"its recovery is {p.config.recovery}", file=run, remedy=remedy)
        if max(args.steps) > avr.start:
            message = f"starts at timestep {avr.start}, which allows no more steps than that"
            raise InputError(message, file=run, field="steps", remedy="give fewer to --steps")
        clips = p.clips(p.config.data)
        return cls(
            p,
            avr,
            clips,
            EvaluationProtocol.of(load_questions(p.config.questions), args.split, clips, seed=0),
        )

    def accuracy(self, missing: Modality, batch_size: int) -> float:
        """Percent of right answers."""
        right = right_answers(self.predictor, self.clips, self.protocol, missing, batch_size, 0, CPU)
        return 100 * float(right[self.protocol.left[missing]].mean())

    def batch(self, size: int) -> AVQABatch:
        """Questions of clips that have sound, as the network gets them, with the sound taken away."""
        p = self.predictor
        items = QuestionItems(self.clips, self.protocol.asked.questions, p.vocabulary, p.words)
        order = self.protocol.left["audio"].nonzero()[0].tolist()[:size]
        batch: AVQABatch = next(iter(batches(items, order, size, 0, drop_last=False)))  # type: ignore[assignment]
        return p.answerer.standardise(take_away(batch, "audio"))


def measure(runs: Sequence[AnswerableQuestions], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per number of steps: accuracy by what is missing, of every run, and milliseconds a question."""
    accuracies: dict[int, dict[str, list[float]]] = {}
    for steps in args.steps:
        for run in runs:
            run.avr.steps = steps
        accuracies[steps] = {m: [run.accuracy(m, args.batch_size) for run in runs] for m in MODALITIES}
    taken = report.alternate(_timings(runs[0], args), args.repeats)
    return [{"steps": steps, **accuracies[steps], "ms": Spread.of(taken[str(steps)])} for steps in args.steps]


def _timings(run: AnswerableQuestions, args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """For each number of steps: milliseconds per question of recovering the sound of one batch."""
    batch, recovery = run.batch(args.batch_size), run.predictor.answerer.recovery

    @torch.inference_mode()
    def recover(steps: int) -> float:
        run.avr.steps = steps
        start = time.perf_counter()
        recovery(batch.audio, batch.visual, batch.present, batch.question)
        return 1000 * (time.perf_counter() - start) / len(batch)

    return {str(steps): lambda steps=steps: recover(steps) for steps in args.steps}  # type: ignore[misc]


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        values = {m: mean(row[m]) for m in MODALITIES}
        lost = {m: values[m] - mean(rows[0][m]) for m in MODALITIES}
        shown = [f"{values[m]:.2f} ({lost[m]:+.2f})" for m in MODALITIES]
        cells.append([str(row["steps"]), *shown, row["ms"].text()])
    columns = ["steps", *(f"{m} missing" for m in MODALITIES), "ms per question"]
    return (
        f"{len(args.runs)} runs, split {args.split}, mean accuracy in percent, in brackets the difference to "
        f"{args.steps[0]} steps; time of the recovery method of the first run, batch {args.batch_size}, "
        f"{args.repeats} repetitions in turn, median (least-greatest).\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2)
    steps = [row["steps"] for row in rows]
    for m in MODALITIES:
        left.plot(steps, [mean(row[m]) for row in rows], marker="o", label=f"{m} missing")
    left.set(xlabel="steps", ylabel="accuracy in percent")
    left.legend()
    right.plot(steps, [row["ms"].median for row in rows], marker="o")
    right.set(xlabel="steps", ylabel="ms per question", ylim=(0, None))


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, as 10,5,1."""
    return tuple(positive(part) for part in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
