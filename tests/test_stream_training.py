"""Training on shards that are read through: from a URL as from a folder, under an identity of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest
import torch

from configs import load_config
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from shards.scan import write_tables
from shards.schema import DatasetInfo
from tests.fixtures.asking import sequence_dataset
from tests.fixtures.stores import Bucket
from tests.fixtures.worlds import NET, QUICK, World, train_run
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.classification.config import DenseConfig, EvaluateConfig, FinetuneConfig, PromptConfig
from trainers.data import dataset_info, open_split
from trainers.dry_run import describe
from trainers.evaluate import evaluate
from trainers.job import prepare
from trainers.runs import read_run

unit, integration = pytest.mark.unit, pytest.mark.integration
STREAM = ["stream=true", "lanes=2", "shuffle_buffer=6"]


def upload(folder: Path, system: fsspec.AbstractFileSystem, to: str) -> None:
    """A dataset with its tables and features; the folder stays as it is."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        system.pipe_file(f"{to}/{path.relative_to(folder)}", path.read_bytes())


def with_tables(world: World, folder: Path) -> Path:
    """A copy of the world's media and features that has tables."""
    shutil.copytree(world.media, folder)
    for found in folder.rglob("dataset.json"):
        write_tables(found.parent, DatasetInfo.load(found.parent))
    return folder


@pytest.fixture
def media(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of media and features, and the same at memory://world."""
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    folder = with_tables(world, tmp_path / "world")
    system = fsspec.filesystem("memory")
    system.store.clear()
    upload(folder, system, "/world")
    return folder


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / name).weights


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@integration
def test_runs_from_a_url_and_a_folder_are_one_and_equal_to_the_bit(world, media, mlflow_root, tmp_path):
    shutil.copytree(mlflow_root, tmp_path / "others")
    settings = [f"backbone={world.backbone}", "length=2", "cases=[noisy_audio]", *STREAM]
    local = train_run("prompt", media, mlflow_root, *settings)
    remote = train_run("prompt", "memory://world", tmp_path / "others", *settings)
    assert local.name == remote.name
    for name in ("noisy_audio", "detector"):
        assert equal(weights(local, name), weights(remote, name))
    by_position = weights(world.others["prompt"], "detector")  # of the same clips, whatever the order they are read in
    assert equal(weights(remote, "detector"), by_position)
    assert read_run(remote).config.data == Path("memory://world")
    assert '"data": "memory://world"' in (remote / "config.json").read_text()


@integration
def test_a_stream_is_another_run_and_a_url_read_by_position_is_not(world, media):
    def job(data: object, *overrides: str):
        config = load_config(FinetuneConfig, None, [f"data={data}", *QUICK, *NET, "lr=0.01", *overrides])
        return prepare(config, world.runs)

    assert job(media).folder == job("memory://world").folder == world.backbone
    assert job(media, "stream=false").folder == world.backbone
    streamed = [job(media, "stream=true"), job(media, *STREAM), job(media, "stream=true", "lanes=4")]
    assert len({world.backbone, *(each.folder for each in streamed)}) == 4
    assert job("memory://world", *STREAM).folder == streamed[1].folder
    assert "data: memory://world (media; 24 train" in describe(job("memory://world").config, world.runs)


@unit
@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        (FinetuneConfig, ["stream=true", "mixup=0.5"], "mixup mixes with any other clip"),
        (FinetuneConfig, ["stream=true", "balanced=true"], "balanced draws any clip"),
        (FinetuneConfig, ["lanes=4"], "lanes and shuffle_buffer are of stream=true"),
        (PromptConfig, ["backbone=b", "stream=true", "resident=true"], "resident keeps all tokens in memory"),
        (
            DenseConfig,
            ["backbone=b", "targets=t", "stream=true"],
            "reads clips where they lie; leave stream out",
        ),
        (AVQAConfig, ["questions=q", "stream=true"], "questions come back to the same clips"),
    ],
)
def test_what_needs_any_clip_at_any_time_is_refused(kind, overrides, message):
    with pytest.raises(InputError, match=message):
        load_config(kind, None, ["data=d", *overrides])


@unit
def test_clips_of_questions_come_from_a_url_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    sequence_dataset(tmp_path / "sequences", {"train": 6, "test": 3})
    system = fsspec.filesystem("memory")
    system.store.clear()
    upload(tmp_path / "sequences", system, "/sequences")
    here, there = Clips(tmp_path / "sequences"), Clips(Path("memory://sequences"))
    assert here.number == there.number
    assert torch.equal(
        here.features("visual", range(9)).nan_to_num(7.0), there.features("visual", range(9)).nan_to_num(7.0)
    )


@pytest.fixture
def stored(s3: Bucket, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The world's data in a bucket; credentials are the environment's alone."""
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    return str(s3.upload(with_tables(world, tmp_path / "world"), "world"))


@pytest.mark.slow
def test_an_s3_server_is_read_through_in_loader_processes_too(world, stored, mlflow_root, tmp_path):
    assert dataset_info(Path(stored)) == DatasetInfo.load(world.media)
    by_position = open_split(world.media, "train")
    streamed = open_split(Path(stored), "train", stream=True)
    for i, sample in streamed.each(range(len(by_position))):
        assert sample.meta == by_position[i].meta
        assert {k: v.tobytes() for k, v in sample.arrays.items()} == {
            k: v.tobytes() for k, v in by_position[i].arrays.items()
        }
    shutil.rmtree(tmp_path / "cache" / "stream")
    run = train_run("finetune", stored, mlflow_root, *NET, "lr=0.01", *STREAM, "loaders=2")
    shutil.copytree(mlflow_root, tmp_path / "others", ignore=shutil.ignore_patterns("finetune-*"))
    local = train_run("finetune", tmp_path / "world", tmp_path / "others", *NET, "lr=0.01", *STREAM)
    assert equal(weights(run, "finetune"), weights(local, "finetune"))
    config = EvaluateConfig(conditions=("complete",), batch_size=8)
    (found, *_), (expected, *_) = (evaluate([one], config, one.parent / "out", one.parent) for one in (run, local))
    assert (found.accuracy, found.samples) == (expected.accuracy, expected.samples)
    assert "only-for-tests" not in (run / "config.json").read_text()
