"""One open run: lines appended to its folder on disk, and their copy in MLflow."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric

from shards.atomic import write_errors, write_text
from shards.redaction import redacted
from shards.repeated import repeated
from trainers.journal import FILE, Tail, append_metrics
from trainers.tracking import record
from trainers.tracking.delivery import Delivery
from trainers.tracking.models import RunModel, log_model
from trainers.tracking.tags import NOTE

logger = logging.getLogger(__name__)
BATCH = 1000  # metrics per request, MLflow's limit
CLOSE_SECONDS, KILLED_SECONDS = 10.0, 5.0  # for a server to take what is left when a command ends
CLOSE_SHARE, CLOSE_MOST = 0.05, 120.0  # of the time that the run was open it may take, too; up to so many seconds
REFUSED = re.compile(r"[^\w .:/-]")  # what MLflow takes in no metric's name
Pushed = set[tuple[str, int, str]]  # what MLflow has: a metric's name, step, and value as text


class Run:
    """One open run: its folder on disk and its mirror in MLflow. Made by :meth:`Store.run`.

    Attributes:
        run_id, experiment_id: in MLflow; empty until a server has opened it.
        lock: held while the run is open.
        opening: a server's answer to its opening; cancelled where a command ended without it.
    """

    def __init__(
        self,
        client: Callable[[], MlflowClient],
        folder: Path,
        mirrors: Mapping[str, Path],
        delivery: Delivery | None = None,
        parent: Run | None = None,
    ):
        self._client, self.folder, self.parent = client, folder, parent
        self.run_id = self.experiment_id = ""
        self.lock: FileLock | None = None
        self.opening: Future[object] | None = None
        self._delivery = delivery
        self._pushed: Pushed = set()
        self._tails = [(prefix, Tail(place / FILE)) for prefix, place in mirrors.items()]
        self._pending: list[Metric] = []
        self._lock = threading.Lock()
        self._warned = False
        self._opened = time.monotonic()
        self._syncing: Future[object] | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of the store."""
        return self._client()

    def attach(self, run_id: str, experiment_id: str, pushed: Pushed) -> None:
        """The store has opened it, and has these metrics of it already."""
        self.run_id, self.experiment_id, self._pushed = run_id, experiment_id, pushed

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl; MLflow gets it with the next sync."""
        append_metrics(self.folder, step, metrics)

    def sync(self) -> int:
        """Copy the lines that are new since the last call, whoever wrote them; returns how many metrics."""
        with self._lock:
            self._pending += self._unpushed()
            count = len(self._pending)
            while self._pending and self.run_id:
                self.client.log_batch(self.run_id, metrics=self._pending[:BATCH])
                del self._pending[:BATCH]
            return count

    def _unpushed(self) -> Iterator[Metric]:
        for prefix, line in ((prefix, line) for prefix, tail in self._tails for line in tail.read()):
            for key, value in line.metrics.items():
                what = (prefix + key, line.step, repr(value))
                if what not in self._pushed:  # a resumed run reports some steps again
                    self._pushed.add(what)
                    yield Metric(prefix + key, value, line.time, line.step)

    def try_sync(self) -> None:
        """As :meth:`sync`, in the background for a server; a store that fails is told of once."""
        if self._syncing is None or self._syncing.done():
            self._syncing = self._send(self.sync)

    def summary(self, values: Mapping[str, float]) -> None:
        """Final metrics and ``best/*``: to summary.json (over what is there), then to MLflow."""
        values = {name: float(value) for name, value in values.items()}
        path = self.folder / "summary.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        with write_errors(path):
            write_text(path, json.dumps({**before, **values}, indent=1) + "\n")
        now = time.time_ns() // 1_000_000
        metrics = [Metric(metric_name(name), value, now, 0) for name, value in values.items()]
        self._send(lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def note(self, markdown: str) -> None:
        """The run's description in the UI."""
        self.tag(NOTE, markdown)

    def tag(self, name: str, value: str) -> None:
        """Set one tag; passwords in it are redacted."""
        value = redacted(value)
        self._send(lambda: self.client.set_tag(self.run_id, name, value))

    def artifact(self, path: Path, place: str | None = None) -> None:
        """Copy a file, or a folder's contents, to the run's artifacts in MLflow, to their folder `place`."""

        def send() -> None:
            client = self.client
            (client.log_artifacts if Path(path).is_dir() else client.log_artifact)(self.run_id, str(path), place)

        self._send(send)

    def model(self, found: RunModel) -> None:
        """Log the run as a model, once."""
        self._send(lambda: log_model(self.client, self.run_id, found))

    @contextmanager
    def synced_every(self, seconds: float) -> Iterator[None]:
        """Sync in a thread of its own while the block runs."""
        with repeated(self.try_sync, seconds, "mlflow-mirror"):
            yield

    def close(self, status: str) -> None:
        """Copy what is left and end the run as FINISHED, FAILED or KILLED. A server that is slow is waited for at
        the end of a command's own run, for a while; what is missing there then, the same command copies later."""
        self._syncing = None
        self.try_sync()
        ended = self._send(lambda: self._end(status))
        if self._delivery is not None and self.parent is None:
            in_time = self._delivery.wait(ended, KILLED_SECONDS if status == "KILLED" else self._patience())
            if not in_time:
                left, was_down = self._delivery.drop(), self._delivery.is_down
                message = "MLflow store %s is slow: %d requests are left out; the same command copies what is missing"
                logger.warning(message, self._delivery.shown, left) if not was_down else None
        self.abandon()

    def _patience(self) -> float:
        return min(max(CLOSE_SECONDS, CLOSE_SHARE * (time.monotonic() - self._opened)), CLOSE_MOST)

    def abandon(self) -> None:
        """Hold it no longer; if its lock's file is still there, whoever opens the store next ends the run."""
        if self.lock is not None:
            self.lock.release()

    def _end(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)
        if self.lock is not None:
            Path(self.lock.lock_file).unlink(missing_ok=True)
        record.end(self.folder, status)

    def _send(self, action: Callable[[], object]) -> Future[object]:
        """A store that fails must not end hours of training: the results are on disk. It is told of once."""

        def request() -> object:
            return action() if self.run_id else None  # a server refused to open it, and why was told

        if self._delivery is not None:
            future = self._delivery.put(request)
        else:
            future = Future()
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)
        future.add_done_callback(self.warn)
        return future

    def warn(self, future: Future[object]) -> None:
        """Say that a request failed; once."""
        error = None if future.cancelled() else future.exception()
        if error is not None and not self._warned:
            logger.warning("MLflow store failed (%s); the results are in %s", redacted(str(error)), self.folder)
            self._warned = True


def metric_name(name: str) -> str:
    """A metric's name as MLflow takes it: letters, digits and ``_ - . : /`` and blanks; anything else becomes ``_``."""
    return REFUSED.sub("_", name)
