"""``avmend register RUN NAME[@ALIAS]``: a finished run's model under a name in MLflow's registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shards.command import command
from shards.errors import InputError
from shards.store import Place
from trainers.command_line import register_parser
from trainers.journal import logs
from trainers.recipe import FinishedRun
from trainers.runs import read_run
from trainers.stored_run import tracking_folder

if TYPE_CHECKING:
    from trainers.tracking import RunModel


def model_of(run: FinishedRun) -> RunModel | None:
    """What MLflow is told of a run's model; None: it answers nothing by itself."""
    from trainers.tracking import RunModel

    if run.recipe.load is None:
        return None
    return RunModel(run.folder.absolute().name, run.name, run.recipe.task.name, run.recipe.task.asks)


def register_run(where: Place, name: str, runs: Place | None = None) -> str:
    """Register a run's model; says how to load it.

    Args:
        where: folder or address of the run.
        name: NAME, or NAME@ALIAS.
        runs: folder of the store; None: the one that the run is in.

    Raises:
        InputError: no run, one that answers nothing by itself, not in the store, or the store is not there.
    """
    from trainers.tracking import register

    run = read_run(where)
    title, at, alias = name.partition("@")
    if not title or (at and not alias):
        raise InputError(f"'{name}' is no name", field="register", remedy="give NAME, or NAME@ALIAS")
    if (model := model_of(run)) is None:
        message = f"is a run of '{run.name}', which answers nothing by itself"
        raise InputError(message, file=where, remedy="register a run of a recipe that does")
    names = run.recipe.stage_names(run.config)
    recorded = run.folder if len(names) > 1 else logs(run.folder, names[0])
    store = tracking_folder(runs or where.absolute().parent)
    version = register(store, recorded, model, name).version
    return f"models:/{title}@{alias}" if alias else f"models:/{title}/{version}"


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = register_parser().parse(argv)
    print(register_run(args.run, args.name, args.runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
