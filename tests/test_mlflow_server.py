"""The MLflow server as cluster.yaml starts it on a head, and a run that is sent to it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.processes import Marked
from tests.conftest import ROOT
from tests.fixtures.heads import free_ports
from trainers.tracking import Store, probe_store
from tuning.checks.cluster_file import read_cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    """Its address; the command is the file's, but for folder and port."""
    (line,) = (c for c in read_cluster(ROOT / "cluster.yaml")["head_start_ray_commands"] if "mlflow server" in c)
    (port,) = free_ports(1)
    (tmp_path / "mlflow").mkdir()
    program = Path(sys.executable).with_name("mlflow")
    line = line.replace("~/avmend/.venv/bin/mlflow", str(program)).replace("5000", str(port))
    mark = secrets.token_hex(8)
    env = {**os.environ, "AVMEND_MARK": mark}
    shell = subprocess.Popen(["bash", "-c", line.replace("/shared", str(tmp_path))], env=env)
    url, marked = f"http://127.0.0.1:{port}", Marked(shell, mark)
    try:
        shell.wait(60)
        _wait(f"{url}/health", tmp_path / "mlflow" / "server.log")
        yield url
    finally:
        marked.kill(marked.pids())


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + 500
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.5)


def test_a_run_with_its_artifacts_goes_to_the_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert "opens, takes writes" in probe_store(tmp_path / "runs")
    store = Store(tmp_path / "runs")
    with store.run("a run", "scenes", {"lr": 0.1}, folder=tmp_path / "runs" / "a") as run:
        run.log(1, {"loss": 2.0})
        (tmp_path / "table.md").write_text("x")
        run.artifact(tmp_path / "table.md")
    found = store.client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"loss": 2.0})
    assert not (tmp_path / "runs" / "mlflow.db").exists()
    (kept,) = (tmp_path / "mlflow" / "artifacts").rglob("table.md")
    assert kept.read_text() == "x"
