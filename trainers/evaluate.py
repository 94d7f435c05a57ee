"""``avmend evaluate RUN ...``: methods on the same ruined or incomplete input, as a table with its figure.

Runs that differ in their seed alone are repetitions; the table gives mean and standard deviation over them.
Conditions, settings and table are those of the runs' task.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import Config, config_to_dict, digest, load_config
from configs.cluster import lasting
from shards.atomic import stamps
from shards.command import command
from shards.errors import InputError
from shards.keys import safe_name
from shards.progress import Progress
from shards.store import Place, PlaceT, absolute
from shards.stored_folder import RECORD, reading
from shards.working_copy import worked_on
from trainers.command_line import evaluate_parser
from trainers.evaluation_cache import cached_rows, clear, save_rows
from trainers.identity import git_commit
from trainers.recipe import Evaluation, FinishedRun, ResultLine, Task
from trainers.runs import read_run
from trainers.stored_run import tracking_folder

ROOT = Path(__file__).resolve().parent.parent
EVALUATION = "evaluation"


def evaluate(
    folders: Sequence[Place],
    config: Config,
    out: PlaceT,
    runs_folder: Place | None = None,
    stage: str | None = None,
    parent: Any = None,
    overwrite: bool = False,
) -> list[Any]:
    """Evaluate runs: results.csv, results.md, results.png and the draws in `out`, and all of it in MLflow.

    Where `out` holds the results of the same runs, data and config, those are returned at once.

    Args:
        folders: of finished runs of one task, or their addresses.
        config: an instance of the task's `evaluation`.
        out: folder of the results, or its address.
        runs_folder: folder of the MLflow store; None: the one `out` is in.
        stage: position in a longer job, for the progress line.
        parent: the MLflow run of the command that this is part of.
        overwrite: replace a larger table.

    Raises:
        InputError: a run that is none, runs of two tasks, what the task refuses, a larger table in `out`; of a store,
            as `shards.working_copy.worked_on`.
    """
    runs = [read_run(folder) for folder in folders]
    task = common_task(runs)
    evaluation = task.evaluate(runs, config)
    with worked_on(out, EVALUATION) as here:
        cached: list[Any] | None = cached_rows(here, evaluation.inputs, task.row)
        if cached is not None:
            return cached
        with Progress("evaluate", evaluation.total, "samples", stage=stage) as progress:
            rows = evaluation.rows(progress.advance)
        clear(here, len(rows), overwrite)
        evaluation.write(here, rows)
        mirrored, store = here / "mlflow" / digest(evaluation.inputs), tracking_folder(runs_folder or out.parent)
        _mirror(here, mirrored, store, evaluation, task.summarise(rows), parent)
        where = {"config": config_to_dict(evaluation.config), "runs": [str(run.place.absolute()) for run in runs]}
        save_rows(here, evaluation.inputs, {**where, "commit": git_commit(ROOT)}, rows)
    return rows


def common_task(runs: Sequence[FinishedRun]) -> Task:
    """The task of all these runs.

    Raises:
        InputError: they have several, or one of them answers nothing by itself.
    """
    for run in runs:
        if run.recipe.load is None:
            message = f"is a run of '{run.name}', which answers nothing by itself"
            raise InputError(message, file=run.folder, field="runs", remedy="give runs of a recipe that does")
    names = sorted({run.recipe.task.name for run in runs})
    if len(names) > 1:
        message = f"these runs are of several tasks: {', '.join(names)}"
        raise InputError(message, field="runs", remedy="evaluate the runs of each task by themselves")
    return runs[0].recipe.task


def _mirror(
    out: Path, folder: Path, runs: Path, evaluation: Evaluation, lines: Sequence[ResultLine], parent: Any
) -> None:
    """MLflow: a parent run with table and figure, and a child per method with its figures and curves."""
    from trainers.tracking import Store

    store, experiment, config = Store(runs), evaluation.experiment, config_to_dict(evaluation.config)
    with store.run(f"evaluate-{out.name}", experiment, config, None, parent, folder=folder) as top:
        for line in lines:
            own = folder / safe_name(line.name)
            with store.run(line.name, experiment, line.params, None, top, folder=own) as run:
                for step, metrics in line.curves().items():
                    run.log(step, metrics)
                run.summary(line.metrics())
        top.note((out / "results.md").read_text(encoding="utf-8"))
        for path in sorted(out.glob("*.*")):
            if path.suffix in (".csv", ".md", ".png"):
                top.artifact(path)


def _audit(args: argparse.Namespace, runs: Sequence[FinishedRun], task: Task) -> list[str]:
    """The setting that ``--by audit`` stands for: the folder that was given, or the one beside the media shards."""
    if args.by is None and args.audit is None:
        return []
    media = args.data if args.data is not None and task.features is None else task.media(runs[0])
    return [f"audit={(args.audit or media / 'audit').absolute()}"]


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = evaluate_parser().parse(argv)
    data = [f"data={absolute(args.data)}"] if args.data is not None else []
    out = lasting(args.out, "--out")
    written = out / ("results.md" if isinstance(out, Path) else RECORD)
    before = stamps([written])
    runs = [read_run(folder) for folder in args.runs]
    task = common_task(runs)
    config = load_config(task.evaluation, None, [*data, *_audit(args, runs, task), *args.set])
    evaluate(args.runs, config, out, overwrite=args.overwrite)
    print((reading(out) / "results.md").read_text(encoding="utf-8"))
    if before == stamps([written]):
        print(f"already finished: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
