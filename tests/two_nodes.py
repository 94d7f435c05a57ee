"""Ingestion on two raylets, one of them killed midway; a program of its own, as a process has one Ray.

Usage: python -m tests.two_nodes MANIFEST OUT. Prints how many nodes were killed and how many alive after it.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from pipelines.ingest import ingest
from pipelines.settings import IngestConfig

SHARDS = 24
CONFIG = IngestConfig(frames=2, image_size=16, samples_per_shard=2, workers=2)


def main(manifest: Path, out: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    killed: list[str] = []
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False)
        killer = threading.Thread(target=_kill_midway, args=(cluster, doomed, out, killed))
        killer.start()
        ingest(manifest, out, CONFIG)
        killer.join(60)
        print(f"killed {len(killed)}, alive {_alive(2 - len(killed))}", flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _kill_midway(cluster: Cluster, doomed, out: Path, killed: list[str]) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("ledger/*.json"))) < SHARDS // 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    if not (out / "dataset.json").exists():
        killed.append(doomed.address)
        cluster.remove_node(doomed, allow_graceful=False)


def _alive(wanted: int) -> int:
    """How many nodes are alive, once there are as many as wanted: Ray takes its time to miss one."""
    deadline = time.monotonic() + 60
    while True:
        alive = sum(node["Alive"] for node in ray.nodes())
        if alive == wanted or time.monotonic() > deadline:
            return alive
        time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
