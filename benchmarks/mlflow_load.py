"""MLflow under load: many trials' epochs through our tracking, as a sweep logs them.

    python -m benchmarks.mlflow_load --trials 200 --epochs 50 --metrics 10

Every trial has a run of its own under one parent. Per epoch: the line on disk (what training itself pays),
and its share of the batches to MLflow (what the driver pays, beside the training).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Spread, positive

WANTED = 0.01  # of an epoch of 1 s


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mlflow_load", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trials", type=positive, default=200)
    parser.add_argument("--epochs", type=positive, default=50)
    parser.add_argument("--metrics", type=positive, default=10)
    parser.add_argument("--batch", type=positive, default=5, help="epochs per sync")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="mlflow-load-") as folder:
        row = measure(args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "row": row}
    title = "MLflow under load"
    report.save(args.out, "mlflow-load", title, _text(args, row), record, lambda figure: _draw(figure, row))
    return 0


def measure(args: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Seconds per epoch of one trial, on disk and to MLflow; of opening and closing a run; of reading."""
    from trainers.tracking import Store

    store = Store(root)
    disk: list[float] = []
    sync: list[float] = []
    ends: list[float] = []
    with store.run("sweep", "load", folder=root / "sweep") as parent:
        for trial in range(args.trials):
            begin = time.perf_counter()
            run = store.open(f"{trial:03d}", "load", {"lr": trial}, None, parent, folder=root / f"{trial}")
            opened = time.perf_counter() - begin
            lines, batches = _log(run, args)
            disk.append(lines / args.epochs)
            sync.append(batches / args.epochs)
            begin = time.perf_counter()
            run.close("FINISHED")
            ends.append(opened + time.perf_counter() - begin)
    begin = time.perf_counter()
    place = store.client.get_run(parent.run_id).info.experiment_id
    listed = store.client.search_runs([place], max_results=100, order_by=["metrics.m0 DESC"])
    page = time.perf_counter() - begin
    assert len(listed) == min(100, args.trials + 1)
    whole = [a + b for a, b in zip(disk, sync, strict=True)]
    first, last = whole[: max(1, len(whole) // 10)], whole[-max(1, len(whole) // 10) :]
    return {
        "disk_seconds": Spread.of(disk),
        "mlflow_seconds": Spread.of(sync),
        "epoch_seconds": Spread.of(whole),
        "growth": sum(last) / len(last) / (sum(first) / len(first)),
        "run_seconds": Spread.of(ends),
        "page_seconds": page,
        "trials": whole,
        "store_mb": (root / "mlflow.db").stat().st_size / 2**20,
    }


def _log(run: Any, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds for all epochs of one trial: lines to the disk, batches to MLflow."""
    lines = batches = 0.0
    for epoch in range(1, args.epochs + 1):
        values = {f"m{number}": epoch / (number + 1) for number in range(args.metrics)}
        begin = time.perf_counter()
        run.log(epoch, values)
        lines += time.perf_counter() - begin
        if epoch % args.batch == 0 or epoch == args.epochs:
            begin = time.perf_counter()
            run.sync()
            batches += time.perf_counter() - begin
    return lines, batches


def _text(args: argparse.Namespace, row: dict[str, Any]) -> str:
    names = ("disk_seconds", "mlflow_seconds", "epoch_seconds", "run_seconds")
    cells = [[*(row[name].text() for name in names), f"{row['growth']:.2f}", f"{row['page_seconds']:.2f}"]]
    columns = ["disk, s/epoch", "MLflow, s/epoch", "both, s/epoch", "open + close, s/run"]
    columns += ["last tenth / first", "100 runs listed, s"]
    share = row["epoch_seconds"].median
    return (
        f"{args.trials} trials x {args.epochs} epochs x {args.metrics} metrics, one batch per {args.batch} "
        f"epochs, SQLite store ({row['store_mb']:.0f} MiB at the end); median over trials (least-greatest). "
        f"Logging takes {share:.2%} of an epoch of 1 s; wanted: below {WANTED:.0%}.\n\n"
        + report.table(columns, cells)
    )


def _draw(figure: Any, row: dict[str, Any]) -> None:
    axes = figure.subplots()
    axes.plot([1000 * seconds for seconds in row["trials"]])
    axes.axhline(1000 * WANTED, color="k", linestyle=":", label="1 % of a 1 s epoch")
    axes.set(xlabel="trial", ylabel="logging, ms per epoch", ylim=(0, None))
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
