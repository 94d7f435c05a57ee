"""``avmend ui``: open the MLflow UI on the store where the runs are, on this machine's loopback only."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from configs.cluster import runs_folder
from shards.errors import InputError


def ui_command(root: Path, port: int) -> list[str]:
    """The command line that serves the store of ``root`` at 127.0.0.1:``port``.

    Raises:
        InputError: no store there yet, or MLFLOW_TRACKING_URI names a server, which has a UI of its own.
    """
    from trainers.tracking import store_uri

    uri = store_uri(root)
    if uri.startswith(("http://", "https://")):
        remedy = "open that address in a browser, or unset MLFLOW_TRACKING_URI"
        raise InputError(f"the runs are on the server {uri}", field="MLFLOW_TRACKING_URI", remedy=remedy)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        remedy = "name the folder of the runs with --store, or train something first (make demo)"
        raise InputError("no MLflow store yet", file=uri.removeprefix("sqlite:///"), remedy=remedy)
    serve = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    return [*serve, "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]


def main(argv: list[str] | None = None) -> int:
    """Entry point; becomes the server, which Ctrl-C ends."""
    parser = argparse.ArgumentParser(prog="avmend ui", description=__doc__)
    parser.add_argument(
        "--store", type=Path, default=runs_folder(), help="folder of mlflow.db (default: runs)"
    )
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args(argv)
    try:
        command = ui_command(arguments.store, arguments.port)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"http://127.0.0.1:{arguments.port}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven processes for LLM judges
    os.execv(command[0], command)


if __name__ == "__main__":
    raise SystemExit(main())
