"""What distinguishes the runs of one table: the settings in which runs of one recipe differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shards.errors import InputError
from trainers.identity import EXECUTION_FIELDS, content_settings
from trainers.recipe import FinishedRun, leaves

_SAME_METHOD = EXECUTION_FIELDS | {"seed", "depth"}


def distinguish(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs, with the settings that differ added to the names of those that would share one.

    Raises:
        InputError: two runs of one seed differ in nothing that a table could show.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(_settings(run))
    out = [replace(run, differs=_differing(_settings(run), groups[run.method])) for run in runs]
    seen: dict[tuple[str, int], Path] = {}
    for run in out:
        first = seen.setdefault((run.method, run.config.seed), run.folder)
        if first != run.folder:
            message = f"{run.folder.name} and {first.name} are the same method with the same seed"
            raise InputError(message, file=run.folder, field="runs", remedy="evaluate one of them")
    return out


def _settings(run: FinishedRun) -> dict[str, Any]:
    """The settings by dotted name that make two runs of one recipe different methods."""
    return {k: v for k, v in leaves(content_settings(run.config)) if k.partition(".")[0] not in _SAME_METHOD}


def _differing(own: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    names = [name for name, value in own.items() if any(other.get(name) != value for other in others)]
    return " ".join(f"{name}={own[name]}" for name in names)
