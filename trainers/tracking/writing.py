"""One open run: lines appended to its folder on disk, and their copy in MLflow."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric

from shards.atomic import write_text
from trainers.journal import FILE, Tail, append_metrics
from trainers.tracking import record
from trainers.tracking.tags import NOTE

logger = logging.getLogger(__name__)
BATCH = 1000  # metrics per request, MLflow's limit
Pushed = set[tuple[str, int, str]]  # what MLflow has: a metric's name, step, and value as text


class Run:
    """One open run: its folder on disk and its mirror in MLflow. Made by :meth:`Store.run`."""

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        folder: Path,
        pushed: Pushed,
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
            self._pending += self._unpushed()
            count = len(self._pending)
            while self._pending:
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
        """As :meth:`sync`; a store that fails is told of once."""
        self._try(self.sync)

    def summary(self, values: Mapping[str, float]) -> None:
        """Final metrics and ``best/*``: to summary.json (over what is there), then to MLflow."""
        values = {name: float(value) for name, value in values.items()}
        path = self.folder / "summary.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        write_text(path, json.dumps({**before, **values}, indent=1) + "\n")
        now = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, now, 0) for name, value in values.items()]
        self._try(lambda: self.client.log_batch(self.run_id, metrics=metrics))

    def note(self, markdown: str) -> None:
        """The run's description in the UI."""
        self.tag(NOTE, markdown)

    def tag(self, name: str, value: str) -> None:
        """Set one tag."""
        self._try(lambda: self.client.set_tag(self.run_id, name, value))

    def artifact(self, path: Path, place: str | None = None) -> None:
        """Copy a file, or a folder's contents, to the run's artifacts in MLflow, to their folder `place`."""
        send = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        self._try(lambda: send(self.run_id, str(path), place))

    @contextmanager
    def synced_every(self, seconds: float) -> Iterator[None]:
        """Sync in a thread of its own while the block runs."""
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(seconds):
                self.try_sync()

        thread = threading.Thread(target=follow, name="mlflow-mirror", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self, status: str) -> None:
        """Copy what is left and end the run as FINISHED, FAILED or KILLED."""
        self.try_sync()
        self._try(lambda: self._end(status))
        self._held.release()  # if its file is still there, whoever opens the store next ends the run

    def _end(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)
        Path(self._held.lock_file).unlink(missing_ok=True)
        record.end(self.folder, status)

    def _try(self, action: Callable[[], object]) -> None:
        """A store that fails must not end hours of training: the results are on disk. It is told of once."""
        try:
            action()
        except Exception as error:
            if not self._warned:
                logger.warning("MLflow store failed (%s); the results are in %s", error, self.folder)
            self._warned = True
