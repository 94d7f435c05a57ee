"""What a user gets wrong: status 2, a message with file, field and remedy, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import avmend
from models.backbone import Backbone
from models.inputs import Normalisation
from pipelines.features import main as features
from pipelines.ingest import main as ingest
from shards.checkpoint import save_checkpoint
from shards.reader import ShardDataset
from tests.fixtures.builders import LABELS, media_dataset, small_net
from tests.fixtures.media import make_clip
from tests.fixtures.worlds import QUICK, World
from trainers.evaluate import main as evaluate
from trainers.train import main as train
from tuning.study import main as study

pytestmark = pytest.mark.integration
Main = Callable[[list[str]], int]


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must refuse; returns what it said. Nothing may appear beside what was there."""

    def run(main: Main, *arguments: object) -> str:
        before = everything(tmp_path)
        assert main([str(argument) for argument in arguments]) == 2
        assert everything(tmp_path) == before
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert "remedy: " in printed.err
        assert printed.out == ""
        return printed.err

    return run


def everything(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def manifest(folder: Path, text: str) -> Path:
    path = folder / "clips.csv"
    path.write_text("id,path,label,split\n" + text, encoding="utf-8")
    return path


def other_backbone(folder: Path) -> Path:
    """A fine-tuned run's folder whose backbone nothing was made with."""
    backbone = Backbone(small_net(classes=len(LABELS)), LABELS, Normalisation())
    save_checkpoint(folder / "finetune", backbone.net.state_dict(), backbone.meta())
    return folder


def said(error: str, *parts: object) -> None:
    assert [str(part) for part in parts if str(part) not in error] == [], error


# manifests -----------------------------------------------------------------------------------------------


def test_missing_manifest(refused, tmp_path):
    error = refused(ingest, "--manifest", tmp_path / "none.csv", "--out", tmp_path / "out", "workers=0")
    said(error, tmp_path / "none.csv", "can't be read", "check the manifest's path")


def test_missing_media_are_quarantined_and_none_at_all_is_refused(tmp_path, capsys):
    path = manifest(tmp_path, "a,gone/a.mp4,x,train\n")
    arguments = ["--manifest", str(path), "--out", str(tmp_path / "out"), "workers=0"]
    assert ingest(arguments) == 2
    error = capsys.readouterr().err
    said(error, "quarantine.jsonl", "'a': missing file", "correct the path in the manifest")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not list((tmp_path / "out").rglob("*.tmp*"))


def test_empty_manifest(refused, tmp_path):
    path = manifest(tmp_path, "")
    said(refused(ingest, "--manifest", path, "--out", tmp_path / "out", "workers=0"), path, "no clips", "add")


def test_duplicate_ids(refused, tmp_path):
    path = manifest(tmp_path, "a,a.mp4,x,train\nb,b.mp4,x,train\na,c.mp4,x,train\n")
    error = refused(ingest, "--manifest", path, "--out", tmp_path / "out", "workers=0")
    said(error, f"{path}:4", "field 'id'", "lines 2 and 4", "an id of its own")


def test_ids_with_dots_slashes_and_unicode_work(tmp_path, capsys):
    make_clip(tmp_path / "clip.mp4", seconds=0.3)
    ids = ["vid_10.5_20.5", "vid_10.7_20.7", "a/b/../c", "наука", "日本 語", "ünïcode"]
    path = manifest(tmp_path, "".join(f"{name},clip.mp4,x,train\n" for name in ids))
    out = tmp_path / "out"
    assert ingest(["--manifest", str(path), "--out", str(out), "workers=0", "image_size=32"]) == 0
    data = ShardDataset(out, "train")
    assert sorted(meta.id for meta in data.metas) == sorted(ids)
    assert len(set(data.keys)) == len(ids)
    assert all(set(data[i].arrays) == {"audio", "frames"} for i in range(len(data)))
    assert "0 clips in" in capsys.readouterr().out


# overrides and conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "arguments", "parts"),
    [
        (ingest, ["--manifest", "m.csv", "--out", "OUT", "framse=3"], ["framse", "'frames'"]),
        (features, ["--data", "d", "--backbone", "b", "drawz=3"], ["drawz", "'draws'"]),
        (train, ["prompt", "data=d", "backbone=b", "lenhgt=3"], ["lenhgt", "'length'"]),
        (train, ["finetune", "data=d", "backbone.dimm=3"], ["backbone.dimm", "'backbone.dim'"]),
        (train, ["finetune", "data=d", "dim=3"], ["field 'dim'", "'backbone.dim'"]),
        (evaluate, ["RUN", "--data", "d", "--set", "batchsize=3"], ["batchsize", "'batch_size'"]),
        (
            evaluate,
            ["RUN", "--data", "d", "--set", "conditions=[noisy_adio]"],
            ["conditions.0", "'noisy_audio'"],
        ),
        (study, ["demo", "--data", "OUT", "--runs", "OUT", "seedz=[1]"], ["seedz", "'seeds'"]),
        (study, ["demmo", "--data", "OUT", "--runs", "OUT"], ["no preset 'demmo'", "'demo'"]),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(refused, world, tmp_path, monkeypatch, main, arguments, parts):
    monkeypatch.chdir(tmp_path)
    given = [world.backbone if argument == "RUN" else argument for argument in arguments]
    said(refused(main, *given), "did you mean", *parts)


def test_the_front_says_the_same(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(refused(avmend.main, "evaluatee"), "unknown command 'evaluatee'", "'evaluate'")
    error = refused(avmend.main, "train", "lora", "data=d", "backbone=b", "ranc=3")
    said(error, "field 'ranc'", "did you mean 'rank'")
    error = refused(avmend.main, "ingest", "--manifest", "none.csv", "--out", "out")
    said(error, "none.csv", "can't be read")


# backbones, features, runs -------------------------------------------------------------------------------


def test_features_missing_or_of_another_backbone(refused, tmp_path, world: World):
    backbone = other_backbone(tmp_path / "other")
    common = ["prompt", "--runs", tmp_path / "runs", f"data={world.media}", *QUICK]
    error = refused(train, *common, f"backbone={backbone}")
    command = f"avmend features --data {world.media} --backbone {backbone} --depth 0"
    said(error, "no feature shards here", "field 'features'", f"make them: {command}")
    made = next((world.media / "features").glob("*-k0"))
    error = refused(train, *common, f"backbone={backbone}", f"features={made}")
    said(error, made, "made by another backbone", command)
    error = refused(train, *common, f"backbone={world.backbone}", f"features={made}", "depth=1")
    said(error, made, "field 'depth'", "hold tokens at depth 0", "set depth=0")


@pytest.mark.parametrize("recipe", ["prompt", "lora", "adapter"])
def test_a_depth_beyond_the_backbone(refused, tmp_path, world: World, recipe):
    common = ["--runs", tmp_path / "runs", f"data={world.media}", f"backbone={world.backbone}", *QUICK]
    said(refused(train, recipe, *common, "depth=2"), world.backbone, "field 'depth'", "choose 0 to 1")


def test_features_deeper_than_the_backbone(refused, tmp_path, world: World):
    arguments = ["--data", world.media, "--backbone", world.backbone, "--depth", 3]
    said(refused(features, *arguments), world.backbone, "field 'depth'", "choose 0 to 2")


def test_no_backbone_where_one_is_named(refused, tmp_path, world: World):
    (tmp_path / "empty").mkdir()
    arguments = ["--data", world.media, "--backbone", tmp_path / "empty"]
    said(refused(features, *arguments), tmp_path / "empty", "is no checkpoint")
    case = world.others["lora"] / "complete"
    error = refused(features, "--data", world.media, "--backbone", case)
    said(error, case, "'lora', not of 'backbone'")
    arguments = ["prompt", "--runs", tmp_path / "runs", f"data={world.media}", f"backbone={case}", *QUICK]
    said(refused(train, *arguments), case, "'lora', not of 'backbone'")


def test_a_run_whose_backbone_was_exchanged(refused, tmp_path, world: World):
    """The run's config names a folder, in which another backbone stands now."""
    run = shutil.copytree(world.others["lora"], tmp_path / "lora")
    record = json.loads((run / "config.json").read_text())
    record["config"]["backbone"] = str(other_backbone(tmp_path / "other"))
    (run / "config.json").write_text(json.dumps(record))
    error = refused(evaluate, run, "--data", world.media, "--out", tmp_path / "out")
    said(error, run, "was trained on another backbone than", tmp_path / "other", "train it again")


def test_a_folder_that_is_no_run(refused, tmp_path, world: World):
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    for folder in (tmp_path / "nothing", tmp_path / "list", world.media):
        error = refused(evaluate, folder, "--data", world.media, "--out", tmp_path / "out")
        said(error, folder / "config.json", "field 'runs'", "that 'avmend train' printed")


def test_a_run_that_is_not_finished(refused, tmp_path, world: World):
    run = shutil.copytree(world.others["prompt"], tmp_path / "prompt")
    shutil.rmtree(run / "noisy_both")
    error = refused(evaluate, run, "--data", world.media, "--out", tmp_path / "out")
    said(error, run / "noisy_both", "is no checkpoint", "train first")


@pytest.mark.parametrize("part", ["complete", "detector"])
def test_a_damaged_checkpoint(refused, tmp_path, world: World, part):
    run = shutil.copytree(world.others["prompt"], tmp_path / "prompt")
    path = run / part / "weights.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    error = refused(evaluate, run, "--data", world.media, "--out", tmp_path / "out")
    said(error, path, "is damaged", "sha256", "train again")


def test_a_backbone_that_says_other_sizes_than_it_has(refused, tmp_path, world: World):
    run = shutil.copytree(world.backbone, tmp_path / "run")
    path = run / "finetune" / "checkpoint.json"
    path.write_text(path.read_text().replace('"dim": 32', '"dim": 64'))
    said(refused(features, "--data", world.media, "--backbone", run), run, "is no usable backbone")
    said(refused(evaluate, run, "--data", world.media, "--out", tmp_path / "out"), "is no usable backbone")


def test_a_run_without_its_logs(refused, tmp_path, world: World):
    run = shutil.copytree(world.backbone, tmp_path / "run")
    shutil.rmtree(run / "logs")
    error = refused(evaluate, run, "--data", world.media, "--out", tmp_path / "out")
    said(error, run / "logs", "no metrics of its training")


# labels and data -----------------------------------------------------------------------------------------


def test_an_unknown_label_at_test(refused, tmp_path, world: World):
    data = tmp_path / "data"
    media_dataset(data, {"train": 4, "test": 4}, lambda i: "siren" if i == 2 else "bell")
    error = refused(evaluate, world.backbone, "--data", data, "--out", tmp_path / "out")
    said(error, data, "field 'label'", "sample 'clip test002': unknown label 'siren'", "bell, drum, rain")


def test_data_that_are_not_there_and_a_split_that_is_not(refused, tmp_path, world: World):
    none = tmp_path / "none"
    for main, arguments in (
        (features, ["--data", none, "--backbone", world.backbone]),
        (train, ["finetune", f"data={none}", "--runs", tmp_path / "runs", *QUICK]),
        (evaluate, [world.backbone, "--data", none, "--out", tmp_path / "out"]),
    ):
        said(refused(main, *arguments), none / "dataset.json", "can't be read", "a finished dataset")
    arguments = [world.backbone, "--data", world.media, "--out", tmp_path / "out", "--set", "split=tset"]
    said(refused(evaluate, *arguments), world.media, "tset", "test")


def test_features_without_noisy_draws_under_a_noisy_case(tmp_path):
    from shards.errors import InputError
    from tests.fixtures.builders import SMALL, feature_dataset
    from trainers.classification.items import FeatureItems

    feature_dataset(tmp_path, {"train": 5}, SMALL, "f" * 64, draws=0)
    data = ShardDataset(tmp_path, "train")
    assert torch.is_tensor(FeatureItems(data, LABELS, "complete")[0][0])
    with pytest.raises(InputError, match=r"'draws'.*no noisy draws for noisy_both"):
        FeatureItems(data, LABELS, "noisy_both")
