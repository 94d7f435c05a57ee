"""``avmend report [RUN ...]``: runs of an MLflow store as one HTML file that needs no server.

All runs of the store, or those named (with what belongs to them). Figures are those of the evaluations'
results.csv, the sweeps' outcomes and MLflow; nothing is trained or evaluated again but for the few clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shards.atomic import write_errors, write_text
from shards.command import command
from shards.errors import InputError
from shards.store import Place, StorePath, size_of
from trainers.avqa.results import Result
from trainers.classification.results import Row
from trainers.tracking import Recorded
from tuning.command_line import CLIPS, report_parser
from tuning.report import answering, classification
from tuning.report.asked_clips import asked_clips
from tuning.report.clips import classified_clips, clip_blocks
from tuning.report.compared import difference_blocks
from tuning.report.evaluations import Evaluation, evaluations
from tuning.report.failures import failure_blocks
from tuning.report.page import Page, html
from tuning.report.parts import Block, Clip, Part, Text, plural
from tuning.report.provenance import datasets, provenance_blocks
from tuning.report.run_selection import Chosen, base_name, choose
from tuning.report.swept import sweep_blocks
from tuning.report.trained import trained_blocks
from tuning.report.trust import audit_blocks, confidence_blocks


@dataclass(frozen=True)
class EvaluationView:
    """How rows of one kind are shown: accuracy, cost, single clips, details, and the verdict in a sentence."""

    accuracy: Callable[[Sequence[Any], str], tuple[Block, ...]]
    cost: Callable[[Sequence[Any], str], tuple[Block, ...]]
    clips: Callable[[Evaluation, int], Sequence[Clip]]
    details: Callable[[Evaluation], tuple[Block, ...]]
    verdict: Callable[[Evaluation], str]


EVALUATION_VIEWS: dict[type, EvaluationView] = {  # by the row of results.csv
    Row: EvaluationView(
        classification.accuracy_blocks,
        classification.cost_blocks,
        classified_clips,
        classification.class_blocks,
        classification.verdict_of,
    ),
    Result: EvaluationView(
        answering.answer_blocks, answering.cost_blocks, asked_clips, answering.no_details, answering.verdict_of
    ),
}


def report(runs: Place, names: Sequence[str] = (), experiments: Sequence[str] = (), clips: int = CLIPS) -> str:
    """The report's HTML.

    Args:
        runs: folder of the runs and their MLflow store, or its address.
        names, experiments: as `tuning.report.run_selection.choose`.
        clips: how many clips of each evaluation are shown with every method's answer.

    Raises:
        InputError: as `choose`.
    """
    chosen = choose(runs, names, experiments)
    found = list(evaluations(chosen))
    parts = [part for part in _parts(chosen, found, clips) if part.blocks]
    what = ", ".join(names or experiments) or chosen.place.name
    return html(Page(f"avmend report: {what}", tuple(_facts(chosen)), tuple(parts), tuple(_verdicts(found))))


def _facts(chosen: Chosen) -> Iterator[str]:
    states = [run.status for run in chosen.of("training")]
    counted = ", ".join(f"{states.count(s)} {s.lower()}" for s in dict.fromkeys(states))
    counts = [f"{plural(len(states), 'training run')} ({counted})"] if states else []
    counts += [plural(n, kind) for kind in ("evaluation", "sweep") if (n := len(chosen.of(kind)))]
    yield ", ".join(counts) or plural(len(chosen.runs), "run")
    names = list(dict.fromkeys(run.experiment for run in chosen.of("training")))
    if names:
        yield f"{'Experiments' if len(names) > 1 else 'Experiment'}: {', '.join(names)}"
    yield f"Made {datetime.now(UTC).strftime('%Y-%m-%d %H:%M')} UTC from {chosen.store}"


def _verdicts(evaluated: Sequence[Evaluation | Recorded]) -> Iterator[str]:
    """What each evaluation comes to."""
    for found in evaluated:
        if isinstance(found, Evaluation) and (said := EVALUATION_VIEWS[found.task.row].verdict(found)):
            yield f"{found.name}: {said}"


def _parts(chosen: Chosen, evaluated: Sequence[Evaluation | Recorded], clips: int) -> Iterator[Part]:
    for i, found in enumerate(evaluated):
        if isinstance(found, Evaluation):
            yield Part(f"Evaluation {found.name}", _lead(found), _evaluation(found, f"evaluation {i}", clips))
        else:
            lost = Text("Its results.csv is neither in its folder nor among its artifacts.", warn=True)
            yield Part(f"Evaluation {base_name(found)}", "", (lost,))
    for i, run in enumerate(reversed(chosen.of("sweep"))):
        yield Part(f"Sweep {run.name}", "", sweep_blocks(chosen.folder(run.name), f"sweep {i}"))
    lead = "A line per configuration over its seeds; only settings that differ have a column."
    yield Part("Training runs", lead, trained_blocks(chosen))
    yield Part("Failures", "", failure_blocks(chosen, datasets(chosen)))
    yield Part("Provenance", "", provenance_blocks(chosen))


def _evaluation(found: Evaluation, tag: str, clips: int) -> tuple[Block, ...]:
    view = EVALUATION_VIEWS[found.task.row]
    shown = clip_blocks(view.clips, found, clips) if clips else ()
    trust = (*confidence_blocks(found, tag), *audit_blocks(found))
    return (
        *view.accuracy(found.rows, tag),
        *difference_blocks(found),
        *trust,
        *view.details(found),
        *view.cost(found.rows, tag),
        *shown,
    )


def _lead(found: Evaluation) -> str:
    data, split = Path(found.params.get("data", "")).name, found.params.get("split", "")
    return f"Split {split} of {data}; every method meets the same ruined input."


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = report_parser().parse(argv)
    _write(args.out, report(args.runs, args.names, args.experiment, max(0, args.clips)))
    print(f"{args.out} ({(size_of(args.out) or 0) / 1e6:.1f} MB)")
    return 0


def _write(out: Place, document: str) -> None:
    if isinstance(out, StorePath):
        write_text(out, document)
        return
    if out.is_dir():
        raise InputError("is a folder", file=out, field="out", remedy="name a file, such as report.html")
    with write_errors(out, field="--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, document, held=True)
