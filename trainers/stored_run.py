"""Runs that lie on a store: who has which copy of one, and when it is published.

Rank 0 trains in a working copy and publishes every state that it saves. The driver, which may be on another node, has a
copy without tensors: in it are config.json, MLflow's records and the summary, which it publishes before and after the
training, and the metrics that rank 0 publishes meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shards.lock import FOREVER, folder_lock
from shards.store import Place, StorePath
from shards.stored_folder import VERSIONS, is_stored, local_root, reading
from shards.working_copy import Publisher, WorkingCopy
from trainers.journal import FILE

if TYPE_CHECKING:
    from trainers.loop import Rank

TRAINING = "training"
DRIVERS = ".drivers"
TENSORS = (".safetensors", ".pt")


def no_tensors(path: str) -> bool:
    """Whether a file of a run is needed to look at it: all but weights and states."""
    return PurePosixPath(path).suffix not in TENSORS


def is_metrics(path: str) -> bool:
    """Whether a file of a run is a stage's metrics."""
    return PurePosixPath(path).name == FILE


def run_folder(where: Place) -> Path:
    """A run as it is now, to look at, without tensors; where there is none, a folder that is not there."""
    if isinstance(where, Path):
        return where
    return reading(where, no_tensors) if is_stored(where) else local_root(where.parent) / VERSIONS / "none" / where.name


class DriverFolder:
    """Where the driver of a training writes: the run's folder, or its copy of one on a store.

    Attributes:
        folder: of this machine.
    """

    def __init__(self, where: Place):
        self.copy: WorkingCopy | None = None
        if isinstance(where, StorePath):
            self.copy = WorkingCopy(where, TRAINING, no_tensors, DRIVERS)
            self.folder = self.copy.folder
        else:
            self.folder = where

    @contextmanager
    def at_work(self) -> Iterator[Path]:
        """The folder; of a run on a store brought, and published when the block ends well.

        Raises:
            InputError: another process trains the run, or the store fails.
        """
        if self.copy is not None:
            with self.copy.held():
                self.copy.bring()
        yield self.folder
        self._publish()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """The run is trained while the block runs: what was written so far is published before, what was trained is
        brought afterwards, metrics meanwhile."""
        if self.copy is None:
            yield
            return
        self._publish()
        with self.copy.following(is_metrics):
            yield
        with self.copy.held():
            self.copy.bring()

    def _publish(self) -> None:
        if self.copy is not None:
            with self.copy.held() as held:
                self.copy.publish(held)


@contextmanager
def training_folder(where: Place, rank: Rank, wait: float) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The local folder that a worker trains in, and what it calls after a save. Rank 0 has the folder to itself.

    Args:
        wait: seconds for another process's end.

    Raises:
        InputError: another process trains there, or the store fails.
    """
    copy = WorkingCopy(where, TRAINING) if isinstance(where, StorePath) else None
    folder = where if isinstance(where, Path) else local_root(where.parent) / where.name
    with ExitStack() as stack:
        publisher: Publisher | None = None
        if rank.index == 0:
            stack.enter_context(folder_lock(folder, TRAINING, wait=wait))
            publisher = None if copy is None else stack.enter_context(_published(copy))
        rank.total(0)  # the other ranks read nothing before rank 0 has the folder to itself
        if copy is not None and rank.world_size > 1:
            if rank.index:
                with folder_lock(folder, "bringing", wait=FOREVER):
                    copy.bring(exactly=True)
            rank.total(0)  # and rank 0 changes nothing before they have what it has
        yield folder, publisher.save if publisher is not None else lambda: None


@contextmanager
def _published(copy: WorkingCopy) -> Iterator[Publisher]:
    with copy.held() as held:
        copy.bring()
        copy.publish(held)  # what an earlier process could not
        with Publisher(copy, held).at_work() as publisher:
            yield publisher


def tracking_folder(runs: Place) -> Path:
    """The folder of the MLflow store of a folder of runs: the same folder, or, of one on a store, one of this machine,
    since a SQLite file can't lie in a bucket; says so unless MLFLOW_TRACKING_URI names another store."""
    if isinstance(runs, Path):
        return runs
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        _say_where(runs)
    return local_root(runs)


@lru_cache
def _say_where(runs: StorePath) -> None:
    said = f"MLflow's store of {runs} is {local_root(runs) / 'mlflow.db'}, of this machine alone"
    print(f"note: {said}; MLFLOW_TRACKING_URI names a server for all", file=sys.stderr)
