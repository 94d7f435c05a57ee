"""Processes that make clips: however the command ends, none of them stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.integration
BUILD = """
import sys
from pathlib import Path
from pipelines.corpora.build import build_clips
from tests.test_build_clips import encode_for_ever
if __name__ == "__main__":
    build_clips(Path(sys.argv[1]), [{"id": str(i)} for i in range(8)], encode_for_ever, jobs=2)
"""


def encode_for_ever(description: Mapping[str, Any], path: Path) -> None:
    """Leaves its process's id, and stays."""
    path.with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(600)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def waited(seconds: float, done) -> bool:
    end = time.monotonic() + seconds
    while not (found := done()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_command_that_is_killed(tmp_path, how):
    (tmp_path / "build.py").write_text(BUILD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "build.py"), str(tmp_path / "clips")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    pids: list[int] = []
    try:
        assert waited(60, lambda: len(list((tmp_path / "clips").glob("*.pid"))) == 2)
        pids = [int(path.read_text()) for path in (tmp_path / "clips").glob("*.pid")]
        assert all(map(alive, pids))
        process.send_signal(how)
        process.wait(30)
        assert waited(10, lambda: not any(map(alive, pids))), "workers are left behind"
    finally:
        process.kill()
        process.wait()
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
