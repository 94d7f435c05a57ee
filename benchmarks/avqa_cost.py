"""The question-answering networks: time and peak memory of one training step.

    python -m benchmarks.avqa_cost --preset tiny
    python -m benchmarks.avqa_cost --preset base                        # the paper's sizes, batch 4
    python -m benchmarks.avqa_cost --preset base --networks avst --recovery rmm_avr --device cuda
    python -m benchmarks.avqa_cost --preset base --quick

Preset base: the networks at their papers' sizes, on what the missing-modality paper gives them all
(`common`: 10 steps of VGGish 128 and ResNet-18 512 x 14 x 14) and on what each was published with
(`published`). With a recovery method in front, a step is the whole of Eq. 8: complete, sound taken away,
picture taken away, and the method's own losses. Features are random. On a CPU every training runs in a
process of its own, so that its resident memory is its own; trainings alternate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.avqa_job import COMMON, PUBLISHED, Job
from benchmarks.report import Spread, positive
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options, with defaults filled in."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.avqa_cost", description=about)
    parser.add_argument("--preset", choices=("tiny", "base"), default="tiny", help="sizes of the networks")
    parser.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    parser.add_argument(
        "--recovery", choices=("none", *RECOVERIES), default="none", help="method in front of the network"
    )
    parser.add_argument("--batch-size", type=positive, default=4, help="default 4, the paper's")
    parser.add_argument("--steps", type=positive, default=3, help="measured steps (default 3)")
    parser.add_argument("--warmup", type=positive, default=1, help="steps before those (default 1)")
    parser.add_argument("--repeats", type=positive, default=3, help="measured repetitions (default 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive, help="CPU threads of torch (default: its choice)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    parser.add_argument("--quick", action="store_true", help="common inputs, one step, one repetition")
    parser.add_argument(
        "--isolate", action=argparse.BooleanOptionalAction, help="a process per training (default: on a CPU)"
    )
    args = parser.parse_args(argv)
    if args.quick:
        args.steps = args.repeats = 1
    args.isolate = args.device == "cpu" if args.isolate is None else args.isolate
    if unknown := set(args.networks) - set(NETWORKS):
        parser.error(f"--networks: {', '.join(sorted(unknown))}; choose from {', '.join(NETWORKS)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write JSON, markdown and figure."""
    if argv is None and sys.argv[1:2] == ["--job"]:
        from benchmarks import avqa_training

        print(json.dumps(avqa_training.train(Job(**json.loads(sys.argv[2])))))
        return 0
    args = parse(argv)
    found = report.machine(args.device)
    runs = measure(args)
    rows = summarise(runs)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    record = {"machine": found, "settings": settings, "runs": runs, "summary": rows}
    name = f"avqa-cost-{args.preset}-{args.recovery}-{args.device}" + ("-quick" if args.quick else "")
    title = f"Question-answering networks: cost of a training step, preset {args.preset} ({args.device})"
    report.save(args.out, name, title, _text(args, rows), record, lambda figure: _draw(figure, rows))
    return 0


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """Every network on the common inputs and, at the paper's sizes, on its own where these differ."""
    for network in args.networks:
        for inputs in ("common", "published"):
            if inputs == "published" and (args.quick or args.preset == "tiny" or PUBLISHED[network] == COMMON["base"]):
                continue
            yield Job(
                network,
                args.recovery,
                inputs,  # type: ignore[arg-type]
                args.preset,
                args.batch_size,
                args.warmup,
                args.steps,
                args.device,
                args.threads,
            )


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All trainings, in turn, as often as asked."""
    runs = []
    for repeat in range(args.repeats):
        for job in jobs(args):
            found = _run(job, args.isolate)
            line = f"{job.network:5} {job.inputs:9} {found['step_seconds']:8.3f} s per step"
            print(f"{line}, peak {found['memory']['peak'] / 2**20:8.1f} MiB", file=sys.stderr, flush=True)
            runs.append({"repeat": repeat, "network": job.network, "inputs": job.inputs, **found})
    return runs


def _run(job: Job, isolate: bool) -> dict[str, Any]:
    """One training, in a fresh process or in this one."""
    if not isolate:
        from benchmarks import avqa_training

        return avqa_training.train(job)
    command = [sys.executable, "-m", "benchmarks.avqa_cost", "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per network and inputs."""
    rows = []
    for network, inputs in dict.fromkeys((r["network"], r["inputs"]) for r in runs):
        own = [r for r in runs if (r["network"], r["inputs"]) == (network, inputs)]
        rows.append(
            {
                "network": network,
                "inputs": inputs,
                "trained": own[0]["trained"],
                "step_seconds": Spread.of([r["step_seconds"] for r in own]),
                "peak": Spread.of([r["memory"]["peak"] for r in own]),
                "memory": {k: v for k, v in own[0]["memory"].items() if k != "peak"},
            }
        )
    return rows


def _text(args: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    def cells(row: dict[str, Any]) -> list[str]:
        peak = Spread(*(v / 2**20 for v in vars(row["peak"]).values()))
        memory = [f"{v / 2**20:.1f}" for v in row["memory"].values()]
        millions = f"{row['trained'] / 1e6:.2f}"
        return [row["network"], row["inputs"], millions, row["step_seconds"].text(), peak.text(4), *memory]

    columns = ["network", "inputs", "parameters (M)", "s/step", "peak MiB", *rows[0]["memory"]]
    return (
        f"Batch {args.batch_size}, recovery {args.recovery}, median of {args.steps} steps after "
        f"{args.warmup}, {args.repeats} repetitions (least-greatest). Peak: growth of the process over where "
        "it stood with a small training step done (CPU), or allocated bytes (GPU), the batch with it. The "
        "parts, in MiB, are counted: parameters, gradients, Adam's two moments, what one forward keeps for "
        "backward, the batch.\n\n" + report.table(columns, [cells(row) for row in rows])
    )


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    left, right = figure.subplots(1, 2)
    names = [f"{row['network']}\n{row['inputs']}" for row in rows]
    left.bar(names, [row["step_seconds"].median for row in rows])
    right.bar(names, [row["peak"].median / 2**20 for row in rows])
    left.set(title="seconds per step")
    right.set(title="peak MiB")
    for axes in (left, right):
        axes.tick_params(axis="x", labelsize=6)


if __name__ == "__main__":
    raise SystemExit(main())
