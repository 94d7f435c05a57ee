"""Time of ``avmend --help`` and of every ``avmend COMMAND --help``, as a Markdown table.

Each is a process of its own, run several times in turns; wall time (best and median) and processor time (user
and system, best), which is the wall time of a machine that does nothing else. Help should import none of HEAVY.

    python -m benchmarks.help_time --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import avmend
from shards.command import command

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "ray", "mlflow", "av", "matplotlib", "pandas", "torchaudio")
MORE = (("features", "import"), ("train", "prompt"), ("train", "avqa"), ("study", "demo"), ("study", "avqa"))
LIMIT = 1.0  # seconds
CODE = f"""
import sys, avmend
try:
    avmend.main(sys.argv[1:])
finally:
    print(*sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)
""".replace(f"{HEAVY}", f"set({HEAVY})")


@dataclass
class Measured:
    """One command line: seconds of every round, and the heavy modules that it imported."""

    words: tuple[str, ...]
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    heavy: str = ""


def measure(found: Measured) -> None:
    """Run a command line once more."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    before, begin = os.times(), time.perf_counter()
    arguments = [sys.executable, "-c", CODE, *found.words, "--help"]
    done = subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    found.wall.append(time.perf_counter() - begin)
    after = os.times()
    found.processor.append(sum(after[2:4]) - sum(before[2:4]))
    found.heavy = done.stderr.strip()


def table(measured: Sequence[Measured]) -> str:
    """The results, a line per command line."""
    lines = ["| command | wall, best | wall, median | processor, best | imports |", "|---|---|---|---|---|"]
    for found in measured:
        times = f"{min(found.wall):.2f} s | {statistics.median(found.wall):.2f} s | {min(found.processor):.2f} s"
        lines.append(f"| `avmend {' '.join((*found.words, '--help'))}` | {times} | {found.heavy or '-'} |")
    return "\n".join(lines)


@command
def main(argv: list[str]) -> int:
    """Exit status: 0; 1 if a command needed more than a second of processor time, or imported anything heavy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.help_time", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="processes per command line")
    rounds = parser.parse_args(argv).rounds
    measured = [Measured(words) for words in ((), *((name,) for name in avmend.COMMANDS), *MORE)]
    for _ in range(rounds):
        for found in measured:
            measure(found)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}\n\n{table(measured)}"
    )
    return int(any(min(found.processor) > LIMIT or found.heavy for found in measured))


if __name__ == "__main__":
    raise SystemExit(main())
