"""Runs in MLflow: opened and closed by the driver, metrics copied from metrics.jsonl. No other module
imports MLflow (ui.py starts its server).

The disk comes first: should the MLflow store fail, training goes on, a warning says so, and the next run of
the same folder copies what is missing.

Every open run holds a lock on a file in ``<root>/.open``, which the system releases when the process dies,
however it dies. So whoever opens the store next knows the runs that a killed process left RUNNING.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: nobody asked for it
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from shards.atomic import write_text
from shards.errors import InputError
from trainers.journal import FILE, Tail, append_metrics

for _noisy in ("mlflow", "alembic"):  # after the import, which sets them itself
    logging.getLogger(_noisy).setLevel(logging.WARNING)
logger = logging.getLogger(__name__)
SYNC_SECONDS = 5.0
LONGEST = 2000  # characters of a tag
BATCH = 1000  # metrics per request, MLflow's limit
PARAMS = 100  # params per request, MLflow's limit
PARENT = "mlflow.parentRunId"
KINDS = {  # a run's kind by a parameter that only runs of it have, in this order
    "sweep": "sweep",
    "study": "study",
    "conditions": "evaluation",
    "rates": "evaluation",
    "seeds": "method",
    "case": "case",
    "recipe": "training",
}
KIND = {"mlflow.experimentKind": "custom_model_development"}  # what the UI calls model training
RECORD = "mlflow.json"
OPEN = ".open"  # folder of the locks of open runs
LOCK = "avmend.lock"  # tag: the run's lock
NOTE = "mlflow.note.content"  # tag: the run's description in the UI
COMMAND = "mlflow.source.name"  # tag: the command line, which the UI shows as the run's source
VERSIONS = "versions"  # tag: of Python and the packages that figures depend on
ERROR = "error"  # tag: why a run ended as FAILED


class Terminated(SystemExit):
    """SIGTERM arrived while a run was open."""


def store_uri(root: Path | str = "runs") -> str:
    """MLFLOW_TRACKING_URI where set, else the SQLite file ``root``/mlflow.db by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(root).resolve() / 'mlflow.db'}"


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


def known_store(root: Path | str) -> str:
    """The URI of the store of `root`.

    Raises:
        InputError: there is no file yet.
    """
    uri = store_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        remedy = "name the folder of the runs, or train something first (make demo)"
        raise InputError("no MLflow store yet", file=uri.removeprefix("sqlite:///"), remedy=remedy)
    return uri


@dataclass(frozen=True)
class Recorded:
    """A run as its store tells it.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
        started, ended: milliseconds since 1970; `ended` None while it runs.
        parent: id of the run of the command that it belongs to, "" if none.
    """

    run_id: str
    name: str
    experiment: str
    status: str
    started: int
    ended: int | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    parent: str

    @property
    def kind(self) -> str:
        """sweep, study, evaluation, method (a line of an evaluation), case (a stage), training, or other."""
        return next((kind for param, kind in KINDS.items() if param in self.params), "other")


def read_runs(root: Path | str) -> list[Recorded]:
    """All runs of the store of `root` that were not deleted, oldest first. Nothing is changed there.

    Raises:
        InputError: no store there, or none that can be read.
    """
    uri = known_store(root)
    try:
        client = MlflowClient(tracking_uri=uri)
        places = {e.experiment_id: e.name for e in client.search_experiments()}
        found, token = [], None
        while places:
            page = client.search_runs(list(places), max_results=1000, page_token=token)
            found += [_recorded(run, places[run.info.experiment_id]) for run in page]
            if not (token := page.token):
                break
    except (MlflowException, SQLAlchemyError) as error:
        remedy = "give the folder of a store, or see that its server answers"
        first = str(error).splitlines()[0]
        raise InputError(f"the MLflow store can't be read: {first}", file=uri, remedy=remedy) from None
    return sorted(found, key=lambda run: (run.started, run.name))


def _recorded(run: Any, experiment: str) -> Recorded:
    info, data = run.info, run.data
    return Recorded(
        run_id=info.run_id,
        name=info.run_name or info.run_id,
        experiment=experiment,
        status=info.status,
        started=info.start_time or 0,
        ended=info.end_time,
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
        parent=data.tags.get(PARENT, ""),
    )


def read_artifact(root: Path | str, run_id: str, name: str) -> str | None:
    """The text of a run's artifact, None if there is none."""
    client = MlflowClient(tracking_uri=known_store(root))
    with tempfile.TemporaryDirectory() as place:
        try:
            return Path(client.download_artifacts(run_id, name, place)).read_text(encoding="utf-8")
        except (MlflowException, OSError):
            return None


def tag_experiments(root: Path | str, tags: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Set tags of experiments, given by the experiment's name; returns the experiments' ids by name."""
    client = MlflowClient(tracking_uri=known_store(root))
    ids = {e.name: e.experiment_id for e in client.search_experiments()}
    for name, own in tags.items():
        for key, value in own.items():
            client.set_experiment_tag(ids[name], key, value)
    return ids


class Store:
    """The MLflow store of a folder of runs; its schema is created here, once, before any worker starts.

    Args:
        root: folder of mlflow.db and artifacts/; not used when MLFLOW_TRACKING_URI names a server.
    """

    def __init__(self, root: Path | str = "runs"):
        self.root = Path(root).resolve()
        self.uri = store_uri(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".mlflow.lock"):  # the client's constructor makes the schema
            self.client = MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)
            self._close_abandoned()

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
            with _terminated_by_signal(), run._synced_every(sync_seconds):
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
        tags = {COMMAND: command_line(), VERSIONS: versions(), **(tags or {})}
        tags |= {PARENT: parent.run_id} if parent is not None else {}
        with FileLock(self.root / ".mlflow.lock"):
            lock = self._hold()
            tags[LOCK] = Path(lock.lock_file).stem
            known = self._resumed(folder)
            if known is not None:
                self.client.log_batch(known, tags=[RunTag(*tag) for tag in tags.items()])
                self.client.update_run(known, status="RUNNING", name=name)
                if ERROR in self.client.get_run(known).data.tags:
                    self.client.delete_tag(known, ERROR)
        pushed: set[tuple[str, int, str]] = set()
        if known is not None:
            pushed = self._pushed(known)
        else:
            place = parent.experiment_id if parent is not None else self._experiment(experiment)
            known = self.client.create_run(place, tags=tags, run_name=name).info.run_id
            write_text(folder / RECORD, json.dumps({"run_id": known, "store": self.uri}) + "\n")
        run = Run(self.client, known, folder, pushed, mirrors or {"": folder}, lock)
        try:
            self._log_params(known, flatten(params or {}), folder)
        except BaseException:
            run.close("FAILED")
            raise
        return run

    def _hold(self) -> FileLock:
        """A new lock that is held until the run is closed or this process ends; a tag of the run names it."""
        (self.root / OPEN).mkdir(exist_ok=True)
        lock = FileLock(self.root / OPEN / f"{uuid.uuid4().hex}.lock", thread_local=False)
        lock.acquire()
        return lock

    def _close_abandoned(self) -> None:
        """End the runs whose process died, as KILLED; those that a live process holds are left alone."""
        for path in sorted((self.root / OPEN).glob("*.lock")):
            if _is_free(path):
                for run_id in self._running(path.stem):
                    self.client.set_terminated(run_id, "KILLED")
                path.unlink(missing_ok=True)

    def _running(self, lock: str) -> list[str]:
        """The run that `lock` was taken for, if it says RUNNING."""
        places = [experiment.experiment_id for experiment in self.client.search_experiments()]
        wanted = f"tags.`{LOCK}` = '{lock}' and attributes.status = 'RUNNING'"
        return [run.info.run_id for run in self.client.search_runs(places, wanted)] if places else []

    def _log_params(self, run_id: str, params: dict[str, str], folder: Path) -> None:
        logged = self.client.get_run(run_id).data.params
        for key in sorted(params.keys() & logged.keys()):
            if params[key] != logged[key]:
                message = f"its run had {key}={logged[key]}, now it is {params[key]}"
                raise InputError(message, file=folder, field=key, remedy="use another folder for another run")
        new = [Param(key, value) for key, value in params.items() if key not in logged]
        for start in range(0, len(new), PARAMS):
            self.client.log_batch(run_id, params=new[start : start + PARAMS])

    def _experiment(self, name: str) -> str:
        with FileLock(self.root / ".mlflow.lock"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                place = None if self.uri.startswith("http") else (self.root / "artifacts").as_uri()
                return self.client.create_experiment(name, artifact_location=place, tags=KIND)
        if found.lifecycle_stage == "deleted":
            remedy = "restore it in the MLflow UI, or use another name"
            raise InputError(f"MLflow experiment '{name}' was deleted", file=self.uri, remedy=remedy)
        return found.experiment_id

    def _resumed(self, folder: Path) -> str | None:
        """The run that the folder had in this store, unless it was deleted there."""
        try:
            record = json.loads((folder / RECORD).read_text())
            run = self.client.get_run(record["run_id"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("%s: its run is not in %s; a new one is created", folder, self.uri)
            return None
        return run.info.run_id if run.info.lifecycle_stage == "active" else None

    def _pushed(self, run_id: str) -> set[tuple[str, int, str]]:
        names = self.client.get_run(run_id).data.metrics
        history = (metric for name in names for metric in self.client.get_metric_history(run_id, name))
        return {(metric.key, metric.step, repr(metric.value)) for metric in history}


class Run:
    """One open run: its folder on disk and its mirror in MLflow. Made by :meth:`Store.run`."""

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        folder: Path,
        pushed: set[tuple[str, int, str]],
        mirrors: Mapping[str, Path],
        lock: FileLock,
    ):
        self.client, self.run_id, self.folder = client, run_id, folder
        self._pushed, self._held = pushed, lock
        self._tails = [(prefix, Tail(place / FILE)) for prefix, place in mirrors.items()]
        self._pending: list[Metric] = []
        self._lock = threading.Lock()
        self._warned = False

    @property
    def experiment_id(self) -> str:
        """The MLflow experiment that the run is in."""
        return self.client.get_run(self.run_id).info.experiment_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl; MLflow gets it with the next sync."""
        append_metrics(self.folder, step, metrics)

    def sync(self) -> int:
        """Copy the lines that are new since the last call, whoever wrote them; returns how many metrics."""
        with self._lock:
            for prefix, line in ((prefix, line) for prefix, tail in self._tails for line in tail.read()):
                for key, value in line.metrics.items():
                    name = prefix + key
                    what = (name, line.step, repr(value))
                    if what not in self._pushed:  # a resumed run reports some steps again
                        self._pushed.add(what)
                        self._pending.append(Metric(name, value, line.time, line.step))
            count = len(self._pending)
            while self._pending:
                self.client.log_batch(self.run_id, metrics=self._pending[:BATCH])
                del self._pending[:BATCH]
            return count

    def try_sync(self) -> None:
        """As :meth:`sync`; a store that fails is told of once."""
        self._try(self.sync)

    def summary(self, values: Mapping[str, float]) -> None:
        """Final metrics and ``best/*``: to summary.json (over what is there), then to MLflow."""
        values = {name: float(value) for name, value in values.items()}
        path = self.folder / "summary.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        new = path.with_name(".summary.json.new")
        new.write_text(json.dumps({**before, **values}, indent=1) + "\n")
        new.replace(path)
        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, 0) for name, value in values.items()]
        self._try(lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def note(self, markdown: str) -> None:
        """The run's description in the UI."""
        self._try(lambda: self.client.set_tag(self.run_id, NOTE, markdown))

    def artifact(self, path: Path, place: str | None = None) -> None:
        """Copy a file, or a folder's contents, to the run's artifacts in MLflow, to their folder `place`."""
        send = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        self._try(lambda: send(self.run_id, str(path), place))

    def tag(self, name: str, value: str) -> None:
        """Set one tag."""
        self._try(lambda: self.client.set_tag(self.run_id, name, value))

    @contextmanager
    def _synced_every(self, seconds: float) -> Iterator[None]:
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(seconds):
                self._try(self.sync)

        thread = threading.Thread(target=follow, name="mlflow-mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self, status: str) -> None:
        """Copy what is left and end the run as FINISHED, FAILED or KILLED."""
        self._try(self.sync)
        self._try(lambda: self._end(status))
        self._held.release()  # if its file is still there, whoever opens the store next ends the run

    def _end(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)
        Path(self._held.lock_file).unlink(missing_ok=True)
        record = json.loads((self.folder / RECORD).read_text())
        write_text(self.folder / RECORD, json.dumps({**record, "status": status}) + "\n")

    def _try(self, action: Any) -> None:
        """A store that fails must not end hours of training: the results are on disk. It is told of once."""
        try:
            action()
        except Exception as error:
            if not self._warned:
                logger.warning("MLflow store failed (%s); the results are in %s", error, self.folder)
            self._warned = True


def _is_free(path: Path) -> bool:
    """No process holds the lock. Its file is made before it is held, so ask with the store's lock held."""
    lock = FileLock(path, thread_local=False)
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def is_closed(folder: Path) -> bool:
    """Whether the MLflow run of `folder` was ended as FINISHED; asks the disk alone."""
    try:
        return json.loads((Path(folder) / RECORD).read_text()).get("status") == "FINISHED"
    except (FileNotFoundError, ValueError):
        return False


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as ``{"a.b.c": text}``: text as it is, everything else as json."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


@contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """SIGTERM raises Terminated in the main thread while the block runs; other threads can't set handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:  # Ray, started inside, may have put its own there
            signal.signal(signal.SIGTERM, before)


def probe_store(root: Path | str) -> str:
    """What the store of a folder of runs is, after it was opened and a write tried: in SQLite one that is
    rolled back, on a server a tag of one experiment.

    Raises:
        InputError: it does not open, takes no writes, or is of another version of MLflow.
    """
    uri = store_uri(root)
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        if not path.is_file():
            return f"none yet; the first run makes {path}"
        _try_sqlite(path)
    elif uri.startswith("http"):
        _try_server(uri)
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.search_experiments(max_results=1000)
        if not uri.startswith("sqlite:///") and found:
            client.set_experiment_tag(found[-1].experiment_id, "avmend.probe", str(int(time.time())))
    except MlflowException as error:
        remedy = "start the server and its tunnel, or correct MLFLOW_TRACKING_URI"
        if "out-of-date" in str(error):
            remedy = f"with no run open: mlflow db upgrade {uri}"
        message = f"does not open: {str(error).splitlines()[0]}"
        raise InputError(message, file=uri, remedy=remedy) from None
    return f"{uri}: opens, takes writes, {len(found)} experiments"


def _try_server(uri: str) -> None:
    """Ask once: MLflow's own client tries for minutes."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5):
            pass
    except OSError as error:
        remedy = "start the server and its tunnel, or correct MLFLOW_TRACKING_URI"
        raise InputError(f"no MLflow server answers: {error}", file=uri, remedy=remedy) from None


def _try_sqlite(path: Path) -> None:
    """Take the write lock and give it back."""
    try:
        with closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as database:
            for command in ("BEGIN IMMEDIATE", "CREATE TABLE avmend_probe (x)", "ROLLBACK"):
                database.execute(command)
    except sqlite3.Error as error:
        remedy = "correct the rights of file and folder, or restore the file; runs repeat into a new one"
        if "locked" in str(error):
            remedy = "wait until the process that holds it has ended"
        raise InputError(f"takes no writes: {error}", file=path, remedy=remedy) from None
