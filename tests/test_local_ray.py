"""A Ray of this machine's own: on loopback alone, beside others, and honest about what it can never give."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from trainers.tracking import read_runs

pytestmark = pytest.mark.ray
SESSION = """
import os, time
from configs.cluster import ray_session, require_resources
from shards.errors import InputError

def listening():
    found = {}
    for kind in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{kind}").read().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = words[1]
    return found

def ours(mark):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark not in open(f"/proc/{pid}/environ", "rb").read():
                continue
            for handle in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{handle}")
                if link.startswith("socket:["):
                    yield pid, link[8:-1]
        except OSError:
            continue

with ray_session(2):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    ports = listening()
    for pid, inode in ours(("AVMEND_MARK=" + os.environ["AVMEND_MARK"]).encode()):
        if inode in ports:
            print("listens", ports[inode])
    print("fits", require_resources(1, 0, 2))
    for wanted in ((1, 1, 1), (1, 0, 3), (3, 0, 1)):
        begin = time.monotonic()
        try:
            require_resources(*wanted)
        except InputError as error:
            print("refused", error.field, f"{time.monotonic() - begin < 5}", str(error).splitlines()[0])
"""


@pytest.fixture(scope="module")
def lines() -> list[list[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "AVMEND_MARK": f"listen-{os.getpid()}"}
    done = subprocess.run([sys.executable, "-c", SESSION], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split(maxsplit=3) for line in done.stdout.splitlines()]


def test_it_listens_on_loopback_alone(lines):
    """Addresses as in /proc/net/tcp: hexadecimal, the bytes of a word in reverse."""
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    found = {words[1].partition(":")[0] for words in lines if words[0] == "listens"}
    assert found, "what Ray starts was not found"
    assert found <= loopback


def test_what_it_can_never_give_is_refused_within_seconds(lines):
    assert ["fits", "None"] in [words[:2] for words in lines]
    refused = [words for words in lines if words[0] == "refused"]
    assert [words[1:3] for words in refused] == [["gpu", "True"], ["workers", "True"], ["workers", "True"]]
    assert "1 worker of 1 CPUs and 1 GPUs do not fit: the cluster has 2 CPUs, 0 GPUs on 1 nodes" in refused[0][3]


TERMINATED = """
import os, signal, sys, time
from pathlib import Path
from configs.cluster import ray_session
from trainers.tracking import Store
root = Path(sys.argv[1])
with Store(root).run("r", "demo", folder=root / "r"), ray_session(1):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


def test_a_run_that_is_told_to_stop_under_ray_is_killed_not_failed(mlflow_root):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", TERMINATED, str(mlflow_root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 143, done.stderr[-3000:]
    assert [run.status for run in read_runs(mlflow_root)] == ["KILLED"]
