"""Runs on an object store: trained there, killed, resumed elsewhere to the same bits, asked, reported, handed on."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.export.command import main as export
from serving.predict import main as predict
from shards import lease, working_copy
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from shards.store import StorePath
from shards.store_errors import StoreRefused
from shards.stored_folder import StoredFiles, local_root, reading
from tests.conftest import ROOT
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.sharing import TINY, untrained_run
from tests.fixtures.worlds import NET, train_run
from trainers.calibrate import main as calibrate
from trainers.classification.config import FinetuneConfig
from trainers.evaluate import main as evaluate
from trainers.imports.command import main as take_in
from trainers.journal import read_metrics
from trainers.register import register_run
from trainers.runs import read_run
from trainers.train import main as train
from tuning.report.command import main as report
from tuning.study import main as study

SETTINGS = [*NET, "lr=0.01"]  # of the world's backbone: the same run, on a store


@pytest.fixture(autouse=True)
def _quick(monkeypatch, s3) -> None:
    s3.misbehave()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, seconds in {"LOOK": 0.01, "SETTLED": 0.0}.items():
        monkeypatch.setattr(lease, name, seconds)
    monkeypatch.setattr(working_copy, "LOOK", 0.1)


@pytest.fixture
def at(tmp_path, monkeypatch, _mlflow_schema):
    """Goes to another machine: a cache of its own, with an empty MLflow store for a folder of runs."""

    def go(name: str, runs: StorePath) -> Path:
        monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / name))
        if not (local_root(runs) / "mlflow.db").exists():
            shutil.copy(_mlflow_schema, local_root(runs))
        return local_root(runs)

    return go


def assert_same(run: StorePath, local: Path) -> None:
    """The weights to the bit, and the figures of every epoch."""
    folder = reading(run)
    mine, other = (load_checkpoint(place / "finetune").weights for place in (folder, local))
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    timed = {"epoch_seconds", "data_wait_seconds", "peak_memory_mb"}
    figures = [
        [(line.step, {k: v for k, v in line.metrics.items() if k not in timed}) for line in read_metrics(place)]
        for place in (folder / "logs/finetune", local / "logs/finetune")
    ]
    assert figures[0] == figures[1]


@pytest.mark.integration
def test_on_a_store_that_fails_it_is_the_run_of_a_disk(s3, world, at, capsys):
    runs = s3.root / "failing"
    root = at("first", runs)
    faults = s3.misbehave(failing=0.1, cut=0.05, lost=0.05, stale=True)
    run = train_run("finetune", world.media, runs, *SETTINGS, "save_steps=1")
    assert faults.struck["503"] > 5
    s3.misbehave()
    assert run == runs / world.backbone.name
    assert_same(run, world.backbone)
    assert f"note: MLflow's store of {runs} is {root / 'mlflow.db'}" in capsys.readouterr().err
    at("second", runs)
    assert train_run("finetune", world.media, runs, *SETTINGS) == run
    assert "epochs/s" not in capsys.readouterr().err, "finished: nothing is trained again"
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [name for name, data in s3.objects("failing").items() if secret in data]


@pytest.mark.integration
def test_killed_and_gone_on_with_elsewhere_it_is_the_run_of_a_disk(s3, world, at):
    runs = s3.root / "killed"
    at("first", runs)
    s3.misbehave(latency=0.02)
    arguments = ("finetune", world.media, runs, *SETTINGS, "save_steps=1")
    driver = multiprocessing.get_context("fork").Process(target=train_run, args=arguments)
    driver.start()
    try:
        _wait_for_a_state(runs / world.backbone.name, driver)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
    s3.misbehave()
    at("second", runs)
    assert "finetune/checkpoint.json" not in StoredFiles.read(runs / world.backbone.name).files, "it was not finished"
    assert_same(train_run(*arguments), world.backbone)


def _wait_for_a_state(run: StorePath, driver: Any) -> None:
    deadline = time.monotonic() + 60
    while (stored := StoredFiles.read(run)) is None or "last/finetune/state.pt" not in stored.files:
        assert driver.is_alive(), "the run ended before the kill"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.integration
def test_what_could_not_be_published_waits_and_what_was_cut_short_is_refused(s3, world, at, tmp_path, capsys):
    runs, name = s3.root / "expired", world.backbone.name
    weights = at("first", runs) / name / "finetune/weights.safetensors"
    s3.misbehave(denied="ExpiredToken", only=f"expired/{name}/last")
    with pytest.raises(StoreRefused, match="ExpiredToken"):
        train_run("finetune", world.media, runs, *SETTINGS)
    assert "not published yet" in capsys.readouterr().err
    made = weights.stat().st_mtime_ns
    s3.misbehave()
    run = train_run("finetune", world.media, runs, *SETTINGS)
    assert weights.stat().st_mtime_ns == made, "the same command had only to publish"
    at("second", runs)
    assert_same(run, world.backbone)

    stored = StoredFiles.read(run).files["finetune/weights.safetensors"].object
    data = (run / stored).read_bytes()
    (run / stored).write_bytes(data[: len(data) // 2])
    at("third", runs)
    assert predict([str(run), str(tmp_path / "clip.mp4")]) == 2
    assert re.search(rf"{run / stored}: is damaged.*\n.*remedy: put the object back", capsys.readouterr().err)


@pytest.mark.integration
def test_two_machines_do_not_train_one_run(s3, world, at, monkeypatch):
    monkeypatch.setattr(working_copy, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "ABANDONED", 0.5)
    monkeypatch.setattr(lease, "RENEWED", 0.05)
    runs = s3.root / "twice"
    at("first", runs)
    refused = pytest.raises(InputError, match="another training is at work here: process")
    with lease.lease(runs / world.backbone.name, "training", 0, ""), refused:
        train_run("finetune", world.media, runs, *SETTINGS)


@pytest.mark.integration
def test_an_address_with_credentials_is_refused(world, capsys):
    words = ["finetune", f"data={world.media}", "--runs"]
    assert train([*words, "s3://AKIA:hush-hush@bucket/runs"]) == 2
    said = capsys.readouterr().err
    assert "AWS_ACCESS_KEY_ID" in said
    assert "hush" not in said


@pytest.mark.integration
def test_handed_on_by_a_store_and_asked_there(s3, at, tmp_path, capsys):
    """Weights that nobody trained; their clips can be decoded."""
    runs = s3.root / "asked"
    at("first", runs)
    media = ingested_clips(tmp_path, ("train", "train", "test", "test"))
    run = untrained_run(FinetuneConfig(data=media, backbone=TINY, workers=0, cpus=1), tmp_path / "runs")
    clips = [str(tmp_path / name) for name in NAMES]
    assert predict([str(run), *clips, "--json"]) == 0
    local = capsys.readouterr().out
    assert export([str(run), str(s3.root / "handed/on")]) == 0
    assert export([str(run), str(s3.root / "handed/on")]) == 2, "something is there"
    at("second", runs)
    for _ in range(2):
        assert take_in([str(s3.root / "handed/on"), "--runs", str(runs)]) == 0
    capsys.readouterr()
    assert predict([str(runs / run.name), *clips, "--json"]) == 0
    assert capsys.readouterr().out == local
    assert predict([str(runs / run.name), str(s3.root / "nothing"), *clips]) == 2
    assert "s3://avmend/nothing: field 'runs': there is no run" in capsys.readouterr().err
    s3.s3.put_object(Bucket="avmend", Key="handed/on/avmend.json", Body=b"{}")
    assert take_in([str(s3.root / "handed/on"), "--runs", str(runs)]) == 2
    assert "s3://avmend/handed/on/avmend.json" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluated_calibrated_reported_and_handed_on(s3, world, at, tmp_path, capsys):
    runs = s3.root / "all"
    at("first", runs)
    prompt, backbone = world.others["prompt"], world.backbone
    assert export([str(prompt), f"{s3.root}/shared/prompt"]) == 0
    assert json.loads((s3.root / "shared/prompt/avmend.json").read_bytes())["folders"][0] == f"runs/{prompt.name}"
    assert take_in([f"{s3.root}/shared/prompt", "--runs", str(runs)]) == 0
    asked = [str(runs / name) for name in (backbone.name, prompt.name)]
    capsys.readouterr()

    at("second", runs)  # where there is neither run nor table
    made = ["--set", "conditions=[complete,audio_missing]", "batch_size=8"]
    assert calibrate([*asked, "--data", str(world.media), *made]) == 0
    assert read_run(runs / prompt.name).folder.joinpath("calibration.json").exists()
    assert evaluate([*asked, "--data", str(world.media), "--out", f"{runs}/results", *made]) == 0
    table = capsys.readouterr().out
    assert "| prompt" in table
    assert evaluate([*asked, "--data", str(world.media), "--out", f"{runs}/results", *made]) == 0
    assert f"already finished: {runs}/results" in capsys.readouterr().out
    assert report(["--runs", str(runs), "--out", f"{runs}/report.html"]) == 0
    page = (runs / "report.html").read_text()
    assert "audio missing" in page
    assert "No clips are shown" not in page
    assert export([asked[1], str(tmp_path / "back"), "--results", f"{runs}/results"]) == 0
    record = json.loads((tmp_path / "back/runs" / prompt.name / "config.json").read_text())
    assert record["identity"] == json.loads((prompt / "config.json").read_text())["identity"]
    assert "accuracy" in (tmp_path / "back/README.md").read_text()


@pytest.mark.slow
def test_a_run_that_stands_on_one_of_the_store(s3, world, at):
    runs = s3.root / "stands"
    at("first", runs)
    assert export([str(world.backbone), str(s3.root / "shared/backbone")]) == 0
    assert take_in([str(s3.root / "shared/backbone"), "--runs", str(runs)]) == 0
    backbone = runs / world.backbone.name
    settings = ["length=2", "deep=true", "lr=0.3", "missing=0.2"]
    run = train_run("prompt", world.media, runs, f"backbone={backbone}", *settings)
    assert run.name == world.others["prompt"].name, "where its backbone lies changes nothing"
    at("second", runs)
    found = read_run(run)
    assert json.loads((found.folder / "config.json").read_text())["config"]["backbone"] == str(backbone)
    mine, other = (load_checkpoint(place / "complete").weights for place in (found.folder, world.others["prompt"]))
    assert all(torch.equal(mine[name], other[name]) for name in other)
    at("first", runs)
    assert register_run(run, "prompts@best") == "models:/prompts@best"


def table(text: str) -> list[dict[str, str]]:
    """An evaluation's results, without what it took."""
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "memory" not in k}
        for row in csv.DictReader(io.StringIO(text))
    ]


@pytest.mark.slow
def test_a_study_on_a_store_has_the_table_of_one_on_a_disk(s3, at, tmp_path, mlflow_root):
    command = ["avqa_demo", "training.workers=0", "--data", str(tmp_path / "data"), "--runs"]
    assert study([*command, str(mlflow_root)]) == 0
    (local,) = mlflow_root.glob("avqa_demo-*")
    runs = s3.root / "study"
    at("first", runs)
    s3.misbehave(failing=0.02)
    assert study([*command, str(runs)]) == 0
    s3.misbehave()
    stored = s3.objects("study")
    at("second", runs)
    found = table((reading(runs / local.name) / "results.csv").read_text())
    assert found == table((local / "results.csv").read_text())
    assert len(found) > 20
    assert study([*command, str(runs)]) == 0
    assert {name: data for name, data in s3.objects("study").items() if "avqa_demo" not in name} == {
        name: data for name, data in stored.items() if "avqa_demo" not in name
    }, "on another machine nothing is trained again"


@pytest.mark.slow
def test_two_nodes_that_share_the_store_alone(s3, world, tmp_path, monkeypatch):
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "driver"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [str(world.media), str(s3.root / "nodes"), str(tmp_path)]
    command = [sys.executable, "-m", "tests.fixtures.stored_training", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    copies = {name: list((tmp_path / name).rglob("last/finetune/state.pt")) for name in ("one", "two", "driver")}
    assert {name: len(found) for name, found in copies.items()} == {"one": 1, "two": 1, "driver": 0}
    local, run = done.stdout.split()[-2:]
    assert_same(StorePath(run), Path(local))
