"""Tags of a run: their names, and what every run says of the process that opened it."""

from __future__ import annotations

import platform
import shlex
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LONGEST = 2000  # characters of a tag
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"  # the run's description in the UI
COMMAND = "mlflow.source.name"  # the command line, which the UI shows as the run's source
VERSIONS = "versions"  # of Python and the packages that figures depend on
ERROR = "error"  # why a run ended as FAILED
LOCK = "avmend.lock"  # the run's lock (processes.py)


def of_this_process() -> dict[str, str]:
    """The tags that every run gets."""
    return {COMMAND: command_line(), VERSIONS: versions()}


def command_line() -> str:
    """What this process was called with, as one would type it."""
    name = Path(sys.argv[0]).name
    words = [name, *sys.argv[1:]] if name == "avmend" else ["python", *sys.orig_argv[1:]]
    return shlex.join(words)[:LONGEST]


@cache
def versions() -> str:
    """Of Python and the packages that figures depend on, those that are installed."""
    found = [f"python {platform.python_version()}"]
    for name in ("avmend", "torch", "ray", "mlflow", "numpy"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
