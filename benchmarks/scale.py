"""Time and memory of planning, resuming, opening, an epoch's order and verifying, as the number of clips grows.

    python -m benchmarks.scale --rows 100000 1000000 --large 10000000

Clips are tiny and drawn (`benchmarks.scale_corpus`): what is measured is the bookkeeping. Every step runs in a process
of its own; memory is what it adds to the imported modules, *own* without the pages of mapped files, which all processes
share. What was measured of earlier versions (`EARLIER`) stays in the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from benchmarks import report
from benchmarks.report import RESULTS, positive

ROOT = Path(__file__).resolve().parent.parent
TRAINED = 0.9 * 0.99  # of the clips, samples of the train split, which is opened
EVERY = 0.005  # seconds between two looks at a step's memory
EARLIER = RESULTS / "scale" / "earlier.csv"
Steps = dict[str, tuple[str, tuple[str, ...]]]
STEPS: Steps = {  # name of the step to the one in `benchmarks.scale_step`, and to those that prepare it
    "plan": ("plan", ("manifest_rows",)),
    "assemble": ("ingest", ("draw",)),
    "nothing to do": ("ingest", ()),
    "one row added": ("ingest", ("add_row",)),
    "open": ("open_split", ()),
    "epoch order": ("epoch", ()),
    "training process": ("train", ()),
    "loader process": ("loader", ()),
    "verify": ("verify", ()),
}
LARGE: Steps = {name: step for name, step in STEPS.items() if name != "verify"}  # shards of so many are holes
NOTE = (
    "*s*: of the processor. Memory is what a step adds to the imported modules: *peak* with the pages of mapped files, "
    "*own* without them, *held* of its own in the end. Beyond a million clips shards are holes. "
    "Versions *0* (before metadata became columns) and *1* were measured on clips of which all fail; their *own* is "
    "what was private in the end."
)
FAILS = "ingest, all fail"  # in a folder of its own: each clip is asked for, and is not there


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=positive, nargs="*", default=[20_000, 100_000], help="numbers of clips")
    parser.add_argument("--large", type=positive, nargs="*", default=[], help="others, not verified")
    parser.add_argument("--failing", type=positive, nargs="*", default=[20_000], help="numbers of clips that all fail")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the files."""
    args = parse(argv)
    rows = [found for count in args.rows for found in measure(count, STEPS)]
    rows += [found for count in args.large for found in measure(count, LARGE)]
    rows += [found for count in args.failing for found in failing(count)]
    with EARLIER.open(newline="") as file:
        earlier = [_read(row) for row in csv.DictReader(file)]
    record = {"machine": report.machine("cpu"), "rows": rows, "earlier": earlier}
    text = page(rows, earlier)
    most = max(row["rows"] for row in rows)
    line = ["; ".join(f"{r['step']} {r['rows']:,}: {r['processor']:.1f} s" for r in rows if r["rows"] == most)]
    report.save_folder(args.out, "scale", "Scale", text, record, lambda figure: draw(figure, rows), rows, line)
    return 0


def measure(count: int, steps: Steps) -> Iterator[dict[str, Any]]:
    """The steps at one size."""
    with TemporaryDirectory(prefix="scale-") as folder:
        for name, (step, before) in steps.items():
            for other in before:
                run(other, Path(folder), count)
            yield {"step": name, "rows": count, **run(step, Path(folder), count)}


def failing(count: int) -> Iterator[dict[str, Any]]:
    """Clips of which none can be had."""
    with TemporaryDirectory(prefix="scale-") as folder:
        run("manifest_rows", Path(folder), count)
        yield {"step": FAILS, "rows": count, **run("ingest", Path(folder), count)}


def run(step: str, folder: Path, count: int) -> dict[str, float]:
    """One step in a process of its own: seconds, of the processor, and MB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scale_step", step, str(folder), str(count)]
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        begun = json.loads(process.stdout.readline() or "{}")
        own = _watched(process, begun.get("process", process.pid))
        found = json.loads(process.stdout.readline() or "{}")
        if process.wait() or not found:
            errors.seek(0)
            raise SystemExit(f"error: {step} of {count} rows:\n{errors.read()}")
    copied = found.pop("private_mb")
    if step == "loader":  # what it does not share with the process that it was forked from
        own = found["held_mb"] = copied
    found["own_mb"] = own
    print(f"{count:,} {step}: {found}", file=sys.stderr, flush=True)
    return found


def _watched(process: subprocess.Popen[str], of: int) -> float:
    """MB of memory of its own that a process came to hold at most, until it says that the step ended."""
    first = most = _own(of)
    assert process.stdout is not None
    while not select.select([process.stdout], [], [], EVERY)[0]:
        most = max(most, _own(of))
    return most - first


def _own(process: int) -> float:
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    except OSError:
        return 0.0
    return int(fields.get("RssAnon", "0").split()[0]) / 1024


def _read(row: dict[str, str]) -> dict[str, Any]:
    numbers = {name: float(row[name]) for name in ("processor", "peak_mb", "own_mb")}
    return {**row, **numbers, "rows": int(row["rows"])}


def page(rows: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]]) -> str:
    """What the report says."""
    return f"{table(rows, earlier)}\n\n{NOTE}\n\n{growth(rows)}"


def table(rows: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]]) -> str:
    """A line per step and size; then a line per step and size of earlier versions."""
    columns = ["step", "clips", "version", "s", "us a clip", "peak MB", "own MB", "held MB"]
    cells = []
    for step in dict.fromkeys(row["step"] for row in (*rows, *earlier)):
        own = [{**row, "version": "now"} for row in rows]
        found = [row for row in (*earlier, *own) if row["step"] == step]
        for row in sorted(found, key=lambda row: (row["rows"], row["version"] == "now")):
            cells.append([step, f"{row['rows']:,}", row["version"], *figures(row)])
    return report.table(columns, cells)


def figures(row: dict[str, Any]) -> tuple[str, ...]:
    """Seconds of the processor, memory at the peak with mapped pages and of its own, and of its own in the end, MB."""
    each = 1e6 * row["processor"] / row["rows"]
    memory = (f"{row[name]:.0f}" if row.get(name) is not None else "" for name in ("peak_mb", "own_mb", "held_mb"))
    return f"{row['processor']:.2f}", f"{each:.2f}", *memory


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """By step, bytes of a process's own memory per further clip, and the exponent of time.

    Of a tenth of a second or less the exponent says little.
    """
    lines = []
    for step in dict.fromkeys(row["step"] for row in rows):
        first, last = ends(rows, step)
        if last["rows"] > first["rows"]:
            peak = further(rows, step, "own_mb")
            power = math.log(last["processor"] / first["processor"]) / math.log(last["rows"] / first["rows"])
            lines.append(f"{step}: {peak:.1f} bytes of its own a further clip at the peak, time as n^{power:.2f}")
    return "\n".join(f"- {line}" for line in lines)


def ends(rows: Sequence[dict[str, Any]], step: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A step at its smallest and at its greatest size."""
    found = sorted((row for row in rows if row["step"] == step), key=lambda row: row["rows"])
    return found[0], found[-1]


def further(rows: Sequence[dict[str, Any]], step: str, memory: str) -> float:
    """Bytes per further clip, between the smallest and the greatest size."""
    first, last = ends(rows, step)
    return (last[memory] - first[memory]) * 2**20 / (last["rows"] - first["rows"])


def draw(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Memory of its own by number of clips, and time, a line per step."""
    left, right = figure.subplots(1, 2)
    for step in dict.fromkeys(row["step"] for row in rows):
        found = [row for row in rows if row["step"] == step]
        left.plot([r["rows"] for r in found], [max(r["own_mb"], 0.1) for r in found], "o-", label=step)
        right.plot([r["rows"] for r in found], [r["processor"] for r in found], "o-", label=step)
    left.set(xscale="log", yscale="log", xlabel="clips", ylabel="own MB at the peak")
    right.set(xscale="log", yscale="log", xlabel="clips", ylabel="s of the processor")
    figure.legend(*right.get_legend_handles_labels(), fontsize="small", loc="outside right center")


if __name__ == "__main__":
    raise SystemExit(main())
