"""MLflow under load: many trials' epochs through our tracking, as a sweep logs them; then who reads them.

    python -m benchmarks.mlflow_load --trials 200 --epochs 50 --metrics 10

Every trial has a run of its own under one parent. Per epoch: the line on disk (what training itself pays),
and its share of the batches to MLflow (what the driver pays, beside the training). Then, on that store: a
real server's REST search of runs, as the UI's runs page asks, and the report, if this version has one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
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
from benchmarks.report import Spread, positive

WANTED = 0.01  # of an epoch of 1 s
NAME = "load-" + "0" * 12  # of the sweep's folder
PAGE = 100  # runs that the UI asks for at once
REPEATS = 5  # of every request
METRIC = "val_accuracy"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mlflow_load", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=positive, default=200)
    parser.add_argument("--epochs", type=positive, default=50)
    parser.add_argument("--metrics", type=positive, default=10)
    parser.add_argument("--batch", type=positive, default=5, help="epochs per sync")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "mlflow-load", help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="mlflow-load-") as folder:
        row = measure(args, Path(folder)) | reading(Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "row": row}
    title = "MLflow under load"
    report.save(args.out, "mlflow-load", title, _text(args, row), record, lambda figure: _draw(figure, row))
    return 0


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Seconds per epoch of one trial, on disk and to MLflow; of opening and closing a run."""
    from trainers.tracking import Store

    store, out = Store(root), root / NAME
    disk: list[float] = []
    sync: list[float] = []
    ends: list[float] = []
    with store.run(NAME, "sweep-load", {"sweep": "load"}, folder=out) as parent:
        _write_record(out, args)
        for trial in range(args.trials):
            place = out / "trials" / f"{trial:03d}-finetune-{trial:012x}"
            begin = time.perf_counter()
            params = {"recipe": "finetune", "lr": _lr(trial)}
            run = store.open(f"{trial:03d} lr={trial}", "sweep-load", params, None, parent, folder=place)
            opened = time.perf_counter() - begin
            lines, batches = _log(run, args)
            disk.append(lines / args.epochs)
            sync.append(batches / args.epochs)
            begin = time.perf_counter()
            _keep_outcome(place, trial, args)
            run.summary({f"best/{METRIC}": 1.0, "trained": 100.0})
            run.close("FINISHED")
            ends.append(opened + time.perf_counter() - begin)
    whole = [a + b for a, b in zip(disk, sync, strict=True)]
    first, last = whole[: max(1, len(whole) // 10)], whole[-max(1, len(whole) // 10) :]
    return {
        "disk_seconds": Spread.of(disk),
        "mlflow_seconds": Spread.of(sync),
        "epoch_seconds": Spread.of(whole),
        "growth": sum(last) / len(last) / (sum(first) / len(first)),
        "run_seconds": Spread.of(ends),
        "trials": whole,
        "store_mb": (root / "mlflow.db").stat().st_size / 2**20,
    }


def _lr(trial: int) -> float:
    return (trial + 1) * 1e-4


def _write_record(out: Path, args: argparse.Namespace) -> None:
    """The sweep's record as `tuning.sweep` leaves it: a grid over the learning rate."""
    from configs import config_to_dict
    from tuning.config import SweepConfig
    from tuning.sweep import RECORD

    space = {"lr": [_lr(trial) for trial in range(args.trials)]}
    config = SweepConfig.model_validate({"recipe": "finetune", "data": {"media": out}, "space": space})
    record = {"name": "load", "commit": "", "config": config_to_dict(config)}
    (out / RECORD).write_text(json.dumps(record))


def _keep_outcome(place: Path, trial: int, args: argparse.Namespace) -> None:
    from tuning.trial_result import Outcome, save_outcome

    curve = tuple(_value(epoch, 0) for epoch in range(1, args.epochs + 1))
    found = Outcome(
        number=trial,
        name=place.name.partition("-")[2],
        params={"lr": _lr(trial)},
        seed=0,
        status="finished",
        epochs=args.epochs,
        metrics={METRIC: curve[-1], f"best/{METRIC}": max(curve)},
        trained=100,
        epoch_seconds=1.0,
        train_seconds=float(args.epochs),
        peak_memory_mb=100.0,
        curve=curve,
    )
    save_outcome(place, found)


def _value(epoch: int, number: int) -> float:
    return 1 - 1 / (epoch + number + 1)


def _log(run: Any, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds for all epochs of one trial: lines to the disk, batches to MLflow."""
    lines = batches = 0.0
    names = [METRIC, *(f"m{number}" for number in range(1, args.metrics))]
    for epoch in range(1, args.epochs + 1):
        values = {name: _value(epoch, number) for number, name in enumerate(names)}
        begin = time.perf_counter()
        run.log(epoch, values)
        lines += time.perf_counter() - begin
        if epoch % args.batch == 0 or epoch == args.epochs:
            begin = time.perf_counter()
            run.sync()
            batches += time.perf_counter() - begin
    return lines, batches


def reading(root: Path) -> dict[str, Any]:
    """Seconds of what the UI asks a server on this store for, and of the report (None: there is none)."""
    with _server(root) as ask:
        (place,) = [
            e["experiment_id"]
            for e in ask("experiments/search", {"max_results": 100})["experiments"]
            if e["name"] == "sweep-load"
        ]
        page = {
            "experiment_ids": [place],
            "max_results": PAGE,
            "order_by": [f"metrics.`{METRIC}` DESC"],
        }
        runs = ask("runs/search", page)["runs"]
        one = f"metrics/get-history?run_id={runs[0]['info']['run_id']}&metric_key={METRIC}"
        assert ask(one)["metrics"]
        out: dict[str, Any] = {
            "listed": len(runs),
            "search_seconds": _timed(lambda: ask("runs/search", page)),
            "history_seconds": _timed(lambda: ask(one)),
        }
    return {**out, "report_seconds": _report_seconds(root)}


def _timed(action: Callable[[], Any]) -> Spread:
    taken = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return Spread.of(taken)


@contextmanager
def _server(root: Path) -> Iterator[Callable[..., Any]]:
    """A server as `avmend ui` starts it; called with a path and what to post, it answers as REST does."""
    from trainers.ui import ui_command

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, variables = ui_command(root, port)
    env = {**os.environ, **variables, "MLFLOW_DISABLE_TELEMETRY": "true"}
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    log = (root / "server.log").open("wb")
    server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True, cwd=root)

    def ask(path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield ask
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        log.close()


def _wait(url: str, server: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the MLflow server did not start") from None
            time.sleep(0.2)


def _report_seconds(root: Path) -> float:
    """Seconds of `avmend report` on the whole store, its start included."""
    command = ["-m", "tuning.report", "--runs", str(root), "--out", str(root / "report.html")]
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, cwd=report.RESULTS.parent.parent)
    return time.perf_counter() - begin


def _text(args: argparse.Namespace, row: dict[str, Any]) -> str:
    names = ("disk_seconds", "mlflow_seconds", "epoch_seconds", "run_seconds")
    written = [[*(row[name].text() for name in names), f"{row['growth']:.2f}"]]
    columns = ["disk, s/epoch", "MLflow, s/epoch", "both, s/epoch", "open + close, s/run"]
    read = [[row["search_seconds"].text(), row["history_seconds"].text(), f"{row['report_seconds']:.1f}"]]
    share = row["epoch_seconds"].median
    return (
        f"{args.trials} trials x {args.epochs} epochs x {args.metrics} metrics, one batch per {args.batch} "
        f"epochs, SQLite store ({row['store_mb']:.0f} MiB at the end); median over trials (least-greatest). "
        f"Logging takes {share:.2%} of an epoch of 1 s; wanted: below {WANTED:.0%}.\n\n"
        + report.table([*columns, "last tenth / first"], written)
        + f"\n\nOn that store, asked of a server as `avmend ui` starts it ({REPEATS} times each); the report "
        "with its start.\n\n"
        + report.table([f"{row['listed']} runs by {METRIC}, s", "a curve, s", "avmend report, s"], read)
    )


def _draw(figure: Any, row: dict[str, Any]) -> None:
    axes = figure.subplots()
    axes.plot([1000 * seconds for seconds in row["trials"]])
    axes.axhline(1000 * WANTED, color="k", linestyle=":", label="1 % of a 1 s epoch")
    axes.set(xlabel="trial", ylabel="logging, ms per epoch", ylim=(0, None))
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
