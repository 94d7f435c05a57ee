"""Training on Ray Train, from the command: repeated, killed, failed; what it leaves on disk and in MLflow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from configs import load_config
from shards.checkpoint import has_checkpoint, load_checkpoint
from tests.conftest import ROOT
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET
from trainers.classification.config import FinetuneConfig
from trainers.journal import read_metrics
from trainers.tracking import PARENT, Store
from trainers.train import main, train

pytestmark = pytest.mark.ray
EPOCHS, SAMPLES = 4, 48
SETTINGS = [*NET, f"epochs={EPOCHS}", "batch_size=8", "workers=2", "cpus=1", "retries=0"]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    media_dataset(folder, {"train": SAMPLES, "val": 8})
    return folder


@pytest.fixture(scope="module")
def new_runs(_mlflow_schema, tmp_path_factory):
    """Makes folders of runs, each with an empty MLflow store."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copy(_mlflow_schema, folder)
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield make


def settings(media: Path, *more: str) -> FinetuneConfig:
    return load_config(FinetuneConfig, None, [f"data={media}", *SETTINGS, *more])


@pytest.fixture(scope="module")
def whole(media, new_runs, ray_cluster) -> Path:
    """The folder of an undisturbed run of two workers."""
    return train(settings(media), new_runs("whole"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "finetune").weights


def assert_same_bits(a: Path, b: Path) -> None:
    mine, other = weights(a), weights(b)
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []


def mlflow_runs(runs: Path) -> dict:
    """Runs of a store by name."""
    client = Store(runs).client
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.info.run_name: run for run in found}


def test_two_workers_share_the_work_and_every_epoch_is_told(whole):
    lines = read_metrics(whole / "logs" / "finetune")
    assert [line.step for line in lines] == list(range(1, EPOCHS + 1))
    assert all(line.metrics["samples"] == SAMPLES for line in lines), "both ranks' samples, each once"
    assert lines[-1].metrics["loss"] < lines[0].metrics["loss"]
    assert not (whole / "ray").exists()


def test_mlflow_has_params_and_every_epochs_metrics(whole):
    run = mlflow_runs(whole.parent)[whole.name]
    assert run.info.status == "FINISHED"
    assert (run.data.params["epochs"], run.data.params["backbone.dim"]) == (str(EPOCHS), "32")
    history = Store(whole.parent).client.get_metric_history(run.info.run_id, "val_accuracy")
    lines = read_metrics(whole / "logs" / "finetune")
    assert {m.step: m.value for m in history} == {x.step: x.metrics["val_accuracy"] for x in lines}
    assert run.data.metrics["best/finetune/val_accuracy"] == max(x.metrics["val_accuracy"] for x in lines)


def test_a_finished_run_returns_at_once_and_another_config_has_another_folder(whole, media, new_runs):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert train(settings(media), whole.parent) == whole
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before
    other = train(settings(media, "seed=1", "workers=0", "epochs=1"), new_runs("other"))
    assert other.name != whole.name
    assert has_checkpoint(other / "finetune")


def killed_after_an_epoch(media: Path, runs: Path, address: str) -> Path:
    """A driver on the cluster at `address`, killed once an epoch is on disk; the run's folder."""
    command = [sys.executable, "-m", "trainers.train", "finetune", "--runs", str(runs)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "RAY_ADDRESS": address}
    driver = subprocess.Popen(
        [*command, f"data={media}", *SETTINGS], cwd=ROOT, start_new_session=True, env=environment, **quiet
    )
    deadline = time.monotonic() + 300
    try:
        while not (states := list(runs.glob("finetune-*/last/finetune/checkpoint.json"))):
            assert driver.poll() is None, "the run ended before the kill"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    return states[0].parents[2]


def test_killed_after_an_epoch_and_resumed_in_another_folder_gives_the_same_bits(whole, media, new_runs, ray_cluster):
    runs = new_runs("killed")
    folder = killed_after_an_epoch(media, runs, ray_cluster)
    assert folder.name == whole.name
    kept = read_metrics(folder / "logs" / "finetune")
    assert 0 < len(kept) < EPOCHS
    assert not has_checkpoint(folder / "finetune")
    assert main(["finetune", "--runs", str(runs), f"data={media}", *SETTINGS]) == 0
    assert_same_bits(folder, whole)
    lines = read_metrics(folder / "logs" / "finetune")
    assert [line.step for line in lines] == list(range(1, EPOCHS + 1))
    assert lines[0] == kept[0], "the first epoch was not trained again"
    (run,) = mlflow_runs(runs).values()
    assert run.info.status == "FINISHED"


def test_wrong_input_found_by_a_worker_is_status_2(tmp_path, new_runs, ray_cluster, capfd):
    """A label that dataset.json does not know: only who reads the shards can see it."""
    media_dataset(tmp_path / "media", {"train": 16}, lambda i: "ghost" if i == 7 else "bell")
    runs = new_runs("wrong")
    arguments = ["finetune", "--runs", str(runs), f"data={tmp_path / 'media'}", *SETTINGS]
    assert main(arguments) == 2
    error = capfd.readouterr().err
    assert "field 'label': sample 'clip train007': unknown label 'ghost'" in error
    assert "remedy: known labels: bell, drum, rain" in error
    assert "Traceback" not in error
    assert Counter(run.info.status for run in mlflow_runs(runs).values()) == {"FAILED": 1}


def test_a_loss_that_is_not_finite_reaches_the_user_and_mlflow(media, new_runs, ray_cluster):
    runs = new_runs("nan")
    with pytest.raises(FloatingPointError, match=r"finetune: loss is (nan|inf) in epoch 1, step \d"):
        train(settings(media, "lr=1e30", "warmup=0", "workers=1"), runs)
    assert [run.info.status for run in mlflow_runs(runs).values()] == ["FAILED"]


def test_case_wise_methods_from_features_to_the_table(whole, tmp_path, new_runs):
    """Prompts on two workers; a run per method and a child per case in MLflow, then the evaluation's."""
    from pipelines.features import main as features
    from trainers.evaluate import main as evaluate

    data, runs = tmp_path / "media", new_runs("cases")
    media_dataset(data, {"train": 24, "val": 8, "test": 12})
    assert features(["--data", str(data), "--backbone", str(whole), "draws=1", "workers=1"]) == 0
    quick = [f"data={data}", f"backbone={whole}", "epochs=1", "batch_size=8", "cpus=1"]
    for recipe, workers in (("prompt", 2), ("lora", 0)):
        assert main([recipe, "--runs", str(runs), *quick, f"workers={workers}"]) == 0
    folders = sorted(runs.glob("*-*/config.json"))
    assert len(folders) == 2
    out = runs / "results"
    arguments = [str(whole), *(str(f.parent) for f in folders), "--data", str(data), "--out", str(out)]
    assert evaluate(arguments) == 0
    assert {"results.csv", "results.md", "results.png", "draws.csv"} <= {p.name for p in out.iterdir()}
    found = mlflow_runs(runs)
    (prompt,) = (run for name, run in found.items() if name.startswith("prompt-") and "/" not in name)
    cases = [run for run in found.values() if run.data.tags.get(PARENT) == prompt.info.run_id]
    assert len(cases) == 4
    assert all("loss" in run.data.metrics and run.data.metrics["samples"] == 24 for run in cases)
    methods = [r for r in found.values() if r.data.tags.get(PARENT) == found["evaluate-results"].info.run_id]
    assert len(methods) == 1 + 3 + 2
    assert all("accuracy/complete" in run.data.metrics for run in methods)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
