"""Where the store of a folder of runs is, and the client that asks it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from shards.errors import InputError
from shards.redaction import redacted

SQLITE, QUOTED = "sqlite:///", "sqlite+pysqlite:///"
NO_SERVER = "start the server and its tunnel, or correct MLFLOW_TRACKING_URI"
NO_ENTRY = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
SETTINGS = {  # MLflow's client alone tries for minutes; who wants to try again does so (delivery.py)
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # links amid what a command prints
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def store_uri(root: Path | str = "runs") -> str:
    """MLFLOW_TRACKING_URI where set, else the SQLite file ``root``/mlflow.db by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(Path(root).resolve() / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The address of a store that is a file. A name with ``?`` or ``%`` is quoted, and has another scheme: with
    the plain one MLflow makes the folder of the quoted name."""
    text = str(path)
    return f"{QUOTED}{quote(text)}" if {"?", "%"} & set(text) else f"{SQLITE}{text}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a store that is one."""
    if uri.startswith(QUOTED):
        return Path(unquote(uri.removeprefix(QUOTED)))
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def is_server(uri: str) -> bool:
    """Whether an MLflow server is asked, by http."""
    return uri.startswith(("http://", "https://"))


def connect(uri: str) -> MlflowClient:
    """A client whose requests end; asks nothing yet. A name and password in the address of a server go into
    MLflow's own variables, so that no message of its holds them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    parts = urlsplit(uri)
    if is_server(uri) and parts.username:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
        uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return MlflowClient(tracking_uri=uri)


@contextmanager
def store_errors(uri: str, what: str = "can't be used") -> Iterator[None]:
    """What a store refuses in the block is told in one line, which says `what`.

    Raises:
        InputError: so.
    """
    try:
        yield
    except ImportError as error:
        remedy = "install the database's driver for Python, or use an MLflow server"
        raise InputError(f"the MLflow store {what}: {error}", file=redacted(uri), remedy=remedy) from None
    except (MlflowException, SQLAlchemyError) as error:
        raise InputError(
            f"the MLflow store {what}: {reason(error)}", file=redacted(uri), remedy=_remedy(uri, str(error))
        ) from None


def _remedy(uri: str, message: str) -> str:
    if "out-of-date" in message:
        return f"with no run open: mlflow db upgrade {redacted(uri)}"
    if any(word in message for word in ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")):
        return NO_ENTRY
    if sqlite_file(uri) is not None:
        return "make room, correct the rights of file and folder, or restore the file"
    return NO_SERVER


def reason(error: Exception) -> str:
    """Why a store refused or did not answer, in one line without passwords."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    if found := re.search(r"Caused by \w+\(\W*(?:<.*?>: )?(.*)\)", first):  # of urllib3, within MLflow's sentence
        first = re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", found.group(1).strip("'\") "))
    return redacted(first)
