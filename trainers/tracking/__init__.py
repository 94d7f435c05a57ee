"""Runs in MLflow: opened and closed by the driver, metrics copied from metrics.jsonl. Besides it
only the flavour in `serving` knows MLflow (ui.py starts its server).

The disk comes first: should the MLflow store fail, training goes on, a warning says so, and the next run of
the same folder copies what is missing. A server is asked in the background: no training waits for it.
"""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: nobody asked for it
from shards.redaction import redacted
from trainers.tracking.address import is_server, sqlite_uri, store_uri
from trainers.tracking.models import RunModel, register
from trainers.tracking.probe import probe_store
from trainers.tracking.reading import Recorded, read_artifact, read_runs, tag_experiments
from trainers.tracking.record import is_closed, is_open
from trainers.tracking.schema import known_store
from trainers.tracking.store import Store, flatten
from trainers.tracking.tags import COMMAND, ERROR, NOTE, PARENT, VERSIONS
from trainers.tracking.writing import Run


class _Redacts(logging.Filter):
    """Takes passwords out of what MLflow itself logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


for _noisy in ("mlflow", "alembic"):  # after the import, which sets them itself
    logging.getLogger(_noisy).setLevel(logging.WARNING)
    for _handler in logging.getLogger(_noisy).handlers:
        _handler.addFilter(_Redacts())

__all__ = [
    "COMMAND",
    "ERROR",
    "NOTE",
    "PARENT",
    "VERSIONS",
    "Recorded",
    "Run",
    "RunModel",
    "Store",
    "flatten",
    "is_closed",
    "is_open",
    "is_server",
    "known_store",
    "probe_store",
    "read_artifact",
    "read_runs",
    "register",
    "sqlite_uri",
    "store_uri",
    "tag_experiments",
]
