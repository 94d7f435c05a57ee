"""The training loop's own share: its epochs against bare forward, backward and step on the same tensors.

    python -m benchmarks.loop --preset tiny

Bare: a loop of three lines over batches that are ready. The loop besides reads, collates, augments, clips,
checks the loss and counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.cost import DEFAULTS
from benchmarks.cost_job import Job
from benchmarks.report import Spread, positive
from benchmarks.training import Enough, prepare, train_config
from models.batch import AVBatch
from models.settings import BACKBONES
from trainers.config import TrainConfig
from trainers.data import batches, epoch_order
from trainers.loop import Rank, Stage, arithmetic, train_stage
from trainers.recipes import recipe_of


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__.splitlines()[0])
    report.common_arguments(parser)
    parser.add_argument("--batch-size", type=positive)
    parser.add_argument("--loaders", type=int, default=0, help="loader processes (default 0)")
    args = parser.parse_args(argv)
    clips, batch = DEFAULTS[args.preset, args.device]
    args.batch_size = args.batch_size or batch
    args.clips = args.clips or max(clips, 2 * args.batch_size)
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    args = parse(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    found = report.machine(args.device)
    with tempfile.TemporaryDirectory(prefix="loop-") as folder:
        rows = measure(args, Path(folder))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "rows": rows}
    name, title = f"loop-{args.preset}-{args.device}", f"The loop's own time, preset {args.preset}"
    report.save(args.out, name, title, _text(args, rows), record, lambda figure: _draw(figure, rows))
    return 0


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Per training: seconds of an epoch in the loop and bare, alternating."""
    deepest = BACKBONES[args.preset].depth - 1
    depths = sorted({0, deepest})
    prepare({"folder": folder, "depths": depths, **{k: getattr(args, k) for k in ("preset", "clips", "device")}})
    place = Rank(torch.device(args.device))
    rows = []
    for method, depth in [("finetune", 0), *(("prompt", k) for k in depths)]:
        config = train_config(Job.of(args, folder, method, depth, warmup=0, epochs=1, length=4))
        rows.append(
            {"method": method, "depth": depth, **_measure(recipe_of(config).stages(config)[0], config, place, args)}
        )
    return rows


def _measure(stage: Stage, config: TrainConfig, place: Rank, args: argparse.Namespace) -> dict[str, Any]:
    waits: list[float] = []
    ways = {"loop": lambda: _loop(stage, config, place, waits), "bare": _bare(stage, config, place)}
    taken = report.alternate(ways, args.repeats)
    waited = waits[1:]  # the first one warmed up
    rest = [a - b - w for a, b, w in zip(taken["loop"], taken["bare"], waited, strict=True)]
    return {
        "loop_seconds": Spread.of(taken["loop"]),
        "bare_seconds": Spread.of(taken["bare"]),
        "bare_share": report.ratios(taken["bare"], taken["loop"]),
        "wait_share": report.ratios(waited, taken["loop"]),
        "rest_share": report.ratios(rest, taken["loop"]),
    }


def _loop(stage: Stage, config: TrainConfig, place: Rank, waits: list[float]) -> float:
    """Seconds of one epoch in `trainers.loop.train_stage`."""
    seconds = 0.0

    def record(_: str, epoch: int, metrics: dict[str, float]) -> None:
        nonlocal seconds
        seconds = metrics["epoch_seconds"]
        waits.append(metrics["data_wait_seconds"])
        raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        train_stage(stage, config, place, Path(folder), record)
    return seconds


def _bare(stage: Stage, config: TrainConfig, place: Rank) -> Callable[[], float]:
    """Seconds of forward, backward and AdamW over the same batches, all of them in memory before."""
    order = epoch_order(stage.train.ids, config.seed, 0)
    loaded = batches(stage.train, order, config.batch_size, 0, drop_last=True)
    ready: list[AVBatch] = [batch.to(place.device) for batch in loaded]
    objective = stage.objective.to(place.device).train()
    trained = [p for p in objective.parameters() if p.requires_grad]

    def run() -> float:
        objective.train()
        optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
        _synchronise(place)
        start = time.perf_counter()
        for batch in ready:
            with arithmetic(config, place.device):
                loss = objective(batch).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        _synchronise(place)
        return time.perf_counter() - start

    return run


def _synchronise(place: Rank) -> None:
    if place.device.type == "cuda":
        torch.cuda.synchronize()


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    names = ("loop_seconds", "bare_seconds", "bare_share", "wait_share", "rest_share")
    cells = [[r["method"], r["depth"], *(r[name].text() for name in names)] for r in rows]
    columns = ["training", "k", "loop, s", "bare, s", "bare / loop", "waiting / loop", "rest / loop"]
    return (
        f"{args.clips} clips, batch {args.batch_size}, {args.loaders} loader processes, one epoch, "
        f"{args.repeats} repetitions in turn, median (least-greatest). Waiting: until a batch is read and "
        "collated; rest: augmentation, clipping, copies to the device, counting. Wanted: bare / loop of 0.9 "
        "or more.\n\n" + report.table(columns, cells)
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    names = [f"{r['method']} k={r['depth']}" for r in rows]
    below = [0.0] * len(rows)
    for share, label in (
        ("bare_share", "network"),
        ("wait_share", "waiting for data"),
        ("rest_share", "rest"),
    ):
        values = [max(0.0, r[share].median) for r in rows]
        axes.barh(names, values, left=below, label=label)
        below = [a + b for a, b in zip(below, values, strict=True)]
    axes.set(xlabel="share of the loop's time")
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
