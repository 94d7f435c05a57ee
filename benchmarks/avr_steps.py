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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks import report
from benchmarks.report import Spread, positive
from models.avqa.batch import AVQABatch
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.both import RMMAVR
from models.batch import take_away
from models.cavmae import MODALITIES
from shards.errors import InputError
from shards.questions import load_questions
from trainers.avqa.clips import Clips
from trainers.avqa.exam import Exam, right_answers
from trainers.avqa.items import QuestionItems
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.data import batches
from trainers.predict import read_run

CPU = torch.device("cpu")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.avr_steps", description=__doc__.splitlines()[0]
    )
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
        predictors = [load_answerer(read_run(run), CPU) for run in args.runs]
        rows = measure(predictors, args)
    except InputError as error:
        print(error)
        return 2
    settings = {"steps": args.steps, "split": args.split, "runs": [run.name for run in args.runs]}
    record = {"machine": found, "settings": settings, "rows": rows}
    text = _text(args, rows)
    report.save(args.out, "avr-steps", "Steps of AVR", text, record, lambda figure: _draw(figure, rows))
    return 0


def measure(predictors: Sequence[QuestionPredictor], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per number of steps: accuracy by what is missing, of every run, and milliseconds a question."""
    diffusions = [_diffusion(p) for p in predictors]
    for p, avr in zip(predictors, diffusions, strict=True):
        if max(args.steps) > avr.start:
            message = f"starts at timestep {avr.start}, which allows no more steps than that"
            raise InputError(message, file=p.run.folder, field="steps", remedy="give fewer to --steps")
    accuracies: dict[int, dict[str, list[float]]] = {}
    for steps in args.steps:
        for avr in diffusions:
            avr.steps = steps
        found = [_accuracies(p, args) for p in predictors]
        accuracies[steps] = {m: [one[m] for one in found] for m in MODALITIES}
    taken = report.alternate(_timings(predictors[0], diffusions[0], args), args.repeats)
    return [{"steps": steps, **accuracies[steps], "ms": Spread.of(taken[str(steps)])} for steps in args.steps]


def _diffusion(p: QuestionPredictor) -> AVR:
    recovery = p.answerer.recovery
    avr = recovery.avr if isinstance(recovery, RMMAVR) else recovery
    if not isinstance(avr, AVR):
        remedy = "give runs with recovery=avr or rmm_avr"
        raise InputError(f"its recovery is {p.config.recovery}", file=p.run.folder, remedy=remedy)
    return avr


def _accuracies(p: QuestionPredictor, args: argparse.Namespace) -> Mapping[str, float]:
    """Percent of right answers by what is missing."""
    clips = Clips(p.config.data)
    exam = Exam.of(load_questions(p.config.questions), args.split, clips, seed=0)
    return {
        m: 100 * float(right_answers(p, clips, exam, m, args.batch_size, 0, CPU)[exam.left[m]].mean())
        for m in MODALITIES
    }


def _timings(p: QuestionPredictor, avr: AVR, args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """For each number of steps: milliseconds per question of recovering the sound of one batch."""
    batch = p.answerer.standardise(take_away(_batch(p, args), "audio"))

    @torch.inference_mode()
    def recover(steps: int) -> float:
        avr.steps = steps
        start = time.perf_counter()
        p.answerer.recovery(batch.audio, batch.visual, batch.present, batch.question)
        return 1000 * (time.perf_counter() - start) / len(batch)

    return {str(steps): lambda steps=steps: recover(steps) for steps in args.steps}  # type: ignore[misc]


def _batch(p: QuestionPredictor, args: argparse.Namespace) -> AVQABatch:
    clips = Clips(p.config.data)
    exam = Exam.of(load_questions(p.config.questions), args.split, clips, seed=0)
    items = QuestionItems(clips, exam.asked.questions, p.vocabulary, p.words)
    order = exam.left["audio"].nonzero()[0].tolist()[: args.batch_size]
    return next(iter(batches(items, order, args.batch_size, 0, drop_last=False)))  # type: ignore[return-value]


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
