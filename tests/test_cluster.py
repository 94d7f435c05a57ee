"""What is asked of a cluster before Ray is, and where a job may write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from configs.auth import Answer, ask, find_token, sent_token
from configs.cluster import JOB, _fits, can_ever_fit, check_address, lasting, ray_session, runs_folder
from shards.errors import InputError
from tests.conftest import ROOT

unit, integration = pytest.mark.unit, pytest.mark.integration
NOBODY = "127.0.0.1:9"
LATE = """
from configs.cluster import ray_session
from shards.errors import InputError
try:
    with ray_session(1):
        pass
except InputError as error:
    print(error)
    raise SystemExit(2)
"""


@unit
def test_an_address_where_nobody_is_fails_at_once(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 32)
    begin = time.monotonic()
    assert ask(NOBODY, None) is Answer.NOBODY
    with pytest.raises(InputError, match=f"no Ray answers at {NOBODY}"), ray_session():
        pass
    assert time.monotonic() - begin < 20, "Ray itself tries for two minutes"


@integration
def test_a_local_ray_that_is_late_is_told_with_a_remedy():
    """In a process of its own, with which the half-started Ray ends."""
    waits = {"RAY_gcs_server_port_wait_time_s": "0", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | waits
    done = subprocess.run([sys.executable, "-c", LATE], env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Ray did not start in time on this machine: Timed out" in done.stdout
    assert "RAY_raylet_start_wait_time_s" in done.stdout.partition("remedy:")[2]


@unit
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "'nonsense' is no address of a Ray cluster"),
        ("host:", "is no address"),
        ("host:port", "is no address"),
        ("ray://nowhere", "is no address"),
        ("redis://host:6379", "is no address"),
        ("ray://127.0.0.1:9", "no Ray answers at ray://127.0.0.1:9"),
        ("ray://nowhere.invalid:10001", "no Ray answers at ray://nowhere.invalid:10001"),
        ("ray://127.0.0.1:99999", "no Ray answers at"),
    ],
)
def test_nonsense_and_places_where_nobody_is_are_refused_at_once(monkeypatch, address, words):
    monkeypatch.setenv("RAY_ADDRESS", address)
    begin = time.monotonic()
    with pytest.raises(InputError, match=words) as caught, ray_session():
        pass
    assert caught.value.field == "RAY_ADDRESS"
    assert time.monotonic() - begin < 10


@unit
@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "workers", "fits"),
    [
        ([{"CPU": 4}], 2, 0, 2, True),
        ([{"CPU": 4}], 2, 0, 3, False),
        ([{"CPU": 3}, {"CPU": 3}], 2, 0, 3, False),  # six CPUs, but a worker runs on one node
        ([{"CPU": 4}], 1, 1, 1, False),
        ([{"CPU": 4, "GPU": 2}, {"CPU": 64}], 1, 1, 2, True),
        ([{"CPU": 4, "GPU": 2}, {"CPU": 64}], 1, 1, 3, False),
        ([], 1, 0, 1, False),
        ([{"CPU": 1}], 0.5, 0, 2, True),
    ],
)
def test_workers_fit_on_nodes_one_by_one(nodes, cpus, gpus, workers, fits):
    assert _fits(nodes, cpus, gpus, workers) is fits


HERE = [{"CPU": 4.0, "memory": 1e9}]


@unit
def test_a_cluster_that_grows_is_waited_for_and_says_what_for():
    grows = {"CPU": 64, "GPU": 8}
    assert can_ever_fit(HERE, grows, 2, 0, 2) is None
    assert can_ever_fit(HERE, grows, 2, 1, 2) == (
        "waiting for the cluster to grow: 2 workers of 2 CPUs and 1 GPUs; now it has 4 CPUs, 0 GPUs on 1 nodes"
    )


@unit
@pytest.mark.parametrize(
    ("most", "cpus", "gpus", "workers", "field"),
    [
        (None, 1, 1, 1, "gpu"),
        ({"CPU": 64, "GPU": 8}, 1, 1, 9, "gpu"),
        ({"CPU": 64, "GPU": 8}, 33, 1, 2, "workers"),
        ({"CPU": 64}, 1, 1, 1, "gpu"),
        (None, 5, 0, 1, "workers"),
    ],
)
def test_what_a_cluster_can_never_give_is_refused(most, cpus, gpus, workers, field):
    with pytest.raises(InputError, match="do not fit: the cluster has 4 CPUs, 0 GPUs on 1 nodes") as caught:
        can_ever_fit(HERE, most, cpus, gpus, workers)
    assert caught.value.field == field


@unit
def test_what_does_not_fit_is_told_by_the_setting_that_says_how_many():
    with pytest.raises(InputError, match="4 replicas of 2 CPUs and 0 GPUs do not fit") as caught:
        can_ever_fit(HERE, None, 2, 0, 4, "replicas")
    assert (caught.value.field, caught.value.remedy) == ("replicas", "set replicas and cpus to what a node has")


@unit
def test_the_dashboards_address_is_told_from_the_heads():
    with pytest.raises(InputError, match="address of a dashboard"):
        check_address("http://127.0.0.1:8265")
    check_address("auto")  # only Ray itself can ask


@unit
def test_the_token_is_taken_as_ray_takes_it(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert find_token().text == "home"
    (tmp_path / "named").write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert find_token().text == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "text")
    assert (find_token().text, find_token().source) == ("text", "RAY_AUTH_TOKEN")
    assert "text" not in repr(find_token())
    assert sent_token() is None, "Ray sends none to a cluster that runs while the mode is unset"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert sent_token() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert sent_token().text == "text"


@unit
def test_a_job_writes_nothing_into_its_working_directory(monkeypatch, tmp_path):
    elsewhere = tmp_path / "shared" / "runs"
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.delenv(JOB, raising=False)
    assert lasting("runs", "--runs") == working / "runs", "no job: the user's own folder"
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {}, "metadata": {}}))
    assert lasting("runs", "--runs") == working / "runs", "no copy was made of it"
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}))
    for path in ("runs", working / "runs", "../working/runs"):
        with pytest.raises(InputError, match="runs would be lost"):
            lasting(path, "--runs")
    assert lasting(elsewhere, "--runs") == elsewhere


@unit
def test_every_command_that_writes_refuses_to_lose_it(monkeypatch, tmp_path, capsys):
    from avmend import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(JOB, json.dumps({"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}))
    for command in (
        "corpus scenes --out clips --clips 2",
        "ingest --manifest m.csv --out data",
        "features --data data --backbone b",
        "train finetune data=data",
        "evaluate run --out results",
        "study demo --data data",
        "sweep prompts --data data",
    ):
        assert main(command.split()) == 2
        assert "would be lost" in capsys.readouterr().err, command
    assert not list(tmp_path.iterdir())


@unit
def test_the_folder_of_runs_may_be_named_by_the_environment(monkeypatch):
    monkeypatch.delenv("AVMEND_RUNS", raising=False)
    assert str(runs_folder()) == "runs"
    monkeypatch.setenv("AVMEND_RUNS", "/shared/runs")
    assert str(runs_folder()) == "/shared/runs"
