"""``--dry-run``: the resolved config, what is there, what would be made; nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from configs import load_config
from configs.help import resolved
from pipelines.features import main as features
from pipelines.ingest import main as ingest
from pipelines.settings import FeatureConfig
from shards.schema import BackboneInfo, DatasetInfo
from tests.fixtures.media import make_clip
from tests.fixtures.worlds import NET, QUICK, World
from trainers.classification.config import FinetuneConfig
from trainers.train import main as train
from tuning.study import main as study
from tuning.sweep import main as sweep

unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture
def dry(tmp_path, monkeypatch, capsys):
    """Run a command with --dry-run in an own folder, in which nothing may appear."""

    def run(main, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert main([*map(str, arguments), "--dry-run"]) == 0
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return capsys.readouterr().out

    return run


def finetune(world: World, *more: str) -> list[str]:
    return ["finetune", f"data={world.media}", *QUICK, *NET, "lr=0.01", *more]


@integration
def test_training_that_is_finished_and_one_that_is_not(dry, world: World, tmp_path):
    text = dry(train, *finetune(world), "--runs", world.runs)
    assert f"already finished: {world.backbone}\n" in text
    assert f"data: {world.media} (media; 24 train, 6 val, 20 test; " in text
    text = dry(train, *finetune(world, "seed=5", "epochs=7"), "--runs", world.runs)
    assert f"would make {world.runs / 'finetune-'}" in text
    assert ": finetune 0 of 7 epochs\n" in text
    line = (world.backbone / "logs/finetune/metrics.jsonl").read_text().splitlines()[-1]
    seconds = json.loads(line)["metrics"]["epoch_seconds"]
    assert f"at {seconds:.3g} s an epoch as in {world.backbone.name}" in text
    assert "time: not known" in dry(train, *finetune(world), "--runs", tmp_path / "none")


@integration
def test_a_backbone_that_is_given_is_named(dry, world: World):
    arguments = ["prompt", f"data={world.media}", f"backbone={world.backbone}", *QUICK, "cases=[complete]"]
    text = dry(train, *arguments, "--runs", world.runs)
    assert f"backbone: {world.backbone} (found)" in text
    assert ": complete 0 of 1 epochs" in text


@unit
def test_a_resolved_config_is_a_preset(tmp_path):
    config = load_config(FinetuneConfig, None, ["data=/x #1", "lr=1e-5", "backbone.dim=48", "noise.audio=[gaussian]"])
    path = tmp_path / "resolved.yaml"
    path.write_text(resolved(config))
    assert load_config(FinetuneConfig, path) == config


@unit
def test_ingestion(dry, tmp_path):
    make_clip(tmp_path / "a.mp4", seconds=0.3)
    manifest = tmp_path / "clips.csv"
    manifest.write_text("id,path,label,split\na,a.mp4,x,train\nb,gone.mp4,x,test\n")
    arguments = ["--manifest", manifest, "--out", tmp_path / "out", "workers=0", "image_size=32"]
    text = dry(ingest, *arguments)
    assert "(2 clips: 1 train, 1 test; 1 labels)\n" in text
    assert f"files: 1 of 2 found; the first: {tmp_path / 'gone.mp4'}\n" in text
    assert f"would make 2 of 2 shards (2 clips) in {tmp_path / 'out'}; 0 are there\n" in text
    assert ingest([str(argument) for argument in arguments]) == 0
    text = dry(ingest, *arguments)
    assert f"already finished: {tmp_path / 'out'} (2 shards)\n1 clips are in" in text
    assert "would make 1 of 3 shards (1 clips)" in dry(ingest, *arguments, "--retry-quarantined")


@integration
def test_extraction(dry, world: World):
    arguments = ["--data", world.media, "--backbone", world.backbone, "workers=0", "draws=1"]
    assert "already finished: " in dry(features, *arguments)
    text = dry(features, *arguments, "depth=2")
    assert "(50 clips) in" in text
    assert "; 0 are there\n" in text


@unit
def test_a_study_names_its_steps(dry, tmp_path):
    text = dry(study, "demo")
    assert "\ntime: 4 minutes" in text
    assert f"clips: {tmp_path / 'data/scenes-'}" in text
    assert text.count("(needs what comes before it)") == 3
    assert f"results: {tmp_path / 'runs/demo-'}" in text
    assert "4 of avqa" in dry(study, "avqa_demo")


@unit
def test_features_are_named_only_if_these_settings_made_them(dry, tmp_path):
    (shards,) = re.findall(r"media shards: (\S+)", dry(study, "avqa_demo"))
    folder = Path(shards.partition(" ")[0]) / "features" / "cavmae-0123456789ab"
    folder.mkdir(parents=True)
    made_by = BackboneInfo(id="small", fingerprint="0" * 64, depth=0, variants=("clean",))
    content = FeatureConfig(extractor="cavmae", side=2).content()
    DatasetInfo(kind="features", preprocessing=content, labels=(), splits={}, backbone=made_by).save(folder)
    assert f"of any backbone: {folder}\n" in dry(study, "avqa_demo", "features.side=2")
    assert "of any backbone: would be made\n" in dry(study, "avqa_demo", "features.side=3")


@unit
@pytest.mark.parametrize("name", ["prompts", "slots"])
def test_a_sweep_names_its_trials(dry, name, tmp_path):
    text = dry(sweep, name)
    assert f"trials: {6 if name == 'prompts' else 4} of " in text
    assert f"results: {tmp_path / 'runs' / name}-" in text
    assert not Path(tmp_path / "runs").exists()
