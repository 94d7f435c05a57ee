"""Prompts, LoRA and adapters against full fine-tuning: time per epoch and peak memory, at every depth k.

    python -m benchmarks.cost --preset tiny
    python -m benchmarks.cost --preset base --quick          # minutes on two cores
    python -m benchmarks.cost --preset base --device cuda

Each figure comes from the project's own loop on real shards. On a CPU every training runs in a process of its
own, so that its resident memory is its own. Trainings alternate: at each depth, fine-tuning runs beside the
methods that are compared with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import flops, report
from benchmarks.cost_job import DRAWS, SIZES, Job
from benchmarks.report import Spread, positive
from models.settings import BACKBONES

METHODS = ("prompt", "lora", "adapter")
DEFAULTS = {  # clips, batch size
    ("tiny", "cpu"): (128, 32),
    ("base", "cpu"): (8, 2),
    ("tiny", "cuda"): (1024, 64),
    ("base", "cuda"): (256, 32),
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options, with defaults that fit preset and device filled in."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    report.common_arguments(parser)
    parser.add_argument("--batch-size", type=positive)
    parser.add_argument("--epochs", type=positive, default=2, help="measured epochs of a training (default 2)")
    parser.add_argument("--warmup", type=int, default=1, help="epochs before those (default 1)")
    parser.add_argument("--loaders", type=int, default=0, help="loader processes (default 0)")
    parser.add_argument("--length", type=positive, default=4, help="prompt tokens (default 4)")
    parser.add_argument("--depths", type=lambda text: [int(k) for k in text.split(",")], help="such as 0,5,10")
    parser.add_argument("--methods", type=lambda text: tuple(text.split(",")), default=METHODS)
    parser.add_argument("--quick", action="store_true", help="first and last depth, one epoch, one repetition")
    parser.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction, help="a process per training (default: on a CPU)"
    )
    args = parser.parse_args(argv)
    deepest = BACKBONES[args.preset].depth - 1
    clips, batch = DEFAULTS[args.preset, args.device]
    if args.quick:
        clips = 2 * batch
        args.epochs, args.warmup, args.repeats = 1, 0, 1
    args.batch_size = args.batch_size or batch
    args.clips = args.clips or max(clips, 2 * args.batch_size)
    args.depths = args.depths or ([0, deepest] if args.quick else list(range(deepest + 1)))
    args.isolate = args.device == "cpu" if args.isolate is None else args.isolate
    if args.clips < 2 * args.batch_size:
        parser.error("--clips: two batches at least, since the optimizer's state is there from the second on")
    if not all(0 <= k <= deepest for k in args.depths):
        parser.error(f"--depths: blocks of '{args.preset}' are 0..{deepest}")
    if unknown := set(args.methods) - set(METHODS):
        parser.error(f"--methods: {', '.join(sorted(unknown))}; choose from {', '.join(METHODS)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    if argv is None and sys.argv[1:2] == ["--job"]:
        return _child(sys.argv[2])
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        work = {"folder": folder, **{k: getattr(args, k) for k in ("preset", "clips", "depths", "device")}}
        found = report.machine(args.device)
        made = _run("prepare", work, args.isolate)
        runs = measure(args, Path(folder))
    record = {"machine": found, "settings": _settings(args), "features": made, "runs": runs}
    rows = summarise(args, runs)
    record["summary"] = rows
    name = f"cost-{args.preset}-{args.device}" + ("-quick" if args.quick else "")
    title = f"Cost of training on preset {args.preset} ({args.device})"
    report.save(args.out, name, title, _text(args, rows, made), record, lambda figure: _draw(figure, rows))
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {k: v for k, v in vars(args).items() if k != "out"}


def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All trainings, in the order FT, prompt, LoRA, adapter per depth and repetition."""
    runs = []
    for repeat in range(args.repeats):
        for depth in args.depths:
            for method in ("finetune", *args.methods):
                found = _run("train", asdict(Job.of(args, folder, method, depth)), args.isolate)
                print(_line(method, depth, found), file=sys.stderr, flush=True)
                runs.append({"repeat": repeat, "depth": depth, "method": method, **found})
    return runs


def _line(method: str, depth: int, found: dict[str, Any]) -> str:
    mib, seconds = found["memory"]["peak"] / 2**20, found["epoch_seconds"]
    return f"{method:8} k={depth:<2} {seconds:8.3f} s per epoch, peak {mib:8.1f} MiB"


def _run(what: str, values: dict[str, Any], isolate: bool) -> Any:
    """A piece of work, in a fresh process or in this one."""
    from benchmarks import training

    text = json.dumps([what, values])
    if not isolate:
        return training.WORK[what](values)
    command = [sys.executable, "-m", "benchmarks.cost", "--job", text]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _child(text: str) -> int:
    from benchmarks import training

    what, values = json.loads(text)
    print(json.dumps(training.WORK[what](values)))
    return 0


def summarise(args: argparse.Namespace, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per method and depth; ratios are to the fine-tuning of the same depth's round."""
    config, classes = BACKBONES[args.preset], runs[0]["classes"]
    whole = flops.step("finetune", config, classes)
    rows = [_row("finetune", None, [r for r in runs if r["method"] == "finetune"], None, whole, whole)]
    for method in args.methods:
        size = args.length if method == "prompt" else SIZES[method]
        for depth in args.depths:
            own, other = ([r for r in runs if r["method"] == m and r["depth"] == depth] for m in (method, "finetune"))
            count = flops.step(method, config, classes, depth, size)
            rows.append(_row(method, depth, own, other, count, whole))
    return rows


def _row(method, depth, own, other, count: float, whole: float) -> dict[str, Any]:
    def values(runs: list[dict[str, Any]], name: str) -> list[float]:
        return [r["memory"][name] if name in r["memory"] else r[name] for r in runs]

    row = {"method": method, "depth": depth, "gflops": count / 1e9, "flops_ratio": count / whole}
    for name in ("epoch_seconds", "wait_share", "peak"):
        row[name] = Spread.of(values(own, name))
        if other is not None and name != "wait_share":
            row[f"{name}_ratio"] = report.ratios(values(own, name), values(other, name))
    parts = ("parameters", "gradients", "optimizer", "activations", "inputs")
    return row | {"trained": own[0]["trained"], "memory": {p: own[0]["memory"][p] for p in parts}}


def _text(args: argparse.Namespace, rows: list[dict[str, Any]], made: dict[str, Any]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        memory = [f"{row['memory'][p] / 2**20:.1f}" for p in row["memory"]]
        mib = Spread(*(v / 2**20 for v in vars(row["peak"]).values()))
        gain = row.get("epoch_seconds_ratio"), row.get("peak_ratio")
        return [
            row["method"],
            "-" if row["depth"] is None else str(row["depth"]),
            f"{row['trained'] / 1e3:.1f}",
            row["epoch_seconds"].text(),
            gain[0].text() if gain[0] else "1",
            f"{row['flops_ratio']:.3f}",
            f"{row['gflops']:.4g}",
            f"{row['wait_share'].median:.0%}",
            mib.text(4),
            gain[1].text() if gain[1] else "1",
            *memory,
        ]

    columns = ["method", "k", "trained (k)", "s/epoch", "time / FT", "FLOPs / FT", "GFLOP/sample", "waiting"]
    columns += ["peak MiB", "memory / FT", "parameters", "gradients", "optimizer", "activations", "inputs"]
    stored = ", ".join(f"k={k}: {v['seconds']:.2f} s" for k, v in made.items())
    return (
        f"{args.clips} clips, batch {args.batch_size}, {args.epochs} measured epochs after {args.warmup}, "
        f"{args.repeats} repetitions, median (least-greatest); ratios pair by pair within a round. One epoch "
        "of a case-wise method trains one case. Peak: growth of the process over where it stood with a small "
        "training step done, so that libraries don't count (CPU), or allocated bytes (GPU). The parts, in "
        "MiB, are counted: parameters and inputs that are there, gradients and AdamW's two moments of what "
        "trains, and the tensors that one batch's forward keeps for backward; what the peak has beyond them "
        "is temporary. GFLOP/sample: by formula (`benchmarks/flops.py`), forward and backward.\n\n"
        + report.table(columns, [cells(row) for row in rows])
        + f"\n\nOnce per depth, the extraction of {2 * DRAWS + 1} variants of all clips: {stored}."
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name, title in ((left, "epoch_seconds_ratio", "time"), (right, "peak_ratio", "peak memory")):
        for method in dict.fromkeys(row["method"] for row in rows[1:]):
            own = [row for row in rows if row["method"] == method]
            middle = [row[name].median for row in own]
            error = [
                [row[name].median - row[name].low for row in own],
                [row[name].high - row[name].median for row in own],
            ]
            axes.errorbar([row["depth"] for row in own], middle, error, marker="o", capsize=3, label=method)
        axes.axhline(1, color="grey", linewidth=0.8)
        axes.axhline(0.25, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xlabel="first live block k", title=f"{title} / full fine-tuning", ylim=(0, None))
    own = [row for row in rows if row["method"] == "prompt"]
    left.plot([row["depth"] for row in own], [row["flops_ratio"] for row in own], "k--", label="prompt, by FLOPs")
    left.legend()


if __name__ == "__main__":
    raise SystemExit(main())
