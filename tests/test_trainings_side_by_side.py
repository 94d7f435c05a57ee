"""Trainings that do not wait for each other: one whose process dies goes on from its last epoch, or is named."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs import load_config
from shards.errors import InputError
from shards.hashes import file_sha256
from tests.fixtures.worlds import NET, QUICK
from trainers.classification.config import FinetuneConfig
from trainers.journal import logs, read_metrics
from trainers.tracking import Store, read_runs
from trainers.train import train
from tuning.several import train_several

pytestmark = pytest.mark.ray
EPOCHS = 60


def finetune(media: Path, *more: str) -> FinetuneConfig:
    words = [f"data={media}", *QUICK, *NET, f"epochs={EPOCHS}", "lr=0.001", *more]
    return load_config(FinetuneConfig, None, words)


def weights(run: Path) -> str:
    return file_sha256(run / "finetune" / "weights.safetensors")


def kill_once_it_learns(runs: Path, killed: list[int]) -> None:
    """Ends the process of the first training that has epochs, as the kernel does where memory is short."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(read_metrics(logs(run, "finetune")) for run in runs.glob("finetune-*")):
            working = [p for p in psutil.Process().children(recursive=True) if p.cmdline()[:1] == ["ray::_work"]]
            for process in working:
                process.kill()
                killed.append(process.pid)
            if working:
                return
        time.sleep(0.02)


def trained_side_by_side(config: FinetuneConfig, runs: Path) -> tuple[Any, list[int]]:
    killed: list[int] = []
    killer = threading.Thread(target=kill_once_it_learns, args=(runs, killed))
    with Store(runs).run("study", "study", {}, folder=runs / "study") as parent:
        killer.start()
        try:
            return train_several([config], runs, "1/1", parent), killed
        finally:
            killer.join()


def test_a_training_whose_process_dies_goes_on_to_the_same_weights(world, mlflow_root, tmp_path, ray_cluster):
    config = finetune(world.media, "retries=1")
    (found,), killed = trained_side_by_side(config, mlflow_root)
    assert len(killed) == 1
    shutil.copy(mlflow_root / "mlflow.db", tmp_path)
    assert weights(found) == weights(train(config, tmp_path))
    assert {run.status for run in read_runs(mlflow_root)} == {"FINISHED"}


def test_a_training_whose_process_dies_too_often_is_named_with_a_remedy(world, mlflow_root, ray_cluster):
    with pytest.raises(InputError, match="its process died, 1 of 1 times") as caught:
        trained_side_by_side(finetune(world.media, "retries=0", "seed=1"), mlflow_root)
    assert (caught.value.field, Path(caught.value.file).parent) == ("retries", mlflow_root)
    assert "the same command goes on from its last epoch" in str(caught.value)
