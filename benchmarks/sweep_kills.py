"""Kills a sweep at random moments, goes on by the same command, and compares with an undisturbed one.

    python -m benchmarks.sweep_kills --times 10

What is killed (SIGKILL), in turns: the driver; a worker, or what of Ray there is; the whole local cluster
under a living driver; everything at once. Clips, shards, backbone and features are made within the sweep, so
kills meet those steps too. The work folder keeps what was measured: the same command goes on after an
interruption.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.processes import Kill, Marked, kill_after
from benchmarks.report import RESULTS, machine, positive, save, table

TARGETS = ("driver", "worker", "cluster", "everything")
PER_ROUND = 5  # kills of one sweep
MOST_STARTS = 3 * PER_ROUND  # of one sweep's command
GRACE = 30.0  # seconds in which what a dead driver leaves behind has to end
PATIENCE = 180.0  # seconds in which a driver without its cluster has to end
TIMED = ("epoch_seconds", "train_seconds", "peak_memory_mb", "data_wait_seconds")
SMALL = {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 2, "joint_depth": 1, "image_size": 32}
SWEEP: dict[str, Any] = {
    "recipe": "prompt",
    "data": {
        "corpus": {"kind": "scenes", "clips": 16},
        "ingest": {"frames": 2, "image_size": 32, "samples_per_shard": 8},
        "before": {
            "backbone": {
                "recipe": "finetune",
                "epochs": 2,
                "workers": 0,
                "cpus": 1,
                "batch_size": 8,
                "backbone": {**SMALL, "target_length": 208},
            }
        },
        "features": {"draws": 1},
    },
    "settings": {"epochs": 4, "batch_size": 4, "cases": ["complete", "noisy_audio"]},
    "space": {"length": [1, 2], "seed": [0, 1]},
}


@dataclass(frozen=True)
class Round:
    """One sweep, killed once or more, and what came out in the end.

    Attributes:
        starts: of its command.
        trials: rows of its table.
        differing: trials whose parameters, status, metrics (every epoch's) or weights are not those of the
            undisturbed sweep.
        running: MLflow runs that say RUNNING in the end.
        statuses: MLflow runs by status.
        leaked: command lines of processes that lived on.
        hung: kills of the cluster after which the driver had to be killed, too.
    """

    number: int
    kills: tuple[Kill, ...]
    starts: int
    trials: int
    differing: int
    running: int
    statuses: dict[str, int]
    leaked: tuple[str, ...]
    hung: int
    seconds: float

    @property
    def sound(self) -> bool:
        return not (self.differing or self.running or self.leaked or self.hung)


def start(sweep: Path, root: Path) -> Marked:
    """The sweep's command, with everything it makes below `root`."""
    command = ["-m", "tuning.sweep", str(sweep), "--data", str(root / "data"), "--runs", str(root / "runs")]
    return Marked.start(*command, log=root.with_suffix(".log"), RAY_ADDRESS="", MLFLOW_TRACKING_URI="")


def strike(run: Marked, target: str) -> int:
    """Kill; how many processes there were to kill."""
    if target == "driver":
        return run.kill([run.process.pid])
    if target == "worker":
        return run.kill((run.pids("ray::ImplicitFunc") or run.pids("ray::"))[:1])
    if target == "cluster":
        return run.kill([pid for pid in run.pids() if pid != run.process.pid])
    return run.kill(run.pids())


def one_round(number: int, sweep: Path, calm: Path, seconds: float, seed: int, most: int) -> Round:
    """Kill until a run comes through, at moments drawn from all of a run's time; `most` kills."""
    rng, begin = np.random.default_rng([seed, number]), time.monotonic()
    root = calm.with_name(f"killed-{number:04d}")
    root.mkdir(parents=True)
    kills: list[Kill] = []
    runs, hung = [start(sweep, root)], 0
    while True:
        if len(kills) < most:  # then it may finish
            target = TARGETS[(PER_ROUND * number + len(kills)) % len(TARGETS)]
            kill = kill_after(runs[-1], rng.uniform(0, seconds), target, strike)
            kills += [kill] if kill.processes else []
            if kill.processes and kill.target == "worker":
                continue  # the sweep goes on, and is struck again
            hung += kill.target == "cluster" and bool(kill.processes) and not _ends(runs[-1])
        if not runs[-1].process.wait():
            break
        if len(runs) >= MOST_STARTS:
            raise RuntimeError(f"does not come to its end; see {root.with_suffix('.log')}")
        runs.append(start(sweep, root))
    left = tuple(line for run in runs for line in run.left(GRACE))
    mine, theirs, statuses = told(root), told(calm), mlflow_statuses(root)
    differing = sum(mine.get(trial) != theirs.get(trial) for trial in mine.keys() | theirs.keys())
    running = statuses.get("RUNNING", 0)
    took = time.monotonic() - begin
    record = Round(number, tuple(kills), len(runs), len(mine), differing, running, statuses, left, hung, took)
    if record.sound:
        shutil.rmtree(root)
    return record


def _ends(run: Marked) -> bool:
    """Whether a driver whose cluster is gone ends by itself; else it is killed."""
    try:
        run.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        run.kill([run.process.pid])
        run.process.wait()
        return False
    return True


def told(root: Path) -> dict[str, Any]:
    """By trial's number: its row of the table, its epochs and its weights; nothing that time or the folder's
    place decides (a run's name has the paths of its inputs in it)."""
    found = {}
    for path in root.glob("runs/*/sweep.csv"):
        for row in csv.DictReader(path.read_text().splitlines()):
            run, place = (
                root / "runs" / row["run"],
                path.parent / "trials" / f"{int(row['number']):03d}-{row['run']}",
            )
            lines = (place / "metrics.jsonl").read_text().splitlines()
            weights = sorted(run.glob("*/*.safetensors"))
            found[row["number"]] = {
                "row": {k: v for k, v in row.items() if k not in TIMED and k != "run"},
                "epochs": [_steady(json.loads(line)) for line in lines],
                "weights": {str(p.relative_to(run)): sha256(p.read_bytes()).hexdigest() for p in weights},
            }
    return found


def _steady(line: dict[str, Any]) -> dict[str, Any]:
    return {"step": line["step"], **{k: v for k, v in line["metrics"].items() if k not in TIMED}}


def mlflow_statuses(root: Path) -> dict[str, int]:
    """The store's runs by status, as they are on disk (opening it as we do would end abandoned ones)."""
    import sqlite3

    with sqlite3.connect(f"file:{root / 'runs' / 'mlflow.db'}?mode=ro", uri=True) as store:
        return dict(Counter(status for (status,) in store.execute("SELECT status FROM runs")))


def undisturbed(sweep: Path, work: Path) -> tuple[Path, float]:
    """A sweep that nothing happened to, and its seconds; that of an earlier call counts."""
    root, record = work / "calm", work / "calm.json"
    if record.exists():
        return root, json.loads(record.read_text())
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    begin = time.monotonic()
    if start(sweep, root).process.wait():
        raise RuntimeError(f"the undisturbed sweep failed: {root.with_suffix('.log').read_text()[-2000:]}")
    record.write_text(json.dumps(time.monotonic() - begin))
    return root, time.monotonic() - begin


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a trial differs, an MLflow run says RUNNING, a process was left, a driver hung."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep_kills", description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=positive, default=10, help="kills in all (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep-kills", help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="sweep-kills-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found, settings = machine("cpu"), {"times": args.times, "seed": args.seed}
    rounds, calm = measure(args.times, args.seed, work)
    write(args.out, rounds, {"machine": found, "settings": settings, "undisturbed_seconds": calm})
    if args.work is None:
        shutil.rmtree(work)
    return int(not all(r.sound for r in rounds))


def measure(times: int, seed: int, work: Path) -> tuple[list[Round], float]:
    """Rounds until there are enough kills, earlier calls' included; seconds of the undisturbed sweep."""
    sweep, journal = work / "short.yaml", work / "rounds.jsonl"
    sweep.write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    calm, seconds = undisturbed(sweep, work)
    rounds = [_round(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    while (done := sum(len(r.kills) for r in rounds)) < times:
        number = len(rounds)
        shutil.rmtree(work / f"killed-{number:04d}", ignore_errors=True)
        rounds.append(one_round(number, sweep, calm, seconds, seed, min(PER_ROUND, times - done)))
        with journal.open("a") as file:
            file.write(json.dumps(asdict(rounds[-1])) + "\n")
        print(f"{done + len(rounds[-1].kills)} of {times} kills, {_unsound(rounds)} sweeps differ", flush=True)
    return rounds, seconds


def _round(line: str) -> Round:
    record = json.loads(line)
    kills = tuple(Kill(**kill) for kill in record["kills"])
    return Round(**{**record, "kills": kills, "leaked": tuple(record["leaked"])})


def _unsound(rounds: Sequence[Round]) -> int:
    return sum(not r.sound for r in rounds)


def write(out: Path, rounds: Sequence[Round], record: dict[str, Any]) -> None:
    """Table by target, and a figure of the moments."""
    cells = []
    for target in (*TARGETS, ""):
        hit = [r for r in rounds if not target or any(k.target == target for k in r.kills)]
        count = sum(not target or k.target == target for r in hit for k in r.kills)
        sums = [sum(getattr(r, name) for r in hit) for name in ("trials", "differing", "running", "hung")]
        cells.append([target or "all", count, len(hit), *sums, sum(len(r.leaked) for r in hit)])
    columns = ["killed", "kills", "sweeps", "trials", "trials that differ", "left RUNNING", "driver hung"]
    calm = f"{record['undisturbed_seconds']:.0f} s"
    text = table([*columns, "processes left"], cells) + (
        f"\n\nA sweep is killed up to {PER_ROUND} times and counts in each row that it met; undisturbed it "
        f"takes {calm}. A trial differs if its parameters, status, a metric of any epoch or a byte of its "
        "weights does."
    )
    record = {**record, "rounds": list(rounds)}
    save(out, "sweep-kills", "A sweep killed at random moments", text, record, lambda f: _draw(f, rounds))


def _draw(figure: Any, rounds: Sequence[Round]) -> None:
    axes = figure.subplots()
    for target in TARGETS:
        moments = [(k.seconds, r.number) for r in rounds for k in r.kills if k.target == target]
        if moments:
            axes.scatter(*zip(*moments, strict=True), label=target)
    axes.set(xlabel="seconds after the command's start", ylabel="sweep", title="When what was killed")
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
