"""Streamed training on two Ray workers: killed within an epoch and resumed, it ends in the same bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs import load_config
from shards.checkpoint import has_checkpoint, load_resumable
from shards.errors import InputError
from shards.scan import write_tables
from tests.conftest import ROOT
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET
from tests.test_train_ray import assert_same_bits
from trainers.classification.config import FinetuneConfig
from trainers.journal import read_metrics
from trainers.train import train

pytestmark = pytest.mark.slow
EPOCHS, SAMPLES = 3, 400  # 50 steps an epoch, of 45 shards
SETTINGS = [*NET, f"epochs={EPOCHS}", "batch_size=8", "workers=2", "cpus=1", "retries=0", "save_steps=1"]
STREAM = ["stream=true", "lanes=4", "shuffle_buffer=24"]


def settings(media: Path, *more: str) -> FinetuneConfig:
    return load_config(FinetuneConfig, None, [f"data={media}", *SETTINGS, *STREAM, *more])


def state_of(runs: Path) -> dict[str, Any]:
    """Of the one run there: where its last resumable state is; empty: there is none, or it is just being replaced."""
    for last in runs.glob("finetune-*/last/finetune"):
        try:
            return dict(load_resumable(last).state) if has_checkpoint(last) else {}
        except (InputError, OSError):
            return {}
    return {}


def killed_within_the_second_epoch(media: Path, runs: Path, address: str) -> None:
    command = [sys.executable, "-m", "trainers.train", "finetune", "--runs", str(runs), f"data={media}"]
    with (runs / "killed.log").open("w") as log:
        driver = subprocess.Popen(
            [*command, *SETTINGS, *STREAM, "loaders=1"],
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "RAY_ADDRESS": address},
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 400
    try:
        while not (state := state_of(runs)) or state["epoch"] < 1 or state["taken"] < SAMPLES // 4:
            assert driver.poll() is None, (runs / "killed.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()


def test_killed_within_an_epoch_and_resumed_gives_the_same_bits(mlflow_root, tmp_path, ray_cluster):
    media = tmp_path / "media"
    write_tables(media, media_dataset(media, {"train": SAMPLES, "val": 8}))
    shutil.copytree(mlflow_root, tmp_path / "killed")
    whole = train(settings(media, "loaders=1"), mlflow_root)
    killed_within_the_second_epoch(media, tmp_path / "killed", ray_cluster)
    time.sleep(2)  # what its workers still write is there
    state = state_of(tmp_path / "killed")
    assert (state["epoch"], 0 < state["taken"] < SAMPLES) == (1, True), "stopped within the second epoch"
    folder = tmp_path / "killed" / whole.name
    assert not has_checkpoint(folder / "finetune")
    (kept,) = read_metrics(folder / "logs" / "finetune")
    assert train(settings(media, "loaders=2"), folder.parent) == folder, "another number of loaders is the same run"
    assert_same_bits(folder, whole)
    lines, wanted = (read_metrics(run / "logs" / "finetune") for run in (folder, whole))
    assert lines[0] == kept, "the first epoch was not trained again"
    assert [line.metrics["samples"] for line in lines] == [SAMPLES] * EPOCHS
    assert [line.metrics["loss"] for line in lines] == [line.metrics["loss"] for line in wanted]
