"""What needs several fresh processes: the first use of a store by some at once, and the UI's server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.fixtures.heads import free_ports
from trainers.tracking import Store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
OPEN = """
import sys, pathlib, trainers.tracking as t
store = t.Store(sys.argv[1])
with store.run(sys.argv[2], "demo", folder=pathlib.Path(sys.argv[1]) / sys.argv[2]) as run:
    run.log(1, {"loss": 1.0})
"""


def test_first_use_of_a_store_by_three_processes_at_once(tmp_path):
    command = [sys.executable, "-c", OPEN, str(tmp_path / "runs")]
    started = [subprocess.Popen([*command, f"r{number}"], env=ENVIRONMENT) for number in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    client = Store(tmp_path / "runs").client
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(run.info.run_name for run in found) == ["r0", "r1", "r2"]


def test_ui_serves_the_store_until_it_is_told_to_stop(mlflow_root):
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "trainers.ui", "--store", str(mlflow_root), "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT, start_new_session=True, **quiet)
    try:
        assert answer(f"http://127.0.0.1:{port}/health", seconds=90) == 200
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # not SIGINT: a shell's background jobs start with it ignored
        assert server.wait(30) is not None
    with pytest.raises(OSError, match="refused"):
        answer(f"http://127.0.0.1:{port}/health", seconds=0)


def answer(url: str, seconds: float) -> int:
    limit = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.status
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.5)
