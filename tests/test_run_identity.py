"""Identity of runs: content decides; moves, spellings, execution settings and commits do not."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

import trainers.job
from configs import load_config
from tests.fixtures.builders import media_dataset
from tests.fixtures.worlds import NET, QUICK, World
from trainers.classification.config import EvaluateConfig, FinetuneConfig, PromptConfig
from trainers.evaluate import evaluate
from trainers.identity import config_identity
from trainers.job import Job, prepare
from trainers.recipe import leaves
from trainers.recipes import RECIPES
from trainers.runs import CONFIG_FILE, read_run
from trainers.tracking import read_runs
from trainers.train import train
from tuning.steps import open_study
from tuning.study_config import ClassificationStudyConfig

pytestmark = pytest.mark.integration


def finetune(media: Path, *overrides: str) -> FinetuneConfig:
    return load_config(FinetuneConfig, None, [f"data={media}", *QUICK, *NET, "lr=0.01", *overrides])


def job(world: World, media: Path, *overrides: str) -> Job:
    return prepare(finetune(media, *overrides), world.runs)


def test_another_place_or_spelling_of_the_data_is_the_same_run(world, tmp_path, monkeypatch):
    assert job(world, world.media).folder == world.backbone
    assert job(world, world.media).finished
    monkeypatch.chdir(world.media.parent)
    (tmp_path / "link").symlink_to(world.media)
    shutil.copytree(world.media, tmp_path / "copied", ignore=shutil.ignore_patterns("features"))
    for spelt in (Path("media"), Path("./media/../media"), tmp_path / "link", tmp_path / "copied"):
        assert job(world, spelt).folder == world.backbone, spelt


def test_other_content_or_settings_are_another_run_and_places_of_work_are_not(world, tmp_path):
    media_dataset(tmp_path / "other", {"train": 25, "val": 6})
    other = [job(world, tmp_path / "other"), job(world, world.media, "lr=0.02"), job(world, world.media, "seed=1")]
    assert len({world.backbone, *(each.folder for each in other)}) == 4
    same = ["workers=2", "cpus=2", "loaders=1", "retries=3", "save_steps=2", "gpu=false"]
    assert job(world, world.media, *same).folder == world.backbone


def test_a_public_file_counts_by_its_content(world, tmp_path):
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"one")
    first, second = (job(world, world.media, f"public={tmp_path / name}") for name in ("a.pth", "b.pth"))
    assert first.folder == second.folder
    (tmp_path / "a.pth").write_bytes(b"another")
    assert job(world, world.media, f"public={tmp_path / 'a.pth'}").folder != second.folder


def test_a_commit_that_computes_nothing_else_retrains_nothing(world, monkeypatch):
    monkeypatch.setattr(trainers.job, "git_commit", lambda root: "0" * 12)
    before = (world.backbone / CONFIG_FILE).read_bytes()
    assert train(finetune(world.media), world.runs) == world.backbone
    assert (world.backbone / CONFIG_FILE).read_bytes() == before


def test_an_unfinished_run_goes_on_with_its_data_elsewhere_and_other_resources(world, mlflow_root, tmp_path):
    first = train(finetune(world.media), mlflow_root)
    shutil.rmtree(first / "finetune")  # as if it had been killed
    shutil.copytree(world.media, tmp_path / "moved")
    assert train(finetune(tmp_path / "moved", "cpus=2", "retries=3"), mlflow_root) == first
    (logged,) = read_runs(mlflow_root)
    assert (logged.params["data"], logged.params["retries"]) == (str(world.media), "1")  # those it began with


def test_a_study_goes_on_with_its_sources_elsewhere(mlflow_root):
    for source in ("here", "moved"):
        with open_study("mini", mlflow_root / "mini-0", {"source": source}, nullcontext()):
            pass
    (logged,) = read_runs(mlflow_root)
    assert (logged.params["source"], logged.status) == ("here", "FINISHED")


def test_an_unfinished_run_says_that_it_goes_on_under_another_commit(world, tmp_path, monkeypatch, capsys):
    for commit in ("a" * 12, "b" * 12):
        monkeypatch.setattr(trainers.job, "git_commit", lambda root, commit=commit: commit)
        prepare(finetune(world.media), tmp_path).begin()
    assert f"goes on under commit {'b' * 12}; so far {'a' * 12}" in capsys.readouterr().err
    record = json.loads(next(tmp_path.glob(f"*/{CONFIG_FILE}")).read_text())
    assert (record["commit"], record["commits"]) == ("a" * 12, ["a" * 12, "b" * 12])


def test_a_higher_revision_is_another_run(world, monkeypatch):
    import dataclasses

    risen = dataclasses.replace(RECIPES["finetune"], revision=RECIPES["finetune"].revision + 1)
    monkeypatch.setattr(trainers.job, "recipe_of", lambda config: risen)
    assert job(world, world.media).folder != world.backbone


def test_moved_runs_are_evaluated_where_they_are(world, mlflow_root, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(world.runs, moved, ignore=shutil.ignore_patterns("mlflow*"))
    for config_file in moved.glob(f"*/{CONFIG_FILE}"):  # as those of a folder that is no longer there
        config_file.write_text(config_file.read_text().replace(str(world.runs), str(tmp_path / "gone")))
    assert not read_run(moved / world.others["prompt"].name).config.backbone.exists()
    config = EvaluateConfig(data=world.media, conditions=("complete",), batch_size=8)
    rows = evaluate([moved / world.others["prompt"].name], config, tmp_path / "out", mlflow_root)
    assert {row.selection for row in rows} == {"situation", "concat", "detected"}


def test_a_case_wise_run_depends_on_its_backbones_weights_not_their_folder(world, tmp_path):
    copied = tmp_path / "a backbone"
    shutil.copytree(world.backbone, copied)
    overrides = [f"data={world.media}", *QUICK, "length=2", "deep=true", "lr=0.3", "missing=0.2"]
    config = load_config(PromptConfig, None, [*overrides, f"backbone={copied}"])
    assert prepare(config, world.runs).folder == world.others["prompt"]


def test_leaves_are_dotted():
    assert dict(leaves({"a": 1, "b": {"c": 2, "d": {"e": 3}}})) == {"a": 1, "b.c": 2, "b.d.e": 3}


def test_a_studys_identity_holds_what_its_paths_lead_to_and_not_where(tmp_path):
    for name, row in {"a": "1,a.mp4,x,train", "b": "1,a.mp4,x,train", "c": "2,a.mp4,x,train"}.items():
        (tmp_path / f"{name}.csv").write_text(f"id,path,label,split\n{row}\n")

    def identity(source: Path, clips: int = 8) -> str:
        drawn = {"kind": "scenes", "clips": clips} if source == Path() else {"kind": "manifest", "source": str(source)}
        return config_identity(ClassificationStudyConfig(corpus=drawn, recipes={"finetune": {}}))

    assert (
        identity(tmp_path / "a.csv")
        == identity(tmp_path / "b.csv")
        == identity(tmp_path / "../" / tmp_path.name / "a.csv")
    )
    assert len({identity(tmp_path / "a.csv"), identity(tmp_path / "c.csv"), identity(Path()), identity(Path(), 9)}) == 4
