"""Ctrl-C and SIGTERM while Ray Train's workers train: exit status, words, the run in MLflow, and that it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import ROOT
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET
from trainers.tracking import Store

SETTINGS = [*NET, "epochs=2000", "batch_size=8", "workers=1", "cpus=1"]


def stopped(runs: Path, media: Path, number: int, times: int) -> tuple[int, str]:
    """Exit status and standard error of a training that got a signal after its first epoch."""
    command = [sys.executable, "avmend.py", "train", "finetune", "--runs", str(runs), f"data={media}", *SETTINGS]
    environment = {**os.environ, "RAY_ADDRESS": ""} | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    try:
        while not list(runs.glob("finetune-*/last/finetune/checkpoint.json")):
            assert driver.poll() is None, "the run ended before the signal"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(times):
            driver.send_signal(number)  # to the driver alone, as kill and a scheduler do
            time.sleep(0.3)
        _, error = driver.communicate(timeout=120)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
    return driver.returncode, error.decode()


@pytest.mark.parametrize(
    ("number", "times", "status"),
    [
        pytest.param(signal.SIGINT, 1, 130, marks=pytest.mark.ray),
        pytest.param(signal.SIGINT, 3, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 1, 143, marks=pytest.mark.slow),  # as test_local_ray.py has it
    ],
)
def test_a_signal_ends_training_with_its_status(number, times, status, tmp_path, mlflow_root):
    media, runs = tmp_path / "media", mlflow_root
    media_dataset(media, {"train": 48, "val": 8})
    ended, error = stopped(runs, media, number, times)
    assert ended == status
    assert "Traceback" not in error
    if times == 1:
        assert error.rstrip().endswith("; the same command goes on")
    store = Store(runs)  # who ended at once left its run RUNNING; the next command closes it
    (run,) = MlflowClient(store.uri).search_runs([e.experiment_id for e in store.client.search_experiments()])
    assert run.info.status == "KILLED"
