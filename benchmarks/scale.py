"""Time and memory of planning, resuming, opening and verifying, as the number of clips grows; before and after.

    python -m benchmarks.scale --rows 100000 1000000 --before CHECKOUT

Clips are tiny and drawn; all but one of those that are planned do not exist, so that what is measured is the
bookkeeping. Every step runs in a process of its own; memory is what it adds to the imported modules.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.report import positive

ROOT = Path(__file__).resolve().parent.parent
STEPS = {  # name of the step here, in `benchmarks.scale_step`, and whether it prepares the next one only
    "ingest all": ("ingest", ("manifest_rows",)),
    "nothing to do": ("ingest", ()),
    "one row added": ("ingest", ("add_row",)),
    "open": ("open_split", ("draw", "tables")),
    "epoch order": ("epoch", ()),
    "verify": ("verify", ()),
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=positive, nargs="+", default=[20_000, 100_000], help="numbers of clips")
    parser.add_argument("--before", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="which (default: all)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="where the files go")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the files."""
    args = parse(argv)
    checkouts = {"after": ROOT} | ({"before": args.before.resolve()} if args.before else {})
    rows = [
        {"version": version, "rows": count, **found}
        for count in args.rows
        for version, checkout in checkouts.items()
        for found in measure(checkout, count, args.steps)
    ]
    record = {"machine": report.machine("cpu"), "rows": rows}
    text = table(rows)
    line = ["; ".join(f"{r['step']} {r['rows']:,}: {r['processor']:.1f} s" for r in rows if r["version"] == "after")]
    report.save_folder(args.out, "scale", "Scale", text, record, lambda figure: draw(figure, rows), rows, line)
    return 0


def measure(checkout: Path, count: int, steps: Sequence[str]) -> list[dict[str, Any]]:
    """The steps at one size, on one checkout."""
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    found = []
    try:
        for name in steps:
            step, before = STEPS[name]
            for other in before:
                run(checkout, other, folder / ("data" if other in ("draw", "tables") else "plan"), count)
            where = "plan" if step == "ingest" else "data"
            found.append({"step": name, **run(checkout, step, folder / where, count)})
            print(f"{checkout.name} {count:,} {name}: {found[-1]}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    return found


def run(checkout: Path, step: str, folder: Path, count: int) -> dict[str, float]:
    """One step in a process of its own."""
    folder.mkdir(exist_ok=True)
    program = Path(__file__).resolve().with_name("scale_step.py")
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(program), step, str(folder), str(count)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {step} of {count} rows on {checkout}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per step and size, and how time and memory grow with the size (exponents of a fit)."""
    versions = list(dict.fromkeys(row["version"] for row in rows))
    columns = ["step", "clips", *(f"{v}: {what}" for v in versions for what in ("s", "peak MB", "own MB"))]
    cells = []
    for step in dict.fromkeys(row["step"] for row in rows):
        for count in dict.fromkeys(row["rows"] for row in rows):
            found = {row["version"]: row for row in rows if (row["step"], row["rows"]) == (step, count)}
            values = [figures(found[v]) if v in found else ("", "", "") for v in versions]
            cells.append([step, f"{count:,}", *(cell for value in values for cell in value)])
    return report.table(columns, cells) + "\n\n" + growth(rows)


def figures(row: dict[str, Any]) -> tuple[str, str, str]:
    """Seconds of processor, peak and private MB that a step added."""
    return f"{row['processor']:.2f}", f"{row['peak_mb']:.0f}", f"{row['private_mb']:.0f}"


def growth(rows: Sequence[dict[str, Any]]) -> str:
    """Bytes of peak memory per clip between the smallest and the greatest size."""
    lines = []
    for version in dict.fromkeys(row["version"] for row in rows):
        for step in dict.fromkeys(row["step"] for row in rows):
            found = sorted(
                (row["rows"], row["peak_mb"], row["processor"])
                for row in rows
                if (row["version"], row["step"]) == (version, step)
            )
            (n0, m0, t0), (n1, m1, t1) = found[0], found[-1]
            if n1 > n0:
                slope = (m1 - m0) * 2**20 / (n1 - n0)
                power = math.log(max(t1, 1e-3) / max(t0, 1e-3)) / math.log(n1 / n0)
                lines.append(f"{version}, {step}: {slope:,.0f} bytes a clip, time grows as n^{power:.2f}")
    return "\n".join(f"- {line}" for line in lines)


def draw(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Peak memory by number of clips, a panel per step."""
    steps = list(dict.fromkeys(row["step"] for row in rows))
    for at, (axes, step) in enumerate(zip(figure.subplots(1, len(steps), sharey=True), steps, strict=True)):
        for version in dict.fromkeys(row["version"] for row in rows):
            found = [row for row in rows if (row["version"], row["step"]) == (version, step)]
            axes.plot([r["rows"] for r in found], [max(r["peak_mb"], 0.1) for r in found], "o-", label=version)
        axes.set(xscale="log", yscale="log", title=step, xlabel="clips", ylabel="" if at else "MB added at the peak")
    axes.legend(fontsize="small")


if __name__ == "__main__":
    raise SystemExit(main())
