"""Sweeps on Ray Tune: to the end, through kills, with nested trials; what is left on disk and in MLflow."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.builders import media_dataset
from tests.conftest import ROOT
from tests.sweeps import SWEEP, sweep_file
from trainers.tracking import PARENT, Store

pytestmark = pytest.mark.ray
STEADY = ("number", "length", "depth", "seed", "status", "epochs", "loss", "val_accuracy", "val_loss")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    media_dataset(folder, {"train": 48, "val": 12})
    return folder


@pytest.fixture(scope="module")
def new_runs(_mlflow_schema, tmp_path_factory):
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(_mlflow_schema, folder)
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield make


def mini(media: Path, folder: Path, **changes) -> str:
    data = {**SWEEP["data"], "media": str(media)}
    return str(sweep_file(folder, **{"data": data, **changes}))


def command(name: str, runs: Path) -> list[str]:
    return [name, "--runs", str(runs), "--data", str(runs / "data")]


def results(runs: Path) -> list[dict[str, str]]:
    """The table without what time and machine decide."""
    (path,) = runs.glob("mini-*/sweep.csv")
    with path.open() as file:
        return [{k: row[k] for k in STEADY if k in row} for row in csv.DictReader(file)]


def mlflow_runs(runs: Path) -> list:
    client = Store(runs).client
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


@pytest.fixture(scope="module")
def whole(media, new_runs, ray_cluster) -> Path:
    """The folder of runs of an undisturbed sweep."""
    from tuning.sweep import main

    runs = new_runs("whole")
    assert main(command(mini(media, runs), runs)) == 0
    return runs


def test_a_sweep_runs_to_its_end(whole):
    rows = results(whole)
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert {(row["length"], row["depth"]) for row in rows} == {("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")}
    assert all(row["epochs"] == "6" for row in rows), "three epochs of two cases"
    (folder,) = whole.glob("mini-*")
    assert {"sweep.md", "sweep.png", "sweep.json"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "ray").exists()


def test_mlflow_has_a_parent_and_a_child_per_trial(whole):
    runs = mlflow_runs(whole)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    trials = [r for r in runs if r.data.tags.get(PARENT) == parent.info.run_id and "outcome" in r.data.tags]
    assert len(trials) == 4
    for run in trials:
        assert {"length", "depth", "epochs", "recipe"} <= run.data.params.keys()
        assert not {"space", "search", "folder"} & run.data.params.keys()
        assert {"commit", "dataset", "backbone", "identity"} <= run.data.tags.keys()
        assert {"best/val_accuracy", "trained", "noisy_audio/loss", "val_accuracy"} <= run.data.metrics.keys()
        history = Store(whole).client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [m.step for m in history] == list(range(1, 7))
    assert parent.data.metrics["trials/finished"] == 4
    assert parent.data.metrics["best/val_accuracy"] == max(r.data.metrics["val_accuracy"] for r in trials)
    names = {f.path for f in Store(whole).client.list_artifacts(parent.info.run_id)}
    assert {"sweep.csv", "sweep.md", "sweep.png", "best"} <= names


def test_the_same_command_again_trains_nothing(whole, media):
    from tuning.sweep import main

    kinds = ("*.safetensors", "*.tar", "metrics.jsonl", "outcome.json")
    before = {p: p.stat().st_mtime_ns for kind in kinds for p in whole.rglob(kind)}
    assert main(command(mini(media, whole), whole)) == 0
    assert {p: p.stat().st_mtime_ns for kind in kinds for p in whole.rglob(kind)} == before
    assert len(mlflow_runs(whole)) == 6, "the sweep, its backbone, four trials"


def test_killed_in_mid_trial_and_resumed_gives_the_same_trials_and_metrics(
    whole, media, new_runs, ray_cluster
):
    from tuning.sweep import main

    runs = new_runs("killed")
    name = mini(media, runs)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen(
        [sys.executable, "-m", "tuning.sweep", *command(name, runs)],
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ},
        **quiet,
    )
    deadline = time.monotonic() + 300
    try:
        while not list(runs.glob("prompt-*/last/noisy_audio/checkpoint.json")):
            assert driver.poll() is None, "the sweep ended before the kill"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    states = Counter(run.info.status for run in mlflow_runs(runs))  # whoever opens the store closes the dead
    assert states["KILLED"] >= 2
    assert not states["RUNNING"]
    assert main(command(name, runs)) == 0
    assert results(runs) == results(whole)
    found = mlflow_runs(runs)
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len(found) == 6


def test_a_trial_that_cannot_succeed_is_told_and_the_others_go_on(media, new_runs, ray_cluster, capsys):
    from tuning.sweep import main

    runs = new_runs("failed")
    name = mini(
        media, runs, space={"lr": [1e-2, 1e30]}, settings={**SWEEP["settings"], "cases": ["complete"]}
    )
    assert main(command(name, runs)) == 1
    assert [row["status"] for row in results(runs)] == ["finished", "failed"]
    printed = capsys.readouterr()
    assert "trial 001 failed: complete: loss is" in printed.out
    assert Counter(run.info.status for run in mlflow_runs(runs)) == {"FINISHED": 3, "FAILED": 1}


NESTED = """
import sys, ray
from tuning.sweep import main
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
sys.exit(main(sys.argv[1:]))
"""


def test_nested_trials_report_every_epoch_and_stopped_ones_free_their_workers(media, new_runs):
    """Three CPUs: one trial of two workers at a time; without the dashboard, the next one starts all the
    same."""
    runs = new_runs("nested")
    settings = {**SWEEP["settings"], "workers": 2, "epochs": 12, "cases": ["complete"], "retries": 0}
    early = {"grace": 1, "reduction": 4}
    space = {"lr": {"grid": [0.03, 1e-9, 2e-9]}}
    name = mini(
        media,
        runs,
        settings=settings,
        space=space,
        early_stop=early,
        search={"metric": "loss", "mode": "min"},
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    call = [sys.executable, "-c", NESTED, *command(name, runs)]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = results(runs)
    assert (rows[0]["status"], rows[0]["epochs"]) == ("finished", "12")
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert len(stopped) == 2
    assert all(int(row["epochs"]) < 12 for row in stopped), "workers run on for the moment that Tune needs"
