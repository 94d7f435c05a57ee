"""The processes that hold open runs: the store is told of the dead.

Every open run holds a lock on a file in ``<root>/.open``, which the system releases when the process dies,
however it dies. So whoever opens the store next knows the runs that a killed process left RUNNING.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Run

from trainers.tracking.tags import LOCK

OPEN = ".open"  # folder of the locks of open runs


def lock_name(lock: FileLock) -> str:
    """What the run's tag LOCK says of its lock."""
    return Path(lock.lock_file).stem


def hold(root: Path) -> FileLock:
    """A new lock that is held until the run is closed or this process ends; call with the store's held."""
    (root / OPEN).mkdir(exist_ok=True)
    lock = FileLock(root / OPEN / f"{uuid.uuid4().hex}.lock", thread_local=False)
    lock.acquire()
    return lock


def close_abandoned(root: Path, client: MlflowClient) -> None:
    """End the runs whose process died, as KILLED; those that a live process holds are left alone."""
    for path in sorted((root / OPEN).glob("*.lock")):
        if _is_free(path):
            found = opened_with(client, path.stem)
            if found is not None and found.info.status == "RUNNING":
                client.set_terminated(found.info.run_id, "KILLED")
            path.unlink(missing_ok=True)


def opened_with(client: MlflowClient, lock: str) -> Run | None:
    """The run that was created while `lock` was held for it, if the store has it."""
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(places, f"tags.`{LOCK}` = '{lock}'") if places else []
    return found[0] if found else None


def _is_free(path: Path) -> bool:
    """No process holds the lock. Its file is made before it is held, so ask with the store's lock held."""
    lock = FileLock(path, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False
