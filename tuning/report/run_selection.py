"""What a report is about: runs of the store, by name or all, with what belongs to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError, nearest
from shards.keys import safe_name
from shards.redaction import redacted
from shards.store import Place
from shards.stored_folder import is_stored, reading
from trainers.stored_run import no_tensors, tracking_folder
from trainers.tracking import Recorded, known_store, read_runs

IDENTITY = re.compile(r"-[0-9a-f]{12}$")


@dataclass(frozen=True)
class Chosen:
    """The runs that a report is about.

    Attributes:
        place: folder of the runs, or its address.
        root: folder of this machine that their store belongs to.
        store: URI of the store, without a password.
        runs: oldest first.
    """

    place: Place
    root: Path
    store: str
    runs: tuple[Recorded, ...]

    def folder(self, name: str) -> Path:
        """Local folder of a run, an evaluation or a sweep; it may be there or not."""
        where = self.place / inner_name(name)
        return reading(where, no_tensors) if is_stored(where) else self.root / inner_name(name)

    def of(self, kind: str) -> list[Recorded]:
        """The runs of a kind, oldest first."""
        return [run for run in self.runs if run.kind == kind]

    def parent(self, run: Recorded) -> Recorded | None:
        """The run of the command that `run` belongs to."""
        return next((other for other in self.runs if other.run_id == run.parent), None)


def inner_name(name: str) -> str:
    """A run's name as a folder's in the folder of runs. Names come from stores that others write, too: one that
    leads elsewhere is made harmless."""
    return name if name == Path(name).name and name != ".." else safe_name(name)


def choose(place: Place, names: Sequence[str] = (), experiments: Sequence[str] = ()) -> Chosen:
    """The runs that are asked for, with all that belong to them; all of the store where nothing is.

    Args:
        place: folder of the runs and their store, or its address.
        names: of runs, studies, sweeps and evaluations: their names, with or without identity, their folders
            or their MLflow ids.
        experiments: of MLflow.

    Raises:
        InputError: no store, no such run or experiment, nothing to tell of.
    """
    root = tracking_folder(place)
    runs = read_runs(root)
    for experiment in experiments:
        known = sorted({run.experiment for run in runs})
        if experiment not in known:
            raise _unknown(experiment, known, "experiment", place)
    if experiments:
        runs = [run for run in runs if run.experiment in experiments]
    if names:
        runs = _named(runs, names, place)
    if not runs:
        remedy = "train something first, or name another folder with --runs"
        raise InputError("the store has no runs", file=place, field="runs", remedy=remedy)
    return Chosen(place.absolute(), root.absolute(), redacted(known_store(root)), tuple(runs))


def _named(runs: Sequence[Recorded], names: Sequence[str], place: Place) -> list[Recorded]:
    chosen: set[str] = set()
    for name in names:
        found = [run.run_id for run in runs if _answers_to(run, name)]
        if not found:
            known = sorted({base_name(run) for run in runs if run.kind in _CALLED})
            raise _unknown(Path(name).name or name, known, "run", place)
        chosen.update(found)
    return _with_children(runs, chosen)


_CALLED = ("sweep", "study", "evaluation", "training")


def base_name(run: Recorded) -> str:
    """What a run is called without its identity: the study's, the sweep's, the recipe's name."""
    return IDENTITY.sub("", run.name.removeprefix("evaluate-"))


def _answers_to(run: Recorded, name: str) -> bool:
    own = run.name.removeprefix("evaluate-")
    wanted = Path(name).name
    named = run.kind in _CALLED and wanted in (own, base_name(run))
    return named or name in (run.run_id, run.name) or wanted == run.tags.get("folder")


def _with_children(runs: Iterable[Recorded], chosen: set[str]) -> list[Recorded]:
    """The chosen runs and all below them; runs are given oldest first, a parent before its children."""
    below, runs = set(chosen), list(runs)
    while more := {run.run_id for run in runs if run.parent in below} - below:
        below |= more
    return [run for run in runs if run.run_id in below]


def _unknown(name: str, known: Sequence[str], what: str, place: Place) -> InputError:
    hint = nearest(name, known)
    remedy = f"{hint}there are: {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}"
    return InputError(f"no {what} '{name}' in the store", file=place, field=what, remedy=remedy)
