"""What a tracking server that misbehaves costs a training, and whether anything is lost.

    python -m benchmarks.tracking --epochs 16 --seconds 0.5

A training of epochs that only wait, with a run and a child's run as commands have them, is mirrored to a real MLflow
server through a proxy that is away, slow, refuses, or fails, from the start or from the middle on. Afterwards the
proxy behaves, the same command runs again, and what the server has is compared with what is on disk.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.misbehaving import MisbehavingServer
from benchmarks.report import positive

METRICS = 10  # per epoch and run
WANTED = 0.1  # seconds lost per epoch
START_SECONDS = 180.0  # for the real server


class Proxy(MisbehavingServer):
    """Between the training and the server."""

    def __init__(self, port: int, behind: int):
        super().__init__(port)
        self.behind = behind

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """The server's own."""
        link = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        link.request(method, path, body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        status, content = answer.status, answer.read()
        link.close()
        return status, content


def training(root: Path, epochs: int, seconds: float, middle: Callable[[], None], late: Callable[[], None]) -> float:
    """Seconds of a training that waits `seconds` per epoch; `middle` and `late` happen after half and three quarters
    of it. None is spent on epochs that were done before."""
    from trainers.journal import read_metrics
    from trainers.tracking import Store

    begin = time.perf_counter()
    store = Store(root)
    with (
        store.run("training", "benchmark", {"lr": 0.1}, folder=root / "p") as parent,
        store.run("case", "benchmark", {"case": "a"}, None, parent, folder=root / "c") as child,
    ):
        for epoch in range(len(read_metrics(root / "c")) + 1, epochs + 1):
            time.sleep(seconds)
            values = {f"m{i}": epoch / (i + 1) for i in range(METRICS)}
            for run in (parent, child):
                run.log(epoch, values)
            if epoch == epochs // 2:
                middle()
            if epoch == 3 * epochs // 4:
                late()
        for run in (parent, child):
            run.summary({"best/m0": float(epochs)})
    return time.perf_counter() - begin


def nothing() -> None:
    """What happens in the middle of an undisturbed training."""


def cases(proxy: Proxy) -> dict[str, tuple[Callable[[], None], Callable[[], None], Callable[[], None]]]:
    """By name: what the server does before the training, in its middle, and later."""

    def set_to(**moods: float) -> Callable[[], None]:
        return lambda: vars(proxy).update(moods)

    return {
        "answers": (nothing, nothing, nothing),
        "away from the start": (proxy.stop, nothing, nothing),
        "dies in the middle": (nothing, proxy.stop, nothing),
        "dies, and is back": (nothing, proxy.stop, proxy.start),
        "slow: 5 s per request": (set_to(delay=5.0), nothing, nothing),
        "slow from the middle": (nothing, set_to(delay=5.0), nothing),
        "401": (set_to(status=401), nothing, nothing),
        "500": (set_to(status=500), nothing, nothing),
        "500 from the middle": (nothing, set_to(status=500), nothing),
    }


def measure(args: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """A row per case."""
    rows = []
    with server(root) as behind:
        proxy = Proxy(free_port(), behind)
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{proxy.port}"
        for number, (name, (before, middle, late)) in enumerate(cases(proxy).items()):
            proxy.start()
            proxy.delay, proxy.status = 0.0, 0
            place = root / str(number)
            before()
            taken = training(place, args.epochs, args.seconds, middle, late)
            there = missing(place, behind, args.epochs)
            proxy.stop()
            proxy.delay, proxy.status = 0.0, 0
            proxy.start()
            again = training(place, args.epochs, args.seconds, nothing, nothing)
            lost = taken - args.epochs * args.seconds
            row = {"case": name, "seconds": taken, "lost": lost, "lost_per_epoch": lost / args.epochs}
            row |= {"missing_at_the_end": there, "again": again, "missing_then": missing(place, behind, args.epochs)}
            rows.append(row)
            print(json.dumps(row), flush=True)
            proxy.stop()
            time.sleep(6.0)  # for requests that are under way
    return rows


def missing(root: Path, port: int, epochs: int) -> int:
    """Of the metrics on disk, how many the server itself does not have; a run of each folder is there at most once."""
    from trainers.journal import read_metrics

    lacking = 0
    for folder in (root / "p", root / "c"):
        on_disk = {(line.step, name, value) for line in read_metrics(folder) for name, value in line.metrics.items()}
        assert len(on_disk) == epochs * METRICS
        file = folder / "mlflow.json"
        run_id = json.loads(file.read_text())["run_id"] if file.exists() else None
        there = {(m["step"], m["key"], m["value"]) for m in histories(port, run_id)} if run_id else set()
        lacking += len(on_disk - there)
    return lacking


def histories(port: int, run_id: str) -> Iterator[dict[str, Any]]:
    """All values of a run's metrics, by the server's REST interface."""
    for number in range(METRICS):
        asked = f"run_id={run_id}&metric_key=m{number}&max_results=10000"
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/metrics/get-history?{asked}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            for metric in json.load(answer).get("metrics", []):
                yield {"key": metric["key"], "step": int(metric.get("step", 0)), "value": float(metric["value"])}


@contextmanager
def server(root: Path) -> Iterator[int]:
    """A real MLflow server; its port."""
    port = free_port()
    where = ["--backend-store-uri", f"sqlite:///{root}/server.db", "--artifacts-destination", str(root / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *where, "--workers", "1", "--port", str(port)]
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (root / "server.log").open("wb")
    process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True, cwd=root)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((root / "server.log").read_text()[-2000:])
            time.sleep(0.5)
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def answers(url: str) -> bool:
    """Whether a server is up."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a metric was lost."""
    parser = argparse.ArgumentParser(prog="benchmarks.tracking", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=16)
    parser.add_argument("--seconds", type=float, default=0.5, help="of an epoch (default 0.5)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="tracking-") as folder:
        rows = measure(args, Path(folder))
    write(args.out, rows, {"machine": found, "settings": {"epochs": args.epochs, "seconds": args.seconds}})
    return int(any(row["missing_then"] for row in rows))


def write(out: Path, rows: Sequence[dict[str, Any]], record: dict[str, Any]) -> None:
    """Table and figure."""
    columns = ["server", "seconds", "lost per epoch, s", "not there at its end", "the same command, s", "lost"]
    cells = [[r["case"], f"{r['seconds']:.1f}", f"{r['lost_per_epoch']:.3f}"] for r in rows]
    for cell, r in zip(cells, rows, strict=True):
        cell += [r["missing_at_the_end"], f"{r['again']:.1f}", r["missing_then"]]
    epochs, seconds = record["settings"]["epochs"], record["settings"]["seconds"]
    note = f"A training of {epochs} epochs of {seconds} s that only waits, two runs of {METRICS} metrics each."
    most = max(rows, key=lambda row: row["lost_per_epoch"])
    line = [f"at most {most['lost_per_epoch']:.2f} s per epoch ({most['case']})"]
    line.append(f"{sum(row['missing_then'] for row in rows)} metrics lost in {len(rows)} cases")
    flat = [dict(zip(columns, row, strict=True)) for row in cells]
    text = report.table(columns, cells) + f"\n\n{note}"
    found = {**record, "rows": list(rows)}
    report.save_folder(out, "tracking", "Tracking servers that misbehave", text, found, _draw(rows), flat, line)


def _draw(rows: Sequence[dict[str, Any]]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.barh([row["case"] for row in rows], [row["lost_per_epoch"] for row in rows])
        axes.invert_yaxis()
        axes.set(xlabel="seconds lost per epoch", title="What a misbehaving tracking server costs")

    return draw


if __name__ == "__main__":
    sys.exit(main())
