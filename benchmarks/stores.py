"""Ingests from and to an S3 server: how fast at which latency, and whether kills and failing requests change a byte.

    python -m benchmarks.stores --clips 2000 --kills 50

The server is moto's, in a process of its own (`benchmarks.s3` says why), behind a proxy that waits before each request
or refuses some. Clips are drawn scenes of a second (H.264 and AAC) under many names. What is killed (SIGKILL): the
driver alone, its decoder, a Ray worker, the local cluster, or all of it. Seconds are of the whole command; the rate "at
work", which its progress line tells, is without its start and that of Ray.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kills import GRACE, compare, until_done
from benchmarks.processes import Kill, Marked, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from benchmarks.s3 import BUCKET, Faults, Proxy, client, objects, proxied, s3_process, variables
from pipelines.corpora.synthetic import scenes
from pipelines.manifest import read_manifest, write_manifest
from shards import extraction_log
from shards.progress import Progress

DRAWN, FEW = 24, 20  # scenes; clips of an ingestion that is killed
LATENCIES = (0.0, 0.02, 0.1)  # seconds
FAILING = 0.1  # of the requests
PER_SHARD = {"rates": 64, "kills": 2}
AT_WORK = re.compile(r"ingest  \d+/\d+ clips  ([\d.]+) clips/s  done in")
MODES = ("alone", "alone", "alone", "alone", "ray")  # in turn


@dataclass(frozen=True)
class Rate:
    """One ingestion: where, how fast, how many requests, and whether its bytes are those of the local disk.

    Attributes:
        clips_per_second: of the whole command.
        at_work: clips per second since the command began with its clips.
    """

    place: str
    seconds: float
    clips_per_second: float
    at_work: float
    requests: int
    struck: int
    identical: bool


@dataclass(frozen=True)
class Round:
    """One ingestion that was killed, and what came out in the end."""

    number: int
    mode: str
    kills: tuple[Kill, ...]
    lost: int
    duplicated: int
    identical: bool
    verified: bool
    leaked: tuple[str, ...]
    hung: int


@dataclass
class Bench:
    """The server, the proxy before it, and the folder of the measurement; what else the ingestions are told."""

    work: Path
    proxy: Proxy
    workers: int
    more: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.s3 = client(f"http://127.0.0.1:{self.proxy.behind}")
        self.s3.create_bucket(Bucket=BUCKET)

    def corpus(self, clips: int) -> Path:
        """A manifest of so many clips, here and in the bucket."""
        folder = self.work / f"clips-{clips}"
        if not (folder / "all.csv").exists():
            config = scenes.ScenesConfig(clips=min(clips, DRAWN), seconds=1.0, size=48, jobs=1)
            drawn = scenes.build(config, folder / "drawn", partial(Progress, "scenes")).manifests["default"]
            rows = []
            for number, clip in zip(range(clips), itertools.cycle(read_manifest(drawn)), strict=False):
                file = shutil.copy(str(clip.path), folder / f"{number:05d}.mp4")
                row = {"id": f"clip/{number}", "path": Path(file).name, "label": clip.labels, "split": clip.split}
                rows.append(row)
            write_manifest(folder / "all.csv", rows)
        for path in folder.glob("*.*"):
            self.s3.put_object(Bucket=BUCKET, Key=f"{folder.name}/{path.name}", Body=path.read_bytes())
        return folder / "all.csv"

    def start(self, manifest: str, out: str, kind: str, workers: int | None, log: Path, **environment: str) -> Marked:
        """The ingestion's command."""
        fields = ["frames=2", "image_size=32", f"samples_per_shard={PER_SHARD[kind]}"]
        fields += [f"workers={workers}"] if workers is not None else []
        command = ["-m", "pipelines.ingest", "--manifest", manifest, "--out", out, *fields, *self.more]
        return Marked.start(*command, log=log, **variables(self.proxy.url), **environment)

    def fetched(self, name: str, manifest: Path) -> Path:
        """The dataset as it is in the bucket, with addresses of clips as on the disk; then it is removed there."""
        folder = self.work / f"fetched-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        address = f"s3://{BUCKET}/{manifest.parent.name}".encode()
        for key, data in objects(self.s3, f"{name}/").items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data.replace(address, str(manifest.parent).encode()))
            self.s3.delete_object(Bucket=BUCKET, Key=f"{name}/{key}")
        return folder


def local(bench: Bench, manifest: Path, kind: str, workers: int) -> tuple[Path, float]:
    """The dataset that a local disk has, without locks and what no store keeps, and the seconds that it took."""
    out, begin = bench.work / f"local-{kind}-{workers}", time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    run = bench.start(str(manifest), str(out), kind, workers, out.with_suffix(".log"))
    if run.process.wait():
        raise RuntimeError(f"the local ingestion failed: {out.with_suffix('.log').read_text()[-2000:]}")
    for file in [*out.rglob(".*.lock"), *out.rglob(extraction_log.FILE)]:
        file.unlink()
    return out, time.monotonic() - begin


def rates(bench: Bench, clips: int) -> list[Rate]:
    """Ingestions of the same clips on the disk, at each latency, and where requests fail."""
    manifest = bench.corpus(clips)
    calm, seconds = local(bench, manifest, "rates", bench.workers)
    found = [Rate("local disk", seconds, clips / seconds, at_work(calm.with_suffix(".log")), 0, 0, True)]
    print(found[0], flush=True)
    settings = [(f"store, {1000 * s:g} ms", Faults(latency=s)) for s in LATENCIES]
    settings.append((f"store, {FAILING:.0%} fail", Faults(failing=FAILING)))
    for number, (place, faults) in enumerate(settings):
        bench.proxy.faults, begin = faults, time.monotonic()
        log = bench.work / f"rates-{number}.log"
        address = f"s3://{BUCKET}/{manifest.parent.name}/all.csv"
        run = bench.start(address, f"s3://{BUCKET}/set-{number}", "rates", bench.workers, log)
        if run.process.wait():
            raise RuntimeError(f"'{place}' failed: {log.read_text()[-2000:]}")
        seconds, asked = time.monotonic() - begin, faults.requests.total()
        bench.proxy.faults = Faults()
        same = compare(calm, bench.fetched(f"set-{number}", manifest))[2]
        found.append(Rate(place, seconds, clips / seconds, at_work(log), asked, faults.struck.total(), same))
        print(found[-1], flush=True)
    return found


def at_work(log: Path) -> float:
    """Clips per second, by the last progress line of an ingestion."""
    return float(AT_WORK.findall(log.read_text())[-1])


def rounds(bench: Bench, kills: int, seed: int) -> list[Round]:
    """Ingestions that are killed, until there are enough kills; one request in fifty fails, too."""
    manifest, found = bench.corpus(FEW), list[Round]()
    calm: dict[str, tuple[Path, float]] = {}
    while sum(len(r.kills) for r in found) < kills:
        mode = MODES[len(found) % len(MODES)]
        if mode not in calm:
            calm[mode] = local(bench, manifest, "kills", 0 if mode == "alone" else bench.workers)
        found.append(one_round(bench, len(found), mode, manifest, *calm[mode], seed))
        print(f"{sum(len(r.kills) for r in found)} of {kills} kills, {sum(map(is_bad, found))} bad", flush=True)
    return found


def one_round(bench: Bench, number: int, mode: str, manifest: Path, calm: Path, seconds: float, seed: int) -> Round:
    """An ingestion that is killed until it comes to its end."""
    name = f"killed-{number}"
    address, out = f"s3://{BUCKET}/{manifest.parent.name}/all.csv", f"s3://{BUCKET}/{name}"
    workers = 0 if mode == "alone" else bench.workers
    bench.proxy.faults = Faults(failing=0.02, seed=number)
    again = partial(bench.start, address, out, "kills", workers, bench.work / f"{name}.log")
    kills: list[Kill] = []
    runs = [again()]
    with ExitStack() as stack:
        stack.callback(lambda: [run.kill(run.pids()) for run in runs])
        hung = until_done(runs, kills, again, mode, np.random.default_rng([seed, number]), 1.5 * seconds)
        left = tuple(line for run in runs for line in run.left(GRACE))
    bench.proxy.faults = Faults()
    return Round(number, mode, tuple(kills), *compare(calm, bench.fetched(name, manifest)), left, hung)


def is_bad(r: Round) -> bool:
    """Whether something was lost, repeated, changed or left."""
    return bool(r.lost or r.duplicated or r.leaked or r.hung or not (r.identical and r.verified))


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a clip was lost or duplicated, a byte differs, or a process was left."""
    parser = argparse.ArgumentParser(prog="benchmarks.stores", description=__doc__)
    parser.add_argument("--clips", type=positive, default=2000, help="of the rates (default 2000)")
    parser.add_argument("--kills", type=int, default=50, help="in all (default 50)")
    parser.add_argument("--workers", type=int, default=2, help="Ray tasks at a time (default 2); 0: no Ray")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for clips and logs (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="stores-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = machine("cpu")
    with stoppable("run it again"), s3_process() as port, proxied(port) as proxy:
        bench = Bench(work, proxy, args.workers)
        measured, killed = rates(bench, args.clips), rounds(bench, args.kills, args.seed)
    settings = {name: getattr(args, name) for name in ("clips", "kills", "workers", "seed")}
    write(args.out, measured, killed, {"machine": found, "settings": settings})
    if args.work is None:
        shutil.rmtree(work)
    return int(any(map(is_bad, killed)) or not all(rate.identical for rate in measured))


def write(out: Path, measured: Sequence[Rate], killed: Sequence[Round], record: dict[str, Any]) -> None:
    """Tables of rates and of kills, and a figure of the rates."""
    columns = ["place", "seconds", "clips/s", "at work", "of the disk's", "requests", "failed", "same bytes"]
    disk = measured[0].at_work
    cells = [
        [r.place, f"{r.seconds:.1f}", f"{r.clips_per_second:.2f}", f"{r.at_work:.2f}", f"{r.at_work / disk:.0%}"]
        for r in measured
    ]
    for cell, r in zip(cells, measured, strict=True):
        cell += [str(r.requests), str(r.struck), "yes" if r.identical else "no"]
    kills = sum(len(r.kills) for r in killed)
    sums = [sum(getattr(r, name) for r in killed) for name in ("lost", "duplicated", "identical", "verified", "hung")]
    names = ["kills", "ingestions", "clips lost", "twice", "same bytes", "verified", "hung", "processes left"]
    row = [kills, len(killed), *sums, sum(len(r.leaked) for r in killed)]
    targets = sorted({kill.target for r in killed for kill in r.kills})
    counts = ", ".join(f"{t} {sum(k.target == t for r in killed for k in r.kills)}" for t in targets)
    text = table(columns, cells) + "\n\n" + table(names, [row]) + f"\n\nKilled: {counts or 'nothing'}."
    line = [f"{kills} kills, {sums[0]} lost, {sums[1]} twice, {sums[2]} of {len(killed)} the same bytes"]
    line += [", ".join(f"{r.place}: {r.at_work:.1f} clips/s" for r in measured)]
    rows = [dict(zip(columns, cell, strict=True)) for cell in cells]
    found = {**record, "rates": [asdict(r) for r in measured], "rounds": [asdict(r) for r in killed]}
    save_folder(
        out, "stores", "Ingestion from and to an object store", text, found, partial(_draw, measured), rows, line
    )


def _draw(measured: Sequence[Rate], figure: Any) -> None:
    axes = figure.subplots()
    axes.barh([r.place for r in measured][::-1], [r.at_work for r in measured][::-1])
    axes.set(xlabel="clips per second")


if __name__ == "__main__":
    raise SystemExit(main())
