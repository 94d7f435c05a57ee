"""The MLflow store of a folder of runs: its schema, its experiments, and the opening of runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException

from shards.errors import InputError
from trainers.tracking import record
from trainers.tracking.address import store_uri
from trainers.tracking.processes import Terminated, close_abandoned, hold, lock_name, terminated_by_signal
from trainers.tracking.tags import ERROR, LOCK, LONGEST, PARENT, of_this_process
from trainers.tracking.writing import Pushed, Run

logger = logging.getLogger(__name__)
SYNC_SECONDS = 5.0
PARAMS = 100  # params per request, MLflow's limit
KIND = {"mlflow.experimentKind": "custom_model_development"}  # what the UI calls model training


class Store:
    """The MLflow store of a folder of runs; its schema is created here, once, before any worker starts.

    Args:
        root: folder of mlflow.db and artifacts/; not used when MLFLOW_TRACKING_URI names a server.
    """

    def __init__(self, root: Path | str = "runs"):
        self.root = Path(root).resolve()
        self.uri = store_uri(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        with self._alone():  # the client's constructor makes the schema
            self.client = MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)
            close_abandoned(self.root, self.client)

    def _alone(self) -> FileLock:
        """Keeps other processes out while the block runs."""
        return FileLock(self.root / ".mlflow.lock")

    @contextmanager
    def run(
        self,
        name: str,
        experiment: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
        *,
        folder: Path,
        mirrors: Mapping[str, Path] | None = None,
        sync_seconds: float = SYNC_SECONDS,
    ) -> Iterator[Run]:
        """An open MLflow run that mirrors ``folder``/metrics.jsonl until the block ends.

        A folder that had a run before continues it and repeats none of its lines. The run ends as FINISHED,
        as KILLED by KeyboardInterrupt or SIGTERM, as FAILED by any other exception. Only for the driver.

        Args:
            name: shown in MLflow; use the run's identity in it.
            experiment: MLflow experiment, created when new; a run with a parent goes to its parent's.
            params: nested values; logged flat, as ``a.b.c``, when the run is created.
            tags: text by name.
            parent: the run of the command that this one belongs to.
            folder: the run's folder, made if missing.
            mirrors: prefix of metric names -> folder of a metrics.jsonl to mirror; None: that of `folder`.
            sync_seconds: time between two copies of new lines.

        Raises:
            InputError: the experiment was deleted in MLflow, or the folder's run had other params.
        """
        run = self.open(name, experiment, params, tags, parent, folder=folder, mirrors=mirrors)
        status = "FAILED"
        try:
            with terminated_by_signal(), run.synced_every(sync_seconds):
                yield run
            status = "FINISHED"
        except (KeyboardInterrupt, Terminated):
            status = "KILLED"
            raise
        except BaseException as error:
            run.tag(ERROR, f"{type(error).__name__}: {error}"[:LONGEST])
            raise
        finally:
            run.close(status)

    def open(
        self,
        name: str,
        experiment: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
        *,
        folder: Path,
        mirrors: Mapping[str, Path] | None = None,
    ) -> Run:
        """As :meth:`run`, for who opens many: the caller calls `sync` now and then, and `close`."""
        folder = Path(folder).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        tags = {**of_this_process(), **(tags or {})}
        tags |= {PARENT: parent.run_id} if parent is not None else {}
        with self._alone():
            lock = hold(self.root)
            tags[LOCK] = lock_name(lock)
            run_id = self._resume(folder, name, tags)
        if run_id is None:
            place = parent.experiment_id if parent is not None else self._experiment(experiment)
            run_id = self.client.create_run(place, tags=tags, run_name=name).info.run_id
            record.begin(folder, run_id, self.uri)
        data = self.client.get_run(run_id).data
        run = Run(self.client, run_id, folder, self._pushed(run_id, data.metrics), mirrors or {"": folder}, lock)
        try:
            self._log_params(run, flatten(params or {}), data.params)
        except BaseException:
            run.close("FAILED")
            raise
        return run

    def _resume(self, folder: Path, name: str, tags: Mapping[str, str]) -> str | None:
        """The run that the folder had in this store, as RUNNING again; None if there is none."""
        run_id = self._known(folder)
        if run_id is not None:
            self.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
            self.client.update_run(run_id, status="RUNNING", name=name)
            if ERROR in self.client.get_run(run_id).data.tags:
                self.client.delete_tag(run_id, ERROR)
        return run_id

    def _known(self, folder: Path) -> str | None:
        """The run that the folder had in this store, unless it was deleted there."""
        run_id = record.run_of(folder)
        if run_id is None:
            return None
        try:
            info = self.client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("%s: its run is not in %s; a new one is created", folder, self.uri)
            return None
        return run_id if info.lifecycle_stage == "active" else None

    def _pushed(self, run_id: str, names: Mapping[str, float]) -> Pushed:
        history = (metric for name in names for metric in self.client.get_metric_history(run_id, name))
        return {(metric.key, metric.step, repr(metric.value)) for metric in history}

    def _log_params(self, run: Run, params: Mapping[str, str], logged: Mapping[str, str]) -> None:
        for key in sorted(params.keys() & logged.keys()):
            if params[key] != logged[key]:
                message = f"its run had {key}={logged[key]}, now it is {params[key]}"
                remedy = "use another folder for another run"
                raise InputError(message, file=run.folder, field=key, remedy=remedy)
        new = [Param(key, value) for key, value in params.items() if key not in logged]
        for start in range(0, len(new), PARAMS):
            self.client.log_batch(run.run_id, params=new[start : start + PARAMS])

    def _experiment(self, name: str) -> str:
        with self._alone():
            found = self.client.get_experiment_by_name(name)
            if found is None:
                place = None if self.uri.startswith("http") else (self.root / "artifacts").as_uri()
                return self.client.create_experiment(name, artifact_location=place, tags=KIND)
        if found.lifecycle_stage == "deleted":
            remedy = "restore it in the MLflow UI, or use another name"
            raise InputError(f"MLflow experiment '{name}' was deleted", file=self.uri, remedy=remedy)
        return found.experiment_id


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as ``{"a.b.c": text}``: text as it is, everything else as json."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
