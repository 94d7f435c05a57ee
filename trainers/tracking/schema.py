"""The SQLite file of a store: made aside and renamed, so that whoever is killed meanwhile leaves nothing half-made."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient

from shards.atomic import replacing, write_errors
from shards.errors import InputError
from trainers.tracking.address import sqlite_file, sqlite_uri, store_uri

logger = logging.getLogger(__name__)
CONTENT = ("experiments", "runs", "registered_models", "logged_models")  # tables whose rows somebody would miss
LOCK_SECONDS = 30.0  # that another process may hold the file


def ensure_schema(uri: str) -> None:
    """Make the file of a SQLite store if there is none; one that an earlier process was killed in making is put
    aside as ``mlflow.db.incomplete``. Call with the store's lock held.

    Raises:
        InputError: the file or its folder can't be read or written.
    """
    path = sqlite_file(uri)
    if path is None:
        return
    with write_errors(path.parent):
        for rest in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}*"):  # of processes that were killed
            rest.unlink(missing_ok=True)
        if is_incomplete(path):
            logger.warning("%s was left incomplete by a process that was killed, and is made anew", path)
            path.replace(path.with_name(f"{path.name}.incomplete"))
        if path.is_file():
            try_write(path, LOCK_SECONDS)
            return
        with replacing(path) as temporary:
            _make(temporary)


def _make(path: Path) -> None:
    """A new file with MLflow's schema; its client makes it, and keeps a connection to it, which does no harm."""
    MlflowClient(tracking_uri=sqlite_uri(path)).search_experiments(max_results=1)


def is_incomplete(path: Path) -> bool:
    """Whether its writer died before the schema was finished: what MLflow puts in last, its default experiment, is
    not there, nor is anything else that somebody would miss."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            counts = (f"SELECT count(*) FROM {name}" for name in tables.intersection(CONTENT))
            return not any(database.execute(count).fetchone()[0] for count in counts)
    except sqlite3.DatabaseError:
        return False  # held, or no database at all: others say so


def known_store(root: Path | str) -> str:
    """The URI of the store of `root`.

    Raises:
        InputError: there is no file yet, or an incomplete one.
    """
    uri = store_uri(root)
    file = sqlite_file(uri)
    remedy = "name the folder of the runs, or train something first (make demo)"
    if file is not None and not file.is_file():
        raise InputError("no MLflow store yet", file=file, remedy=remedy)
    if file is not None and is_incomplete(file):
        raise InputError("no MLflow store yet: its making was interrupted", file=file, remedy=remedy)
    return uri


def try_write(path: Path, seconds: float = 2.0) -> None:
    """Take the write lock and give it back.

    Raises:
        InputError: the file takes no writes; MLflow would try for minutes.
    """
    try:
        with closing(sqlite3.connect(path, timeout=seconds, isolation_level=None)) as database:
            for command in ("BEGIN IMMEDIATE", "CREATE TABLE avmend_probe (x)", "ROLLBACK"):
                database.execute(command)
    except sqlite3.Error as error:
        remedy = "correct the rights of file and folder, or restore the file; runs repeat into a new one"
        if "locked" in str(error):
            remedy = "wait until the process that holds it has ended"
        raise InputError(f"takes no writes: {error}", file=path, remedy=remedy) from None
