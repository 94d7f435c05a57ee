"""The MLflow store of a folder of runs: its schema, its experiments, and the opening of runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from shards.atomic import write_errors
from shards.command import signals_raised
from shards.errors import InputError
from shards.redaction import redacted
from trainers.tracking import record
from trainers.tracking.address import connect, is_server, sqlite_file, store_errors, store_uri
from trainers.tracking.delivery import Delivery
from trainers.tracking.processes import close_abandoned, hold, lock_name, opened_with
from trainers.tracking.schema import ensure_schema
from trainers.tracking.tags import ERROR, LOCK, LONGEST, PARENT, of_this_process
from trainers.tracking.writing import Pushed, Run

logger = logging.getLogger(__name__)
SYNC_SECONDS = 5.0
OPEN_SECONDS = 5.0  # for a server to open a run; then the work begins without it
PARAMS = 100  # params per request, MLflow's limit
KIND = {"mlflow.experimentKind": "custom_model_development"}  # what the UI calls model training


class Store:
    """The MLflow store of a folder of runs. The schema of a SQLite file is created here, once, before any worker
    starts; of a server nothing is asked before the first run.

    Args:
        root: folder of mlflow.db and artifacts/; not used when MLFLOW_TRACKING_URI names a server.

    Raises:
        InputError: a SQLite file that can't be read or written.
    """

    def __init__(self, root: Path | str = "runs"):
        self.root = Path(root).resolve()
        self.uri = store_uri(self.root)
        self.shown = redacted(self.uri)
        self.delivery = Delivery(self.shown) if sqlite_file(self.uri) is None else None
        self._knows_the_dead = self._is_slow = False
        with write_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._alone(), store_errors(self.uri):
                ensure_schema(self.uri)
                if self.delivery is None:
                    self._close_abandoned()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own, made when it is first needed: for a database it connects at once."""
        return connect(self.uri)

    def _alone(self) -> FileLock:
        """Keeps other processes out while the block runs."""
        return FileLock(self.root / ".mlflow.lock", thread_local=False)

    def _close_abandoned(self) -> None:
        if not self._knows_the_dead:
            close_abandoned(self.root, self.client)
            self._knows_the_dead = True

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
        free: Collection[str] = (),
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
            parent: the run of the command that this one belongs to; one that this store does not have (it is of
                another machine) is left out.
            folder: the run's folder, made if missing.
            mirrors: prefix of metric names -> folder of a metrics.jsonl to mirror; None: that of `folder`.
            free: params, by their flat names, that may differ from those that the folder's run began with, which stay.
            sync_seconds: time between two copies of new lines.

        Raises:
            InputError: the experiment was deleted in MLflow, the folder's run had other params, or the store or
                the folder can't be written. A server that does not answer is no error: the work goes on without.
        """
        run = self.open(name, experiment, params, tags, parent, folder=folder, mirrors=mirrors, free=free)
        status = "FAILED"
        try:
            with signals_raised(), run.synced_every(sync_seconds):
                yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
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
        free: Collection[str] = (),
    ) -> Run:
        """As :meth:`run`, for who opens many: the caller calls `sync` now and then, and `close`."""
        folder = Path(folder).resolve()
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        run = Run(lambda: self.client, folder, mirrors or {"": folder}, self.delivery, parent)
        all_tags = {name: redacted(value) for name, value in {**of_this_process(), **(tags or {})}.items()}

        def begin() -> None:
            self._begin(run, name, experiment, flatten(params or {}), all_tags, free)

        try:
            with write_errors(folder), store_errors(self.uri):
                begin() if self.delivery is None else self._deliver(self.delivery, run, begin)
        except BaseException:
            run.abandon()
            raise
        return run

    def _deliver(self, delivery: Delivery, run: Run, begin: Any) -> None:
        """Have a server open the run; where it does not in time, it does so while the work goes on."""
        run.opening = future = delivery.put(begin)
        if delivery.wait(future, 0.0 if self._is_slow else OPEN_SECONDS):
            future.result()
            return
        future.add_done_callback(run.warn)
        if not delivery.is_down and not self._is_slow:
            logger.warning("MLflow store %s is slow; the work does not wait for it", self.shown)
            self._is_slow = True

    def _begin(
        self,
        run: Run,
        name: str,
        experiment: str,
        params: Mapping[str, str],
        tags: dict[str, str],
        free: Collection[str],
    ) -> None:
        """The requests that open a run, which can be repeated after any of them failed."""
        parent = run.parent if run.parent is not None and self._has(run.parent.run_id) else None
        tags |= {PARENT: parent.run_id} if parent is not None else {}
        with self._alone():
            if run.opening is not None and run.opening.cancelled():
                return  # while it waited: the same command may have opened it since
            self._close_abandoned()
            retried = run.lock is not None
            run.lock = run.lock or hold(self.root)
            tags[LOCK] = lock_name(run.lock)
            found = self._resume(run.folder, name, tags)
            if found is None:
                found = opened_with(self.client, tags[LOCK]) if retried else None
                place = parent.experiment_id if parent is not None else self._experiment(experiment)
                found = found or self.client.create_run(place, tags=tags, run_name=name)
                record.begin(run.folder, found.info.run_id, self.shown)
        self._log_params(run.folder, found, params, free)
        run.attach(found.info.run_id, found.info.experiment_id, self._pushed(found))

    def _resume(self, folder: Path, name: str, tags: Mapping[str, str]) -> MlflowRun | None:
        """The run that the folder had in this store, as RUNNING again; None if there is none."""
        found = self._known(folder)
        if found is not None:
            run_id = found.info.run_id
            self.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
            self.client.update_run(run_id, status="RUNNING", name=name)
            if ERROR in found.data.tags:
                self.client.delete_tag(run_id, ERROR)
        return found

    def _known(self, folder: Path) -> MlflowRun | None:
        """The run that the folder had in this store, unless it was deleted there."""
        run_id = record.run_of(folder)
        if run_id is None:
            return None
        if (found := self._found(run_id)) is None:
            logger.warning("%s: its run is not in %s; a new one is created", folder, self.shown)
            return None
        return found if found.info.lifecycle_stage == "active" else None

    def _has(self, run_id: str) -> bool:
        return bool(run_id) and self._found(run_id) is not None

    def _found(self, run_id: str) -> MlflowRun | None:
        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _pushed(self, found: MlflowRun) -> Pushed:
        run_id = found.info.run_id
        history = (m for name in found.data.metrics for m in self.client.get_metric_history(run_id, name))
        return {(metric.key, metric.step, repr(metric.value)) for metric in history}

    def _log_params(self, folder: Path, found: MlflowRun, params: Mapping[str, str], free: Collection[str]) -> None:
        logged = found.data.params
        for key in sorted((params.keys() & logged.keys()) - set(free)):
            if params[key] != logged[key]:
                message = f"its run had {key}={logged[key]}, now it is {params[key]}"
                remedy = "use another folder for another run"
                raise InputError(message, file=folder, field=key, remedy=remedy)
        new = [Param(key, value) for key, value in params.items() if key not in logged]
        for start in range(0, len(new), PARAMS):
            self.client.log_batch(found.info.run_id, params=new[start : start + PARAMS])

    def _experiment(self, name: str) -> str:
        """Its id; call with the store's lock held, for it may be created."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            place = None if is_server(self.uri) else (self.root / "artifacts").as_uri()
            return self.client.create_experiment(name, artifact_location=place, tags=KIND)
        if found.lifecycle_stage == "deleted":
            remedy = "restore it in the MLflow UI, or use another name"
            raise InputError(f"MLflow experiment '{name}' was deleted", file=self.uri, remedy=remedy)
        return found.experiment_id


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as ``{"a.b.c": text}``: text as it is, but for passwords, everything else as json."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = redacted(value if isinstance(value, str) else json.dumps(value, default=str))
    return flat
