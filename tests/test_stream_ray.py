"""Streamed training on two Ray workers: killed within an epoch and resumed, it ends in the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from configs import load_config
from models.registry import VARIABLE as PLUGINS
from shards.checkpoint import has_checkpoint, load_resumable
from shards.scan import write_tables
from tests.conftest import ROOT
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET
from tests.test_train_ray import assert_same_bits
from trainers.classification.config import FinetuneConfig
from trainers.journal import read_metrics
from trainers.train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EPOCHS, SAMPLES = 3, 64
TAKEN = 24  # as in tests.fixtures.dying_training, which is for processes that die
SETTINGS = [*NET, f"epochs={EPOCHS}", "batch_size=8", "workers=2", "cpus=1", "retries=0", "save_steps=1"]
SETTINGS += ["stream=true", "lanes=4", "shuffle_buffer=24"]


def test_killed_within_an_epoch_and_resumed_gives_the_same_bits(mlflow_root, tmp_path, ray_cluster):
    media, others = tmp_path / "media", tmp_path / "others"
    write_tables(media, media_dataset(media, {"train": SAMPLES, "val": 8}))
    shutil.copytree(mlflow_root, others)
    config = load_config(FinetuneConfig, None, [f"data={media}", *SETTINGS])
    whole = train(config, mlflow_root)
    command = ["-m", "trainers.train", "finetune", "--runs", str(others), f"data={media}", *SETTINGS, "loaders=1"]
    environment = {**os.environ, "RAY_ADDRESS": ray_cluster, PLUGINS: "tests.fixtures.dying_training"}
    killed = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode not in (0, 2), killed.stderr[-2000:]
    folder = others / whole.name
    assert (folder / "last" / "finetune").exists(), killed.stderr[-2000:]
    state = load_resumable(folder / "last" / "finetune").state
    assert (state["epoch"], state["taken"]) == (1, TAKEN), "it died within the second epoch"
    assert not has_checkpoint(folder / "finetune")
    (kept,) = read_metrics(folder / "logs" / "finetune")
    assert train(config, others) == folder, "another number of loaders is the same run"
    assert_same_bits(folder, whole)
    lines, wanted = (read_metrics(run / "logs" / "finetune") for run in (folder, whole))
    assert lines[0] == kept, "the first epoch was not trained again"
    assert [line.metrics["samples"] for line in lines] == [SAMPLES] * EPOCHS
    for name in ("loss", "val_loss"):
        assert [line.metrics[name] for line in lines] == [line.metrics[name] for line in wanted]
