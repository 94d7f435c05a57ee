"""Runs handed on: the same identity and the same numbers elsewhere, a card that hubs read, no trust in what comes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import avmend
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from serving.export.command import main as export
from serving.export.figures import evaluations
from shards.errors import InputError
from shards.questions import Question, save_questions
from shards.shared import RECORD
from tests.fixtures.asking import SIZES
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.sharing import TINY, exported, flipped, linked, replaced, rewritten, untrained_run
from tests.fixtures.worlds import World
from trainers.avqa.config import AVQAConfig
from trainers.classification.config import EvaluateConfig, FinetuneConfig
from trainers.classification.evaluate import prepare as prepare_evaluation
from trainers.classification.results import Row
from trainers.evaluation_cache import save_rows
from trainers.imports.command import main as take_in
from trainers.job import prepare, read_record
from trainers.runs import read_run

unit, integration = pytest.mark.unit, pytest.mark.integration
SECRET = "planted-share-token"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, with their media shards in ``media``."""
    return ingested_clips(tmp_path_factory.mktemp("clips"), ("train", "train", "test", "test")).parent


@pytest.fixture(scope="module")
def tuned(clips: Path) -> Path:
    """A `finetune` run on these clips."""
    config = FinetuneConfig(data=clips / "media", backbone=TINY, workers=0, cpus=1)
    return untrained_run(config, clips / "runs")


@pytest.fixture
def folder(tuned: Path, tmp_path: Path) -> Path:
    """That run, exported."""
    return exported(tuned, tmp_path / "shared")


def evaluated(run: Path, media: Path) -> list[tuple]:
    config = EvaluateConfig(data=media)
    rows = prepare_evaluation([read_run(run)], config).rows(lambda *counts, **labels: None)
    return [(row.condition, row.selection, row.accuracy, row.samples) for row in rows]


@integration
def test_a_prompt_run_comes_with_its_backbone_and_both_are_the_same_elsewhere(world: World, tmp_path, capsys):
    run, runs = world.others["prompt"], tmp_path / "runs"
    assert export([str(run), str(tmp_path / "shared")]) == 0
    assert take_in([str(tmp_path / "shared"), "--runs", str(runs)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(runs / run.name)
    assert evaluated(runs / run.name, world.media) == evaluated(run, world.media)
    for original in (run, world.backbone):
        there = prepare(read_run(original).config, runs)  # a command that trains it again
        assert there.folder == runs / original.name
        assert there.finished
    assert read_run(runs / run.name).config.backbone == runs / world.backbone.name
    assert take_in([str(tmp_path / "shared"), "--runs", str(runs)]) == 0, "what is there is left as it is"
    assert not list(runs.glob(".*"))
    assert export([str(runs / run.name), str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / RECORD).read_bytes() == (tmp_path / "shared" / RECORD).read_bytes()


@integration
def test_a_backbone_that_is_left_out_is_named(world: World, tmp_path, capsys):
    run = world.others["prompt"]
    assert export([str(run), str(tmp_path / "shared"), "--without-backbone"]) == 0
    assert [path.name for path in (tmp_path / "shared" / "runs").iterdir()] == [run.name]
    assert f"**Not in it**: `{world.backbone.name}`" in (tmp_path / "shared" / "README.md").read_text()
    assert take_in([str(tmp_path / "shared"), "--runs", str(tmp_path / "runs")]) == 0
    with pytest.raises(InputError, match=world.backbone.name):
        evaluated(tmp_path / "runs" / run.name, world.media)
    shutil.copytree(world.backbone, tmp_path / "runs" / world.backbone.name)
    assert evaluated(tmp_path / "runs" / run.name, world.media) == evaluated(run, world.media)


@integration
def test_a_backbone_that_was_renamed_is_found_by_what_the_export_says(world: World, tmp_path):
    renamed = Path(shutil.copytree(world.backbone, tmp_path / "mine" / "renamed"))
    run = Path(shutil.copytree(world.others["lora"], tmp_path / "mine" / world.others["lora"].name))
    assert export([str(run), str(tmp_path / "shared"), "--backbone", str(renamed / "finetune")]) == 0
    assert take_in([str(tmp_path / "shared"), "--runs", str(tmp_path / "runs")]) == 0
    assert read_run(tmp_path / "runs" / run.name).config.backbone == tmp_path / "runs" / "renamed"
    assert evaluated(tmp_path / "runs" / run.name, world.media) == evaluated(run, world.media)


@unit
def test_a_run_is_asked_without_its_data_or_the_place_it_came_from(tuned, clips, folder, tmp_path):
    wanted = avmend.load(tuned, "cpu").predict([clips / name for name in NAMES])
    as_it_is = avmend.load(folder / "runs" / tuned.name, "cpu").predict([clips / name for name in NAMES])
    moved = folder.rename(tmp_path / "moved")
    assert take_in([str(moved), "--runs", str(tmp_path / "runs")]) == 0
    shutil.rmtree(moved)
    found = avmend.load(tmp_path / "runs" / tuned.name, "cpu").predict([clips / name for name in NAMES])
    for there, here, before in zip(wanted, found, as_it_is, strict=True):
        assert np.array_equal(there.logits, here.logits)
        assert np.array_equal(there.logits, before.logits)
    with pytest.raises(InputError, match=r"train-000000\.tar"):
        prepare_evaluation([read_run(tmp_path / "runs" / tuned.name)], EvaluateConfig(split="train"))


@unit
def test_a_question_answering_run_comes_with_what_made_its_features(tuned, clips, tmp_path):
    features = extract(clips / "media", tuned, FeatureConfig(extractor="cavmae", workers=0))
    asked = [
        Question(id=name, clip=name, question="What is there?", answer=("bell", "no")[i % 2], type="A", split="train")
        for i, name in enumerate(NAMES)
    ]
    questions = save_questions(tmp_path / "questions.jsonl", asked)
    config = AVQAConfig(data=features, questions=questions, sizes=SIZES["avst"], workers=0, cpus=1)
    run = untrained_run(config, tuned.parent)
    folder = exported(run, tmp_path / "shared")
    assert take_in([str(folder), "--runs", str(tmp_path / "runs")]) == 0
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    assert sorted(names) == sorted([run.name, tuned.name])
    clip = clips / NAMES[0]
    wanted = avmend.load(run, "cpu").predict(clip, question="What is there?")
    found = avmend.load(tmp_path / "runs" / run.name, "cpu").predict(clip, question="What is there?")
    assert np.array_equal(found.logits, wanted.logits)
    assert not list(folder.rglob("questions.jsonl")), "questions have a licence of their own"


@unit
def test_nothing_of_this_machine_is_in_an_export(tuned, tmp_path, monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", SECRET)
    (tuned / "notes.json").write_text(json.dumps({"epoch": 1}))
    (tuned / "last").mkdir(exist_ok=True)
    (tuned / "last" / "state.pt").write_bytes(b"pickled")
    folder = exported(tuned, tmp_path / "shared")
    private = [str(tuned.parent), str(tmp_path), str(Path.home()) + "/", SECRET]
    for path in filter(Path.is_file, folder.rglob("*")):
        text = path.read_bytes().decode(errors="replace")
        assert not [secret for secret in private if secret in text], path
        assert path.suffix in (".json", ".jsonl", ".safetensors", ".md")
    (tuned / "notes.json").write_text(json.dumps({"from": str(tuned.parent / "x"), "by": SECRET}))
    with pytest.raises(InputError, match="a secret of this environment"):
        exported(tuned, tmp_path / "other")
    (tuned / "notes.json").write_text(json.dumps({"from": str(tuned.parent / "x")}))
    with pytest.raises(InputError, match="name a folder of this machine"):
        exported(tuned, tmp_path / "other")
    (tuned / "notes.json").unlink()
    shutil.rmtree(tuned / "last")
    assert not (tmp_path / "other").exists()


@integration
def test_the_card_says_what_was_evaluated_as_hubs_read_it(world: World, tmp_path):
    from huggingface_hub import ModelCard

    run = world.others["prompt"]
    config = EvaluateConfig(data=world.media, conditions=("complete", "audio_missing"))
    evaluation = prepare_evaluation([read_run(run), read_run(world.backbone)], config)
    rows = evaluation.rows(lambda *counts, **labels: None)
    save_rows(tmp_path / "results", evaluation.inputs, {}, rows)
    words = [str(run), str(tmp_path / "shared"), "--license", "cc-by-4.0", "--results", str(tmp_path / "results")]
    assert export(words) == 0
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    wanted = {
        (row.condition, f"prompt, {row.selection}"): round(row.accuracy, 6) for row in rows if row.run == run.name
    }
    found = {(x.dataset_config, x.metric_name): x.metric_value for x in card.data.eval_results}
    assert found == wanted
    assert len(found) == 6
    assert card.data.license == "cc-by-4.0"
    assert {x.dataset_name for x in card.data.eval_results} == {world.media.name}
    assert read_record(run)["dataset"] in card.text
    assert '["bell", "drum", "rain"]' in card.text


@unit
def test_the_card_of_a_run_with_several_labels_has_its_mean_average_precision(tuned, tmp_path, capsys):
    figures = {"results": {"complete": 0.75, "audio_missing": 0.5}, "other": {"complete": 0.625}}
    for name, found in figures.items():
        rows = [Row("finetune", "", 0, c, x, 20, 9, 9, 1.0, 9.0, tuned.name, "mAP", 0.9) for c, x in found.items()]
        save_rows(tmp_path / name, {"dataset": "0123456789abcdef", "config": {}}, {}, rows)
    assert len(evaluations(read_run(tuned), [tmp_path / name for name in figures])) == 2
    assert export([str(tuned), str(tmp_path / "shared"), "--results", str(tmp_path / "results")]) == 0
    text = (tmp_path / "shared" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["metrics"] == ["mAP"]
    (model,) = front["model-index"]
    found = [(x["dataset"]["config"], metric) for x in model["results"] for metric in x["metrics"]]
    metric = {"type": "mAP", "name": "finetune"}
    assert found == [("complete", {**metric, "value": 0.75}), ("audio_missing", {**metric, "value": 0.5})]
    assert "mAP in percent on split `test`" in text
    assert "| audio missing | 50.0 |" in text
    assert "- finetune, mAP: 75.0 % as the clips are, 50.0 % with audio missing." in text


@unit
def test_a_card_invents_no_licence_and_no_figures(folder):
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "unknown"
    assert "model-index" not in front
    assert "had not been evaluated" in text


def weights(folder: Path) -> Path:
    (found,) = folder.glob("runs/*/finetune/weights.safetensors")
    return found


def config_of(folder: Path) -> tuple[str, dict]:
    (found,) = folder.glob("runs/*/config.json")
    return found.relative_to(folder).as_posix(), json.loads(found.read_text())


def other_seed(folder: Path) -> None:
    path, record = config_of(folder)
    record["config"]["seed"] = 7
    replaced(folder, path, json.dumps(record).encode())


def other_place(folder: Path) -> None:
    path, record = config_of(folder)
    record["config"]["data"] = "/etc"
    replaced(folder, path, json.dumps(record).encode())


def odd_checkpoint(folder: Path) -> None:
    (path,) = folder.glob("runs/*/finetune/checkpoint.json")
    replaced(folder, path.relative_to(folder).as_posix(), b'{"format": 1}')


def other_path(to: str) -> Callable[[Path], None]:
    def change(record: dict) -> None:
        record["files"][0]["path"] = to

    return lambda folder: rewritten(folder, change)


@unit
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda folder: flipped(weights(folder)), r"weights\.safetensors: was changed"),
        (lambda folder: weights(folder).unlink(), r"weights\.safetensors: is missing"),
        (lambda folder: weights(folder).write_bytes(b"short"), r"weights\.safetensors: has 5 bytes"),
        (lambda folder: linked(weights(folder)), r"weights\.safetensors: can't be read, or is a link"),
        (lambda folder: linked(weights(folder).parent), r"can't be read, or is a link"),
        (lambda folder: (folder / RECORD).unlink(), "is no exported folder"),
        (lambda folder: (folder / RECORD).write_text("[" * 100_000), "avmend.json"),
        (lambda folder: linked(folder / RECORD), "link"),
        (other_path("../outside.json"), "no plain relative path"),
        (other_path("/etc/passwd.json"), "no plain relative path"),
        (other_path("runs/x/.bashrc.json"), "no plain relative path"),
        (other_path("runs/x/state.pt"), "of no kind that is shared"),
        (other_seed, "its identity is"),
        (other_place, "names a path outside"),
        (odd_checkpoint, "is no checkpoint"),
        (lambda folder: rewritten(folder, lambda record: record.update(fingerprint="0" * 12)), "its identity is"),
        (lambda folder: rewritten(folder, lambda record: record.update(folders=["runs/../../x"])), "no plain"),
        (lambda folder: rewritten(folder, lambda record: record["files"].clear()), "no run here|no checkpoint"),
    ],
)
def test_what_was_tampered_with_is_refused_and_nothing_is_left(folder, tamper, said, tmp_path):
    tamper(folder)
    args = [str(folder), "--runs", str(tmp_path / "runs")]
    with pytest.raises(InputError, match=said) as refused:
        take_in.__wrapped__(["shared", *args])
    assert refused.value.remedy
    assert refused.value.file
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


@unit
def test_another_run_in_the_way_stays(folder, tuned, tmp_path, capsys):
    (tmp_path / "runs" / tuned.name).mkdir(parents=True)
    (tmp_path / "runs" / tuned.name / "mine.txt").write_text("mine")
    assert take_in([str(folder), "--runs", str(tmp_path / "runs")]) == 2
    assert "is there already, and is another one" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "runs" / tuned.name).iterdir()] == ["mine.txt"]


@unit
def test_what_can_not_be_exported_says_why(tuned, folder, tmp_path, capsys):
    half = Path(shutil.copytree(tuned, tmp_path / tuned.name))
    shutil.rmtree(half / "finetune")
    damaged = Path(shutil.copytree(tuned, tmp_path / "damaged" / tuned.name))
    flipped(damaged / "finetune" / "weights.safetensors")
    for words, said in (
        ([str(half), str(tmp_path / "a")], "is not finished: 'finetune' is not there"),
        ([str(damaged), str(tmp_path / "a")], "is damaged"),
        ([str(tuned), str(folder)], "is there already and not empty"),
        ([str(tmp_path), str(tmp_path / "a")], "neither a run nor shards"),
        ([str(tuned), str(tmp_path / "a"), "--link"], "field '--link': means nothing for a run"),
        ([str(tuned), str(tmp_path / "a"), "--results", str(tmp_path)], "holds no evaluation of this run"),
    ):
        assert export(words) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "a").exists()
