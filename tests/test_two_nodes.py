"""Ingestion on two raylets of this machine, one of which is killed midway."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from shards.verify import verify
from tests.conftest import ROOT
from tests.media import make_clip
from tests.test_ingest import digests, write_manifest

pytestmark = pytest.mark.ray
SHARDS = 24


def test_a_killed_node_costs_only_time(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    assert not ray.is_initialized(), "another test's cluster is up"
    make_clip(tmp_path / "a.mp4", seconds=0.5)
    manifest = write_manifest(tmp_path, *(f"c{i},a.mp4,x,train" for i in range(2 * SHARDS)))
    config = IngestConfig(frames=2, image_size=16, samples_per_shard=2, workers=0)
    ingest(manifest, tmp_path / "calm", config)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False)
        nodes: set[str] = set()
        killer = threading.Thread(target=_kill_midway, args=(cluster, doomed, tmp_path / "out", nodes))
        killer.start()
        ingest(manifest, tmp_path / "out", config.model_copy(update={"workers": 2}))
        killer.join(60)
        alive = [node for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert nodes, "the node was to be killed before the end"
    assert len(alive) == 1
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
    assert verify(tmp_path / "out") == []


def _kill_midway(cluster, doomed, out, nodes: set[str]) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("ledger/*.json"))) < SHARDS // 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    if not os.path.exists(out / "dataset.json"):
        nodes.add(doomed.address)
        cluster.remove_node(doomed, allow_graceful=False)
