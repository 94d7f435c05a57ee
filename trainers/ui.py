"""``avmend ui``: open the MLflow UI on the store where the runs are, on this machine's loopback only."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from shards.command import command
from shards.errors import InputError
from trainers.command_line import ui_parser
from trainers.stored_run import tracking_folder

LINKS = 5  # experiments whose views are printed


def ui_command(root: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command line that serves the store of ``root`` at 127.0.0.1:``port``, and the variables that it needs: the
    store's address is one, since command lines are for all to see, and it may hold a password.

    Raises:
        InputError: no store there yet, or MLFLOW_TRACKING_URI names a server, which has a UI of its own.
    """
    from trainers.tracking import is_server, known_store

    uri = known_store(root)
    if is_server(uri):
        remedy = "open that address in a browser, or unset MLFLOW_TRACKING_URI"
        raise InputError(f"the runs are on the server {uri}", field="MLFLOW_TRACKING_URI", remedy=remedy)
    serve = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    return serve, {"MLFLOW_BACKEND_STORE_URI": uri}


def links(root: Path, port: int) -> list[str]:
    """Links to the views of the experiments that ran last, which are kept in the store for it."""
    from trainers.mlflow_views import views
    from trainers.tracking import Recorded, read_runs, tag_experiments

    runs: dict[str, list[Recorded]] = {}
    for run in reversed(read_runs(root)):
        runs.setdefault(run.experiment, []).append(run)
    shown = {name: views(runs[name][::-1]) for name in list(runs)[:LINKS]}
    now = time.time_ns() // 1_000_000
    ids = tag_experiments(root, {name: dict(v.tag(now) for v in found) for name, found in shown.items()})
    return [
        f"  {name}, {view.name}: http://127.0.0.1:{port}{view.path(ids[name])}"
        for name, found in shown.items()
        for view in found
    ]


@command
def main(argv: list[str]) -> int:
    """Becomes the server, which Ctrl-C ends."""
    arguments = ui_parser().parse(argv)
    store = tracking_folder(arguments.store)
    serve, variables = ui_command(store, arguments.port)
    found = links(store, arguments.port)
    home = f"http://127.0.0.1:{arguments.port}/#/experiments?workflowType=machine_learning  (Ctrl-C ends it)"
    print("\n".join([home, *found]), file=sys.stderr, flush=True)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes for LLM judges
    os.execve(serve[0], serve, {**os.environ, **variables})


if __name__ == "__main__":
    raise SystemExit(main())
