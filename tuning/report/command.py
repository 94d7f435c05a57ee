"""``avmend report [RUN ...]``: runs of an MLflow store as one HTML file that needs no server.

All runs of the store, or those named (with what belongs to them). Figures are those of the evaluations'
results.csv, the sweeps' outcomes and MLflow; nothing is trained or evaluated again but for the few clips.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from configs.cluster import runs_folder
from shards.atomic import remove_leftovers, write_errors, write_text
from shards.errors import InputError
from trainers.tracking.processes import terminated_by_signal
from tuning.report.answering import answer_blocks
from tuning.report.answering import cost_blocks as answer_costs
from tuning.report.classification import accuracy_blocks, cost_blocks
from tuning.report.clips import clip_blocks
from tuning.report.evaluations import Evaluation, evaluations, inner_name
from tuning.report.failures import failure_blocks
from tuning.report.page import Page, html
from tuning.report.parts import Block, Part, Text, plural
from tuning.report.provenance import datasets, provenance_blocks
from tuning.report.run_selection import Chosen, base_name, choose
from tuning.report.swept import sweep_blocks
from tuning.report.trained import trained_blocks

CLIPS = 3


def report(runs: Path, names: Sequence[str] = (), experiments: Sequence[str] = (), clips: int = CLIPS) -> str:
    """The report's HTML.

    Args:
        runs: folder of the runs and their MLflow store.
        names, experiments: as `tuning.report.run_selection.choose`.
        clips: how many clips of each evaluation are shown with every method's answer.

    Raises:
        InputError: as `choose`.
    """
    chosen = choose(runs, names, experiments)
    parts = [part for part in _parts(chosen, clips) if part.blocks]
    what = ", ".join(names or experiments) or chosen.root.name
    return html(Page(f"avmend report: {what}", tuple(_facts(chosen)), tuple(parts)))


def _facts(chosen: Chosen) -> Iterator[str]:
    states = [run.status for run in chosen.of("training")]
    told = ", ".join(f"{states.count(s)} {s.lower()}" for s in dict.fromkeys(states))
    counts = [f"{plural(len(states), 'training run')} ({told})"] if states else []
    counts += [plural(n, kind) for kind in ("evaluation", "sweep") if (n := len(chosen.of(kind)))]
    yield ", ".join(counts) or plural(len(chosen.runs), "run")
    yield f"Made {datetime.now(UTC).strftime('%Y-%m-%d %H:%M')} UTC from {chosen.store}"


def _parts(chosen: Chosen, clips: int) -> Iterator[Part]:
    for i, found in enumerate(evaluations(chosen)):
        if isinstance(found, Evaluation):
            yield Part(f"Evaluation {found.name}", _lead(found), _evaluation(found, f"evaluation {i}", clips))
        else:
            lost = Text("Its results.csv is neither in its folder nor among its artifacts.", warn=True)
            yield Part(f"Evaluation {base_name(found)}", "", (lost,))
    for i, run in enumerate(reversed(chosen.of("sweep"))):
        yield Part(f"Sweep {run.name}", "", sweep_blocks(chosen.root / inner_name(run.name), f"sweep {i}"))
    lead = "A line per configuration over its seeds; only settings that differ have a column."
    yield Part("Training runs", lead, trained_blocks(chosen))
    yield Part("Failures", "", failure_blocks(chosen, datasets(chosen)))
    yield Part("Provenance", "", provenance_blocks(chosen))


def _evaluation(found: Evaluation, tag: str, clips: int) -> tuple[Block, ...]:
    shown = clip_blocks(found, clips) if clips else ()
    if found.rows:
        return (*accuracy_blocks(found.rows, tag), *cost_blocks(found.rows, tag), *shown)
    return (*answer_blocks(found.results, tag), *answer_costs(found.results, tag), *shown)


def _lead(found: Evaluation) -> str:
    data, split = Path(found.params.get("data", "")).name, found.params.get("split", "")
    return f"Split {split} of {data}; every method meets the same ruined input."


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="avmend report", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="RUN", help="studies, sweeps, evaluations or runs: name, folder or id"
    )
    parser.add_argument("--runs", type=Path, default=runs_folder(), help="folder of the runs (default: runs)")
    parser.add_argument("--experiment", action="append", default=[], help="runs of this MLflow experiment")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="default: report.html")
    parser.add_argument(
        "--clips",
        type=int,
        default=CLIPS,
        help=f"clips with every method's answer (default: {CLIPS}; 0: none)",
    )
    args = parser.parse_args(argv)
    try:
        with terminated_by_signal():  # so that no half-written file stays
            _write(args.out, report(args.runs, args.names, args.experiment, max(0, args.clips)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _write(out: Path, document: str) -> None:
    if out.is_dir():
        raise InputError("is a folder", file=out, field="out", remedy="name a file, such as report.html")
    with write_errors(out, field="--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out)
        write_text(out, document)
