"""Kills an ingestion at random moments, goes on by the same command, and compares with an undisturbed run.

    python -m benchmarks.kills --times 100

What is killed (SIGKILL): the driver alone, its decoder, a Ray worker, the local cluster (raylet and control
store) under a driver that lives, or driver and cluster together. All by the ids of the run's processes. The
work folder keeps what was measured: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT, Kill, Marked, kill_after, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from pipelines.corpora.synthetic import scenes
from pipelines.manifest import read_manifest, write_manifest
from shards.progress import Progress
from shards.reader import ShardDataset
from shards.verify import verify

TARGETS = {
    "alone": ("driver", "decoder", "everything"),
    "ray": ("driver", "decoder", "worker", "cluster", "everything"),
}
FIELDS = ("frames=2", "image_size=32", "samples_per_shard=2")
SCENES, LARGEST = 20, 100_000  # drawn clips; bytes of the real clips that join them
DATA = ROOT.parent / "shared" / "data"
PER_ROUND = 6  # kills of one ingestion
HANGS = 180.0  # seconds after which a run that was struck and does not end counts as hung
GRACE = 20.0  # seconds in which what a dead driver leaves behind has to end


@dataclass(frozen=True)
class Round:
    """One ingestion, killed once or more, and what came out in the end; ``hung``: how often a driver did not
    notice in three minutes that its cluster was gone, and was killed too."""

    number: int
    mode: str
    kills: tuple[Kill, ...]
    lost: int
    duplicated: int
    identical: bool
    verified: bool
    leaked: tuple[str, ...]
    seconds: float
    hung: int = 0


def build_corpus(work: Path, data: Path | None) -> Path:
    """Scenes and, from ``data``, the small real clips, good and bad; the manifest's path."""
    manifest = work / "corpus" / "all.csv"
    if manifest.exists():
        return manifest
    config = scenes.ScenesConfig(clips=SCENES, seconds=1.0, size=48, jobs=1)
    drawn = scenes.build(config, work / "corpus", partial(Progress, "scenes")).manifests["default"]
    rows: list[dict[str, Any]] = [
        {"id": c.id, "path": Path(str(c.path)).relative_to(drawn.parent), "label": c.labels, "split": c.split}
        for c in read_manifest(drawn)
    ]
    for file in sorted((data / "clips").iterdir()) if data else []:
        if file.stat().st_size < LARGEST:
            rows.append({"id": file.name, "path": shutil.copy(file, manifest.parent), "label": "real"})
            rows[-1] |= {"path": file.name, "split": "train"}
    write_manifest(manifest, rows)
    return manifest


def start(manifest: Path, out: Path, mode: str) -> Marked:
    """The ingestion's command."""
    fields = [*FIELDS, f"workers={0 if mode == 'alone' else 2}"]
    command = ["-m", "pipelines.ingest", "--manifest", str(manifest), "--out", str(out), *fields]
    return Marked.start(*command, log=out.with_suffix(".log"))


def strike(run: Marked, target: str) -> int:
    """Kill; how many processes there were to kill."""
    if target == "driver":
        return run.kill([run.process.pid])
    if target == "cluster":
        return run.kill([*run.pids("raylet/raylet"), *run.pids("gcs_server")])
    names = {"decoder": "pipelines.decoder_child", "worker": "ray::ingest", "everything": ""}
    return run.kill(run.pids(names[target]))


def one_round(number: int, mode: str, manifest: Path, calm: Path, seconds: float, seed: int) -> Round:
    """Kill until a run comes through, at moments drawn from all of a run's time."""
    rng, begin = np.random.default_rng([seed, number]), time.monotonic()
    out = calm.with_name(f"killed-{number:04d}")
    kills: list[Kill] = []
    hung = 0
    runs = [start(manifest, out, mode)]
    with ExitStack() as stack:
        stack.callback(lambda: [run.kill(run.pids()) for run in runs])  # if we are stopped
        hung = until_done(runs, kills, lambda: start(manifest, out, mode), mode, rng, seconds)
        left = tuple(line for run in runs for line in run.left(GRACE))
    record = Round(number, mode, tuple(kills), *compare(calm, out), left, time.monotonic() - begin, hung)
    if record.identical:
        shutil.rmtree(out)
    return record


def until_done(
    runs: list[Marked],
    kills: list[Kill],
    again: Callable[[], Marked],
    mode: str,
    rng: np.random.Generator,
    seconds: float,
) -> int:
    """Kill and start again until a run comes to its end; how many hung."""
    hung = 0
    while True:
        if len(kills) < PER_ROUND:  # then it may finish
            kill = kill_after(runs[-1], rng.uniform(0, seconds), str(rng.choice(TARGETS[mode])), strike)
            kills += [kill] if kill.processes else []
            if kill.processes and kill.target in ("decoder", "worker"):
                continue  # the run goes on, and is struck again
        try:
            status = runs[-1].process.wait(timeout=HANGS)
        except subprocess.TimeoutExpired:
            hung += 1
            runs[-1].kill(runs[-1].pids())
            status = runs[-1].process.wait()
        if not status:
            return hung
        if len(runs) > 2 * PER_ROUND:
            raise RuntimeError("does not come to its end; see the .log files in the work folder")
        runs[-1].left(GRACE) if kills and kills[-1].target == "cluster" else None
        runs.append(again())


def compare(calm: Path, out: Path) -> tuple[int, int, bool, bool]:
    """Clips lost, clips that are there twice, whether all files have the same bytes, whether they verify."""
    expected, found = Counter(accounted(calm)), Counter(accounted(out))
    lost = sum((expected - found).values())
    return lost, sum((found - expected).values()), digests(calm) == digests(out), verify(out) == []


def accounted(out: Path) -> list[str]:
    """Ids of all samples, by what the shards hold, and of all clips in quarantine."""
    if not (out / "dataset.json").exists():
        return []
    splits = ShardDataset(out, "train").info.splits
    ids = [meta.id for split in splits for meta in ShardDataset(out, split).metas]
    return ids + [json.loads(line)["id"] for line in (out / "quarantine.jsonl").read_text().splitlines()]


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def undisturbed(manifest: Path, work: Path, mode: str) -> tuple[Path, float]:
    """An ingestion that nothing happened to, and its seconds."""
    out, begin = work / f"calm-{mode}", time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    if start(manifest, out, mode).process.wait():
        raise RuntimeError(f"the undisturbed run failed: {out.with_suffix('.log').read_text()[-2000:]}")
    return out, time.monotonic() - begin


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a clip was lost or duplicated, a byte differs, or a process was left."""
    parser = argparse.ArgumentParser(prog="benchmarks.kills", description=__doc__)
    parser.add_argument("--times", type=positive, default=100, help="kills in all (default 100)")
    parser.add_argument("--ray-every", type=positive, default=5, help="each Nth round on Ray (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="real clips, or none")
    parser.add_argument("--work", type=Path, help="folder to go on in (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="kills-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found, settings = machine("cpu"), {"times": args.times, "ray_every": args.ray_every, "seed": args.seed}
    with stoppable(f"to go on, give --work {work} too"):
        rounds = measure(args, work)
    write(args.out, rounds, {"machine": found, "settings": settings})
    if args.work is None:
        shutil.rmtree(work)
    return int(any(_is_bad(r) for r in rounds))


def measure(args: argparse.Namespace, work: Path) -> list[Round]:
    """Rounds until there are enough kills; those of earlier calls on the same folder count."""
    manifest, journal = build_corpus(work, args.data if args.data.is_dir() else None), work / "rounds.jsonl"
    rounds = [_round(json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []
    calm: dict[str, tuple[Path, float]] = {}
    while sum(len(r.kills) for r in rounds) < args.times:
        number = len(rounds)
        mode = "ray" if number % args.ray_every == args.ray_every - 1 else "alone"
        if mode not in calm:
            calm[mode] = undisturbed(manifest, work, mode)
        shutil.rmtree(work / f"killed-{number:04d}", ignore_errors=True)
        rounds.append(one_round(number, mode, manifest, *calm[mode], args.seed))
        with journal.open("a") as file:
            file.write(json.dumps(asdict(rounds[-1])) + "\n")
        kills = sum(len(r.kills) for r in rounds)
        print(f"{kills} of {args.times} kills, {_bad(rounds)} rounds with a difference", flush=True)
    return rounds


def _round(record: dict[str, Any]) -> Round:
    kills = tuple(Kill(**kill) for kill in record["kills"])
    return Round(**{**record, "kills": kills, "leaked": tuple(record["leaked"])})


def _bad(rounds: Sequence[Round]) -> int:
    return sum(map(_is_bad, rounds))


def _is_bad(r: Round) -> bool:
    return bool(r.lost or r.duplicated or r.leaked or r.hung or not (r.identical and r.verified))


def write(out: Path, rounds: Sequence[Round], record: dict[str, Any]) -> None:
    """Table by mode and target, and a figure of the moments."""
    cells = []
    for mode, targets in TARGETS.items():
        for target in targets:
            hit = [r for r in rounds if r.mode == mode and any(k.target == target for k in r.kills)]
            count = sum(k.target == target for r in hit for k in r.kills)
            sums = [sum(getattr(r, name) for r in hit) for name in ("lost", "duplicated", "identical")]
            cells.append([mode, target, count, len(hit), *sums, sum(len(r.leaked) for r in hit)])
    total = [sum(len(r.kills) for r in rounds), len(rounds)]
    total += [sum(getattr(r, name) for r in rounds) for name in ("lost", "duplicated", "identical")]
    cells.append(["all", "", *total, sum(len(r.leaked) for r in rounds)])
    columns = ["run", "killed", "kills", "ingestions", "clips lost", "twice", "same bytes", "processes left"]
    hung = sum(r.hung for r in rounds)
    text = table(columns, cells) + (
        f"\n\nAn ingestion is killed up to {PER_ROUND} times; it counts in each row that it met. "
        f"Drivers that hung: {hung}."
    )
    found, flat = {**record, "rounds": list(rounds)}, [dict(zip(columns, row, strict=True)) for row in cells]
    line = [
        f"{total[0]} kills of {total[1]} ingestions",
        f"{total[2]} clips lost, {total[3]} twice",
        f"{total[4]} of {total[1]} the same bytes",
    ]
    save_folder(out, "kills", "Kills at random moments", text, found, _draw(rounds), flat, line)


def _draw(rounds: Sequence[Round]):
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for mode, marker in (("alone", "o"), ("ray", "s")):
            moments = [(k.seconds, f"{mode}: {k.target}") for r in rounds if r.mode == mode for k in r.kills]
            if moments:
                axes.scatter(*zip(*moments, strict=True), marker=marker, alpha=0.6)
        axes.set(xlabel="seconds after the command's start", title="When what was killed")

    return draw


if __name__ == "__main__":
    raise SystemExit(main())
