"""What a sweep adds to its trials: share of their time in training steps, and seconds before the first step.

    python -m benchmarks.sweep_share --seconds 60

The same fine-tuning as trials of a one-worker sweep (trained in the Tune function) and as trials of a
nested one (two Ray Train workers each). A trial's time runs from when Tune is handed it to when its outcome
is known; the first step is when the first epoch begins.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import Spread, positive

ROUTES = {"in the Tune function": 1, "nested, two workers": 2}
WANTED = 0.8


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep_share", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=positive, default=60, help="of training per one-worker trial")
    parser.add_argument("--trials", type=positive, default=3, help="per route, one at a time")
    parser.add_argument("--clips", type=positive, default=128, help="clips in the synthetic dataset")
    parser.add_argument("--preset", choices=("tiny", "base"), default="tiny", help="sizes of the backbone")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "sweep-share", help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    found = report.machine("cpu")
    with tempfile.TemporaryDirectory(prefix="sweep-share-") as folder:
        rows = measure(args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "rows": rows}
    title = "What a sweep adds to its trials"
    report.save(args.out, "sweep-share", title, _text(args, rows), record, lambda figure: _draw(figure, rows))
    return 0


def measure(args: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """Per route: share of the trials' time in steps, seconds to the first step.

    Each route has a cluster that is as wide as one trial, so that the trials take turns.
    """
    import ray

    from benchmarks import corpus

    corpus.write_media(root / "data", args.preset, args.clips)
    rows = []
    epochs = 1
    for route, workers in ROUTES.items():
        ray.init(num_cpus=1 if workers == 1 else 1 + workers, include_dashboard=False, log_to_driver=False)
        try:
            if workers == 1:
                (probe,) = _trials(args, root, "probe", workers, epochs=2, trials=1)
                epochs = max(2, round(args.seconds / max(probe["steps"] / 2, 1e-3)))
            found = _trials(args, root, f"route{workers}", workers, epochs, args.trials)
        finally:
            ray.shutdown()
        rows.append(
            {
                "route": route,
                "epochs": epochs,
                "wall_seconds": Spread.of([t["wall"] for t in found]),
                "step_share": Spread.of([t["steps"] / t["wall"] for t in found]),
                "first_step_seconds": Spread.of([t["first_step"] for t in found]),
            }
        )
    return rows


def _trials(
    args: argparse.Namespace, root: Path, name: str, workers: int, epochs: int, trials: int
) -> list[dict[str, float]]:
    """Seconds of every trial of a sweep over seeds."""
    from trainers.journal import logs, read_metrics
    from tuning.config import SweepConfig
    from tuning.sweep import sweep

    config = SweepConfig.model_validate(
        {
            "recipe": "finetune",
            "data": {"media": root / "data"},
            "settings": {
                "epochs": epochs,
                "batch_size": 16,
                "workers": workers,
                "cpus": 1,
                "backbone": {"preset": args.preset},
            },
            "space": {"seed": [1000 * (name == "probe") + seed for seed in range(trials)]},  # no run twice
            "search": {"metric": "loss", "mode": "min"},
        }
    )
    _, outcomes = sweep(name, config, root, root / "runs")
    out = []
    for found in outcomes:
        first = read_metrics(logs(root / "runs" / found.name, "finetune"))[0]
        begun = first.time / 1000 - first.metrics["epoch_seconds"]
        out.append(
            {
                "wall": found.wall_seconds,
                "steps": found.train_seconds,
                "first_step": begun - found.started,
            }
        )
    return out


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    names = ("wall_seconds", "step_share", "first_step_seconds")
    cells = [[row["route"], row["epochs"], *(row[name].text() for name in names)] for row in rows]
    columns = ["route", "epochs", "trial, s", "in steps / trial", "to the first step, s"]
    return (
        f"{args.trials} trials per route, one after the other, one thread per worker, {args.clips} clips, "
        f"preset {args.preset}; median (least-greatest). Epoch time: training steps and their "
        f"data; the rest: start, checkpoints, reports. Wanted: {WANTED:.0%} of a one-worker trial of 60 s in "
        "steps."
        "\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    names = [row["route"] for row in rows]
    first = [row["first_step_seconds"].median for row in rows]
    steps = [row["step_share"].median * row["wall_seconds"].median for row in rows]
    whole = [row["wall_seconds"].median for row in rows]
    rest = [max(0.0, w - f - s) for w, f, s in zip(whole, first, steps, strict=True)]
    left = [0.0] * len(rows)
    for label, values in (("before the first step", first), ("training steps", steps), ("rest", rest)):
        axes.barh(names, values, left=left, label=label)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set(xlabel="seconds of a trial")
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
