"""Studies: a typo costs no hour, every preset is sound, and a finished study is not done again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs import PRESET_FOLDER, load_config, preset_names, read_preset
from pipelines.settings import IngestConfig
from trainers.classification.config import CaseConfig
from trainers.recipes import RECIPES
from tuning.classification_study import ClassificationStudyConfig, check
from tuning.data import shards_folder
from tuning.study import main

unit, on_ray = pytest.mark.unit, pytest.mark.ray
STUDY = {
    "corpus": {"kind": "scenes", "clips": 16},
    "recipes": {"finetune": {"epochs": 1}, "prompt": {"length": 2}},
}


def preset(folder: Path, **changes: object) -> str:
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(path)


@unit
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"recipes": {"finetune": {}, "promptt": {}}}, ["'recipes.promptt'", "did you mean 'prompt'"]),
        (
            {"recipes": {"finetune": {}, "long": {"recipe": "promptt"}}},
            ["unknown recipe 'promptt'", "did you mean 'prompt'", "recipes.long.recipe"],
        ),
        (
            {"recipes": {"finetune": {}, "prompt": {"lenhgt": 3}}},
            ["'recipes.prompt.lenhgt'", "did you mean 'length'"],
        ),
        (
            {"recipes": {"finetune": {"backbone": {"dimm": 32}}}},
            ["'recipes.finetune.backbone.dimm'", "did you mean 'backbone.dim'"],
        ),
        ({"recipes": {"finetune": {"epochs": 0}}}, ["'recipes.finetune.epochs'", "0 does not fit"]),
        ({"recipes": {"prompt": {}, "finetune": {}}}, ["'recipes.prompt'", "the first recipe must be"]),
        ({"evaluate": {"batchsize": 3}}, ["'evaluate.batchsize'", "did you mean 'batch_size'"]),
        (
            {"evaluate": {"conditions": ["noisy_adio"]}},
            ["'evaluate.conditions.0'", "did you mean 'noisy_audio'"],
        ),
        ({"evaluate": {"noise": {"visual": ["blurx"]}}}, ["'evaluate.noise.visual.0'", "did you mean 'blur'"]),
        ({"evaluate": {"adapt": ["red"]}}, ["'evaluate.adapt.0'", "did you mean 'read'"]),
        (
            {"evaluate": {"adapt": ["read"], "adapted": ["promt"]}},
            ["'evaluate.adapted'", "no method 'promt'", "did you mean 'prompt'"],
        ),
        (
            {"recipes": {"finetune": {}, "noisy": {"recipe": "finetune", "noisy": True, "noise": "released"}}},
            ["'noise'", "trained with different noise", "evaluate: {noise: ours}"],
        ),
        ({"recipes": {"finetune": {}, "fuse": {}}}, ["'recipes.fuse.method'", "is required"]),
        (
            {"recipes": {"finetune": {}, "x": {"recipe": "fuse", "method": "shaspek"}}},
            ["'recipes.x.method'", "did you mean 'shaspec'"],
        ),
        ({"ingest": {"framse": 2}}, ["'ingest.framse'", "did you mean 'ingest.frames'"]),
        ({"corpus": {"kind": "scene", "clips": 8}}, ["'corpus.kind'", "did you mean 'scenes'"]),
        ({"corpus": {"kind": "scenes"}}, ["'corpus.clips'", "is required"]),
        ({"corpus": {"kind": "scenes", "clips": 0}}, ["'corpus.clips'", "0 does not fit"]),
        ({"corpus": {"kind": "scenes", "clps": 8}}, ["'corpus.clps'", "did you mean 'clips'"]),
        ({"corpus": {"kind": "avdigits", "source": ".", "split": "speaker"}}, ["did you mean 'speakers'"]),
        ({"corpus": {"kind": "manifest", "source": "none.csv"}}, ["'corpus.source'", "none.csv"]),
        ({"seeds": []}, ["'seeds'"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_typo_is_refused_before_any_work(tmp_path, capsys, changes, parts):
    name = preset(tmp_path, **changes)
    assert main([name, "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert [part for part in [*parts, "remedy: "] if part not in error] == [], error
    assert [path.name for path in tmp_path.iterdir()] == ["mini.yaml"]


def of_kind(kind: str) -> list[str]:
    """Names of the presets of one kind of study."""
    return [n for n in preset_names() if read_preset(n)[0].get("study", "classification") == kind]


@unit
@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_to_expect(name):
    text = (PRESET_FOLDER / f"{name}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert [re.match(r"# (\w+): \S", line)[1] for line in header[1:]] == ["command", "expected", "time"]  # type: ignore[index]
    assert f"avmend study {name}" in header[1]


@unit
@pytest.mark.parametrize("name", of_kind("classification"))
def test_every_preset_is_sound(name):
    config = load_config(ClassificationStudyConfig, name)
    check(config)
    kinds = [config.recipe(r, data=".", **more(config, r)) for r in config.recipes]
    assert any(isinstance(kind, CaseConfig) for kind in kinds)


def more(config: ClassificationStudyConfig, name: str) -> dict[str, str]:
    recipe = RECIPES[config.recipes[name].get("recipe", name)]
    return {} if recipe.name == "finetune" else {str(recipe.base): "."}


@unit
def test_only_what_decides_the_shards_names_their_folder(tmp_path):
    corpus = load_config(ClassificationStudyConfig, preset(tmp_path)).corpus

    def folder(**settings: object) -> Path:
        return shards_folder(corpus, IngestConfig(**settings), tmp_path)

    assert folder() == folder(workers=3) == folder(timeout_s=9, fetch={"tries": 2})
    assert len({folder(), folder(frames=3), folder(partial="keep"), folder(decoder="ffmpeg")}) == 4


@unit
def test_a_recipe_by_another_name_keeps_its_settings():
    config = load_config(ClassificationStudyConfig, None, ["corpus={kind: scenes, clips: 8}", "recipes={finetune: {}}"])
    wide = config.model_copy(update={"recipes": {"wide": {"recipe": "lora", "rank": 7, "noise": {"both": 3}}}})
    made = wide.recipe("wide", data=Path("d"), backbone=Path("b"), seed=5)
    assert (made.recipe, made.rank, made.noise.both, made.seed) == ("lora", 7, 3, 5)  # type: ignore[attr-defined]


SMALL = {"dim": 32, "heads": 2, "depth": 2, "target_length": 32, "image_size": 32}
QUICK = {"epochs": 1, "batch_size": 8, "workers": 0, "cpus": 1}
MINI = {
    "ingest": {"frames": 1, "image_size": 32, "samples_per_shard": 16, "workers": 0},
    "features": {"draws": 1, "workers": 0},
    "recipes": {
        "finetune": {**QUICK, "backbone": SMALL},
        "finetune_noisy": {"recipe": "finetune", "noisy": True, **QUICK},
        "prompt": {**QUICK, "length": 2},
    },
    "evaluate": {"batch_size": 16},
}
KEPT = ("*.mp4", "*.tar", "*.safetensors", "*.pt", "metrics.jsonl", "results.*", "draws.csv")


def made(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for kind in KEPT for p in folder.rglob(kind)}


@on_ray
def test_a_study_from_clips_to_the_table_and_nothing_twice(tmp_path, mlflow_root, ray_cluster, capsys):
    command = [preset(tmp_path, **MINI), "--data", str(tmp_path / "data"), "--runs", str(mlflow_root)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for method in ("finetune", "finetune_noisy", "prompt, concat"):
        assert f"| {method} |" in printed
    (out,) = mlflow_root.glob("mini-*")
    assert f": {out}\n" in printed
    assert "avmend ui --store" in printed
    before = made(tmp_path)
    assert sum(path.suffix == ".mp4" for path in before) == 16
    assert main(command) == 0
    assert made(tmp_path) == before
    again = capsys.readouterr().out
    assert again.startswith(f"{printed.split('done in')[0]}already finished: {out}\n")
