"""Whether two checkouts compute the same: accuracies of two small studies, and the bytes of their shards.

Usage: python -m benchmarks.same_results BEFORE AFTER [--work DIR] [--out FILE.json]

Each study runs in each checkout, in a process of its own, with data and runs of its own. Seconds, memory and names of
runs are left out of the comparison.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shards.hashes import file_sha256

STUDIES = ("demo", "avqa_demo")
ASIDE = {"epoch_seconds", "peak_memory_mb", "train_seconds", "inference_seconds", "run"}


def run_study(checkout: Path, name: str, work: Path) -> None:
    """Run a study of a checkout with its own code.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "tuning.study", name, "--data", str(work / "data"), "--runs", str(work / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(command, cwd=checkout, env=environment, stdin=subprocess.DEVNULL, check=True)


def figures(runs: Path, name: str) -> list[dict[str, str]]:
    """The rows of a study's results.csv, without what it cost."""
    (table,) = runs.glob(f"{name}-*/results.csv")
    with table.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k not in ASIDE} for row in csv.DictReader(file)]


def shard_bytes(data: Path) -> Counter[tuple[str, str]]:
    """(name, sha256) of every shard: media and features."""
    return Counter((path.name, file_sha256(path)) for path in data.rglob("*.tar"))


def compare(before: Path, after: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """By what is compared: how much of it there is, and how much of it differs."""
    for name in STUDIES:
        mine, theirs = figures(before / "runs", name), figures(after / "runs", name)
        differing = sum(a != b for a, b in zip(mine, theirs, strict=False)) + abs(len(mine) - len(theirs))
        yield f"accuracies of {name}", {"compared": len(mine), "different": differing}
    mine_, theirs_ = shard_bytes(before / "data"), shard_bytes(after / "data")
    missing = (mine_ - theirs_) + (theirs_ - mine_)
    yield "shards", {"compared": mine_.total(), "different": missing.total()}


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if nothing differs, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--work", type=Path, help="folder for data and runs; what is there already is reused")
    parser.add_argument("--out", type=Path, help="write the figures as json")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).absolute()
        for role, checkout in (("before", args.before), ("after", args.after)):
            for name in STUDIES:
                run_study(checkout.absolute(), name, work / role)
        found = dict(compare(work / "before", work / "after"))
    for name, counts in found.items():
        print(f"{name}: {counts['compared']} compared, {counts['different']} different")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(any(counts["different"] for counts in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
