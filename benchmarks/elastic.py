"""Ingests from and to an S3 server while nodes come and go, and compares with a local disk, byte by byte.

    python -m benchmarks.elastic --rounds 5
    python -m benchmarks.elastic --rounds 2 --features      # which are extracted meanwhile

A head without CPUs, for the driver, and one node of one CPU begin; at a quarter of the shards another node joins, at
half the first one is killed (SIGKILL of its raylet and all that this started). The nodes share no folder of ours: each
has a TMPDIR of its own, clips and shards are on the store alone. The server is moto's (`benchmarks.s3` says why).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.corpus import write_backbone
from benchmarks.kills import GRACE, compare
from benchmarks.processes import ROOT, Marked, stoppable
from benchmarks.report import RESULTS, machine, positive, save_folder, table
from benchmarks.s3 import BUCKET, proxied, s3_process, variables
from benchmarks.stores import PER_SHARD, Bench, local

FEATURES = r"(?: \d+ wait for features, \d+ of \d+ extracting,)?"
IN_FLIGHT = re.compile(rf"(\d+) in flight of (\d+),{FEATURES} (\d+) done(?:, (\d+) lost with nodes)?")
SECONDS = 600.0  # that an ingestion may take
PATIENT = {f"RAY_{name}_wait_time_s": "300" for name in ("raylet_start", "gcs_server_port")}  # on a busy machine


@dataclass(frozen=True)
class Round:
    """One ingestion: when nodes came and went, in seconds of it, how many shards were done then, and what came out.

    Attributes:
        slots: the run had at its beginning, at most, and at its end.
        lost_with_nodes: shards that were begun again.
    """

    number: int
    seconds: float
    joined: float
    killed: float
    done_when_joined: int
    done_when_killed: int
    slots: tuple[int, int, int]
    lost_with_nodes: int
    lost: int
    duplicated: int
    identical: bool
    verified: bool
    leaked: tuple[str, ...]


@dataclass
class Nodes:
    """Raylets on this machine, each with a folder of its own for temporary files."""

    work: Path
    cluster: Any = None
    started: list[Any] = field(default_factory=list)

    def join(self) -> Any:
        """One more node of one CPU."""
        folder = self.work / f"node-{len(self.started)}"
        folder.mkdir(parents=True)
        node = self.cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(folder)}, **free_ports())
        self.started.append(node)
        return self.started[-1]

    def kill(self, node: Any) -> int:
        """As when a machine is taken away: SIGKILL of a raylet and then of all that it started; how many processes."""
        from ray._private.ray_constants import PROCESS_TYPE_RAYLET

        raylet = psutil.Process(node.all_processes[PROCESS_TYPE_RAYLET][0].process.pid)
        processes = [raylet, *raylet.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)
        return len(processes)


def free_ports() -> dict[str, int]:
    """Of a node's agents: a raylet that leaves the choice to them waits only 15 seconds for it."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


@contextmanager
def nodes(work: Path, **environment: str) -> Iterator[Nodes]:
    """A head that works on nothing; ``environment`` is that of every node."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update({**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **PATIENT})
    found = Nodes(work)
    try:
        head: dict[str, Any] = {
            "num_cpus": 0,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
        }
        found.cluster = Cluster(initialize_head=True, head_node_args=head | free_ports())
        yield found
    finally:
        if found.cluster is not None:
            found.cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def one_round(bench: Bench, number: int, clips: int, calm: Path) -> Round:
    """An ingestion in which one node joins and another one is killed."""
    manifest, name = bench.corpus(clips), f"elastic-{number}"
    log, shards = bench.work / f"{name}.log", -(-clips // PER_SHARD["kills"])
    address, out = f"s3://{BUCKET}/{manifest.parent.name}/all.csv", f"s3://{BUCKET}/{name}"
    done = partial(_ledgers, bench, name)
    with nodes(bench.work / name, **variables(bench.proxy.url)) as cluster:
        first = cluster.join()
        with bench.start(address, out, "kills", None, log, RAY_ADDRESS=cluster.cluster.address) as run:
            begin = time.monotonic()
            at_join = _wait(run, log, done, shards // 4)
            cluster.join()
            joined = time.monotonic() - begin
            at_kill = _wait(run, log, done, shards // 2)
            cluster.kill(first)
            killed = time.monotonic() - begin
            if run.process.wait(SECONDS):
                raise RuntimeError(f"the ingestion failed: {log.read_text()[-2000:]}")
            seconds = time.monotonic() - begin
            left = tuple(run.left(GRACE))
    slots, again = told(log.read_text())
    lost, twice, same, verified = compare(calm, bench.fetched(name, manifest))
    times = round(seconds, 1), round(joined, 1), round(killed, 1)
    return Round(number, *times, at_join, at_kill, slots, again, lost, twice, same, verified, left)


def _ledgers(bench: Bench, name: str) -> int:
    """Shards that are finished, by the store's own client."""
    pages = bench.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{name}/ledger/")
    return sum(found["Key"].endswith(".json") for page in pages for found in page.get("Contents", ()))


def _wait(run: Marked, log: Path, done: Callable[[], int], wanted: int) -> int:
    """Until so many shards are done; how many are."""
    end = time.monotonic() + SECONDS
    while (count := done()) < wanted:
        if run.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{count} of {wanted} shards, then: {log.read_text()[-2000:]}")
        time.sleep(0.1)
    return count


def told(log: str) -> tuple[tuple[int, int, int], int]:
    """What the progress lines tell: slots at the beginning, at most, at the end; shards that were begun again."""
    found = [tuple(int(text or 0) for text in match.groups()) for match in IN_FLIGHT.finditer(log)]
    slots = [line[1] for line in found] or [0]
    return (slots[0], max(slots), slots[-1]), max((line[3] for line in found), default=0)


def is_bad(r: Round) -> bool:
    """Whether something was lost, repeated, changed or left, or the new node got nothing to do."""
    grew = r.slots[1] > r.slots[0]
    return bool(r.lost or r.duplicated or r.leaked or not (r.identical and r.verified and grew))


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if a clip was lost or duplicated, a byte differs, or a process was left."""
    parser = argparse.ArgumentParser(prog="benchmarks.elastic", description=__doc__)
    parser.add_argument("--clips", type=positive, default=80, help="of an ingestion, two in a shard (default 80)")
    parser.add_argument("--rounds", type=positive, default=5, help="ingestions (default 5)")
    parser.add_argument("--features", action="store_true", help="extract features of a fresh backbone meanwhile")
    parser.add_argument("--work", type=Path, help="folder for clips and logs (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the files go")
    args = parser.parse_args(argv)
    work = (args.work or Path(tempfile.mkdtemp(prefix="elastic-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(args, name) for name in ("clips", "rounds", "features")}
    record = {"machine": machine("cpu"), "settings": settings}
    more = ["--backbone", str(write_backbone(work / "run" / "finetune", "tiny").parent)] if args.features else []
    found: list[Round] = []
    with stoppable("run it again"), s3_process() as port, proxied(port) as proxy:
        bench = Bench(work, proxy, 1, more)
        calm, _ = local(bench, bench.corpus(args.clips), "kills", 0)
        for number in range(args.rounds):
            found.append(one_round(bench, number, args.clips, calm))
            print(found[-1], flush=True)
    write(args.out, found, record)
    if args.work is None:
        shutil.rmtree(work)
    return int(any(map(is_bad, found)))


def write(out: Path, found: Sequence[Round], record: dict[str, Any]) -> None:
    """A row per ingestion, and a figure of when its nodes came and went."""
    columns = ["round", "seconds", "joined at", "killed at", "done then", "slots: first, most, last"]
    columns += ["begun again", "clips lost", "twice", "same bytes", "verified", "processes left"]
    cells = [_cells(r) for r in found]
    same, sums = sum(r.identical for r in found), [sum(getattr(r, n) for r in found) for n in ("lost", "duplicated")]
    line = [f"{len(found)} ingestions, in each a node joined and one was killed"]
    line += [f"{sums[0]} clips lost, {sums[1]} twice, {same} of {len(found)} the same bytes as on a local disk"]
    rows = [dict(zip(columns, cell, strict=True)) for cell in cells]
    result = {**record, "rounds": [asdict(r) for r in found]}
    features = record["settings"]["features"]
    title = f"Ingestion {'with features ' if features else ''}on a store while nodes come and go"
    save_folder(
        out,
        "elastic-features" if features else "elastic",
        title,
        table(columns, cells),
        result,
        partial(_draw, found),
        rows,
        line,
    )


def _cells(r: Round) -> list[Any]:
    times, slots = [f"{t:.0f}" for t in (r.seconds, r.joined, r.killed)], ", ".join(map(str, r.slots))
    marks = ["yes" if good else "no" for good in (r.identical, r.verified)]
    done = f"{r.done_when_joined}, {r.done_when_killed}"
    return [r.number, *times, done, slots, r.lost_with_nodes, r.lost, r.duplicated, *marks, len(r.leaked)]


def _draw(found: Sequence[Round], figure: Any) -> None:
    axes = figure.subplots()
    for r in found:
        axes.plot([0, r.killed], [r.number, r.number], color="C0", label="first node" if r is found[0] else None)
        axes.plot(
            [r.joined, r.seconds], [r.number + 0.2] * 2, color="C1", label="second node" if r is found[0] else None
        )
    axes.set(xlabel="seconds", ylabel="ingestion", yticks=[r.number for r in found])
    axes.legend()


if __name__ == "__main__":
    raise SystemExit(main())
