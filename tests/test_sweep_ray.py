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

from tests.conftest import ROOT
from tests.fixtures.asking import asking_world
from tests.fixtures.asking import settings as settings_of
from tests.fixtures.builders import media_dataset
from tests.fixtures.sweeps import SWEEP, sweep_file
from trainers.tracking import PARENT, Store

pytestmark = pytest.mark.ray
STEADY = ("number", "length", "depth", "seed", "status", "epochs", "loss", "val_accuracy", "val_loss")
SPACE = {"length": [1, 2, 3]}  # one more than fit on two CPUs
DEEP = {**SWEEP["settings"], "depth": 1, "epochs": 2}


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
    return str(sweep_file(folder, **{"data": data, "space": SPACE, "settings": DEEP, **changes}))


def command(name: str, runs: Path) -> list[str]:
    return [name, "--runs", str(runs), "--data", str(runs / "data")]


def results(runs: Path, name: str = "mini") -> list[dict[str, str]]:
    """The table without what time and machine decide."""
    (path,) = runs.glob(f"{name}-*/sweep.csv")
    with path.open() as file:
        return [{k: row[k] for k in STEADY if k in row} for row in csv.DictReader(file)]


def mlflow_runs(runs: Path, name: str = "mini") -> list:
    """All runs of a sweep's experiment: its own, of what it made first, of its trials."""
    client = Store(runs).client
    found = client.get_experiment_by_name(f"sweep-{name}")
    assert found is not None
    return list(client.search_runs([found.experiment_id]))


@pytest.fixture(scope="module")
def whole(media, new_runs, ray_cluster) -> Path:
    """The folder of runs of an undisturbed sweep."""
    from tuning.sweep import main

    runs = new_runs("whole")
    assert main(command(mini(media, runs), runs)) == 0
    return runs


def test_a_sweep_runs_to_its_end(whole):
    rows = results(whole)
    assert [(row["status"], row["length"]) for row in rows] == [("finished", str(n)) for n in (1, 2, 3)]
    assert all(row["epochs"] == "4" for row in rows), "two epochs of two cases"
    (folder,) = whole.glob("mini-*")
    assert {"sweep.md", "sweep.png", "sweep.json"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "ray").exists()


def test_mlflow_has_a_parent_and_a_child_per_trial(whole):
    runs = mlflow_runs(whole)
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    trials = [r for r in runs if r.data.tags.get(PARENT) == parent.info.run_id and "outcome" in r.data.tags]
    assert len(trials) == 3
    for run in trials:
        assert {"length", "depth", "epochs", "recipe"} <= run.data.params.keys()
        assert not {"space", "search", "folder"} & run.data.params.keys()
        assert {"commit", "dataset", "backbone", "identity"} <= run.data.tags.keys()
        assert {"best/val_accuracy", "trained", "noisy_audio/loss", "val_accuracy"} <= run.data.metrics.keys()
        history = Store(whole).client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [m.step for m in history] == list(range(1, 5))
    assert parent.data.metrics["trials/finished"] == 3
    assert parent.data.metrics["best/val_accuracy"] == max(r.data.metrics["val_accuracy"] for r in trials)
    names = {f.path for f in Store(whole).client.list_artifacts(parent.info.run_id)}
    assert {"sweep.csv", "sweep.md", "sweep.png", "best"} <= names


def test_the_same_command_again_trains_nothing(whole, media):
    from tuning.sweep import main

    kinds = ("*.safetensors", "*.tar", "metrics.jsonl", "outcome.json")
    before = {p: p.stat().st_mtime_ns for kind in kinds for p in whole.rglob(kind)}
    assert main(command(mini(media, whole), whole)) == 0
    assert {p: p.stat().st_mtime_ns for kind in kinds for p in whole.rglob(kind)} == before
    assert len(mlflow_runs(whole)) == 5, "the sweep, its backbone, three trials"


def test_a_trial_that_is_not_over_goes_on_with_its_data_elsewhere(whole, media, tmp_path):
    from tuning.sweep import main

    shutil.copytree(media, tmp_path / "moved")
    table = results(whole)
    min(whole.glob("mini-*/trials/*/outcome.json")).unlink()  # as if it had been killed before that
    assert main(command(mini(tmp_path / "moved", tmp_path), whole)) == 0
    assert results(whole) == table
    assert len(list(whole.glob("mini-*"))) == 1


def test_a_metric_that_the_trials_have_not_ends_the_sweep_at_the_first_epoch(whole, media, tmp_path, capsys):
    from tuning.sweep import main

    name = Path(mini(media, tmp_path, space={"length": [1, 2, 3, 4, 5, 6]}))
    name = name.rename(tmp_path / "mistyped.yaml")
    assert main([*command(str(name), whole), "search.metric=val_acuracy"]) == 2
    said = capsys.readouterr().err
    assert "no metric 'val_acuracy' in the trials' epochs" in said
    assert "did you mean 'val_accuracy'?" in said
    assert "Traceback" not in said
    found = mlflow_runs(whole, "mistyped")
    assert {run.info.status for run in found} == {"FAILED"}
    assert len(found) < 6


def test_killed_in_mid_trial_and_resumed_gives_the_same_trials_and_metrics(whole, media, new_runs, ray_cluster):
    from tuning.sweep import main

    runs = new_runs("killed")
    name = mini(media, runs)
    (backbone,) = whole.glob("finetune-*")
    shutil.copytree(backbone, runs / backbone.name)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen(
        [sys.executable, "-m", "tuning.sweep", *command(name, runs)],
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ray_cluster},
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
    assert len(found) == 4


def test_a_trial_that_cannot_succeed_is_told_and_the_others_go_on(whole, media, tmp_path, capsys):
    from tuning.sweep import main

    settings = {**SWEEP["settings"], "cases": ["complete"], "epochs": 1}  # whole made the backbone
    name = Path(mini(media, tmp_path, space={"lr": [1e-2, 1e30]}, settings=settings))
    assert main(command(str(name.rename(tmp_path / "failing.yaml")), whole)) == 1
    assert [row["status"] for row in results(whole, "failing")] == ["finished", "failed"]
    printed = capsys.readouterr()
    assert "trial 001 failed: complete: loss is" in printed.out
    assert Counter(run.info.status for run in mlflow_runs(whole, "failing")) == {"FINISHED": 2, "FAILED": 1}


def test_trials_that_answer_questions_sit_an_exam_and_its_tables_follow(whole, tmp_path, capsys):
    from tuning.sweep import main

    asking_world(tmp_path, {"train": 16, "val": 8, "test": 10})
    given = settings_of(tmp_path, recovery="rmm_avr", epochs=2)
    data = {"media": str(given.pop("data"))}
    given = {name: str(value) if name == "questions" else value for name, value in given.items()}
    path = sweep_file(
        tmp_path,
        recipe="avqa",
        data=data,
        settings=given,
        space={"recovery_sizes.rmm.slots": [3, 6]},
        search={"metric": "val_accuracy_mean"},
        protocol={"steps": [1, 9]},
    ).rename(tmp_path / "asking.yaml")
    (tmp_path / "mini.yaml").unlink(missing_ok=True)
    assert main(command(str(path), whole)) == 0
    text = capsys.readouterr().out
    assert "| recovery_sizes.rmm.slots | audio missing | visual missing | complete | mean | question alone |" in text
    assert "### By kind of question, visual missing" in text
    (folder,) = whole.glob("asking-*")
    with (folder / "answers.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "all"]
    assert {(row["case"], row["steps"]) for row in rows} >= {("complete", ""), ("audio missing", "")}
    assert (folder / "answers.png").stat().st_size > 5000
    children = [r for r in mlflow_runs(whole, "asking") if "outcome" in r.data.tags]
    assert all({"protocol/audio_missing", "protocol/mean"} <= run.data.metrics.keys() for run in children)
    (folder / "sweep.md").unlink()
    lost = next(folder.glob("trials/000-*"))  # as if killed between the end of training and the protocol
    for name in ("answers.json", "outcome.json"):
        (lost / name).unlink()
    before = (folder / "answers.csv").read_bytes()
    assert main(command(str(path), whole)) == 0
    assert (folder / "answers.csv").read_bytes() == before


NESTED = """
import sys, time, ray
from tuning.sweep import main
ray.init("local", num_cpus=3, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
status = main(sys.argv[1:])
end = time.monotonic() + 30
while ray.available_resources().get("CPU") != 3 and time.monotonic() < end:
    time.sleep(0.1)
print("free:", ray.available_resources().get("CPU"))
sys.exit(status)
"""


def test_nested_trials_report_every_epoch_and_stopped_ones_free_their_workers(whole, media, new_runs):
    """Three CPUs: one trial of two workers at a time; without the dashboard, a stopped one's are free all the
    same."""
    runs = new_runs("nested")
    (backbone,) = whole.glob("finetune-*")
    shutil.copytree(backbone, runs / backbone.name)
    settings = {**DEEP, "workers": 2, "epochs": 4, "cases": ["complete"], "retries": 0}
    early = {"grace": 1, "reduction": 4}
    space = {"lr": {"grid": [0.03, 1e-9]}}
    name = mini(
        media,
        runs,
        settings=settings,
        space=space,
        early_stop=early,
        search={"metric": "loss", "mode": "min"},
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", NESTED, *command(name, runs)]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = results(runs)
    assert (rows[0]["status"], rows[0]["epochs"]) == ("finished", "4")
    stopped = [row for row in rows if row["status"] == "stopped"]
    assert len(stopped) == 1
    assert "free: 3.0" in done.stdout
    assert all(int(row["epochs"]) < 4 for row in stopped), "workers run on for the moment that Tune needs"
