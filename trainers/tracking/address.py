"""Where the store of a folder of runs is, and whether it can be used."""

from __future__ import annotations

import os
import sqlite3
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from shards.errors import InputError

SQLITE = "sqlite:///"
NO_SERVER = "start the server and its tunnel, or correct MLFLOW_TRACKING_URI"


def store_uri(root: Path | str = "runs") -> str:
    """MLFLOW_TRACKING_URI where set, else the SQLite file ``root``/mlflow.db by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{Path(root).resolve() / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a store that is one."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def known_store(root: Path | str) -> str:
    """The URI of the store of `root`.

    Raises:
        InputError: there is no file yet.
    """
    uri = store_uri(root)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        remedy = "name the folder of the runs, or train something first (make demo)"
        raise InputError("no MLflow store yet", file=file, remedy=remedy)
    return uri


def probe_store(root: Path | str) -> str:
    """What the store of a folder of runs is, after it was opened and a write tried: in SQLite one that is
    rolled back, on a server a tag of one experiment.

    Raises:
        InputError: it does not open, takes no writes, or is of another version of MLflow.
    """
    uri = store_uri(root)
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        return f"none yet; the first run makes {file}"
    if file is not None:
        _try_sqlite(file)
    elif uri.startswith("http"):
        _try_server(uri)
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.search_experiments(max_results=1000)
        if file is None and found:
            client.set_experiment_tag(found[-1].experiment_id, "avmend.probe", str(int(time.time())))
    except MlflowException as error:
        remedy = f"with no run open: mlflow db upgrade {uri}" if "out-of-date" in str(error) else NO_SERVER
        message = f"does not open: {str(error).splitlines()[0]}"
        raise InputError(message, file=uri, remedy=remedy) from None
    return f"{uri}: opens, takes writes, {len(found)} experiments"


def _try_server(uri: str) -> None:
    """Ask once: MLflow's own client tries for minutes."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            pass
    except OSError as error:
        raise InputError(f"no MLflow server answers: {error}", file=uri, remedy=NO_SERVER) from None


def _try_sqlite(path: Path) -> None:
    """Take the write lock and give it back."""
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as database:
            for command in ("BEGIN IMMEDIATE", "CREATE TABLE avmend_probe (x)", "ROLLBACK"):
                database.execute(command)
    except sqlite3.Error as error:
        remedy = "correct the rights of file and folder, or restore the file; runs repeat into a new one"
        if "locked" in str(error):
            remedy = "wait until the process that holds it has ended"
        raise InputError(f"takes no writes: {error}", file=path, remedy=remedy) from None
