"""Ingestion on two raylets of this machine, one of which is killed midway."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipelines.ingest import ingest
from shards.verify import verify
from tests.conftest import ROOT
from tests.fixtures.media import make_clip
from tests.fixtures.two_nodes import CONFIG, SHARDS
from tests.test_ingest import digests, write_manifest

pytestmark = pytest.mark.ray


def test_a_killed_node_costs_only_time(tmp_path):
    make_clip(tmp_path / "a.mp4", seconds=0.5)
    manifest = write_manifest(tmp_path, *(f"c{i},a.mp4,x,train" for i in range(2 * SHARDS)))
    ingest(manifest, tmp_path / "calm", CONFIG.model_copy(update={"workers": 0}))
    command = [sys.executable, "-m", "tests.fixtures.two_nodes", str(manifest), str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "killed 1, alive 1" in done.stdout
    assert digests(tmp_path / "out") == digests(tmp_path / "calm")
    assert verify(tmp_path / "out") == []
