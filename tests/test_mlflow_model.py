"""A finished run as a model of a real MLflow store: loaded by its address, it gives the numbers of `avmend.load`."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import avmend
from serving.mlflow_model import AnswerModel, run_folder
from shards.errors import InputError
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.sharing import TINY, untrained_run
from tests.fixtures.worlds import NET, train_run
from trainers.classification.config import FinetuneConfig
from trainers.register import main as register_main
from trainers.tracking import sqlite_uri
from trainers.tracking.models import MODEL, RunModel, save_model
from trainers.train import main as train_main

ROOT = Path(__file__).resolve().parent.parent
unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _mlflow_schema) -> tuple[Path, MlflowClient, Path]:
    """A run that was trained into a store of its own, the store, and a folder of clips."""
    import shutil

    root = tmp_path_factory.mktemp("logged")
    shutil.copy(_mlflow_schema, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        clips = root / "clips"
        clips.mkdir()
        media = ingested_clips(clips, ("train", "train", "test", "test"))
        run = train_run("finetune", media, root, *NET, "batch_size=2")
    return run, MlflowClient(sqlite_uri(root / "mlflow.db")), clips


def logged(client: MlflowClient, run: Path):
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = [r for r in client.search_runs(places) if r.info.run_name == run.name]
    return found


@pytest.fixture
def store(trained, monkeypatch):
    """MLflow's own calls ask the run's store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri(trained[0].parent / "mlflow.db"))
    monkeypatch.delenv("AVMEND_RUNS", raising=False)


@integration
def test_a_trained_run_is_a_model_of_its_mlflow_run(trained):
    run, client, _ = trained
    found = logged(client, run)
    (output,) = found.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert found.data.tags[MODEL] == f"models:/{output.model_id}" == model.model_uri
    assert (model.name, model.status, model.source_run_id) == (run.name, "READY", found.info.run_id)
    place = Path(model.artifact_location.removeprefix("file://"))
    files = {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}
    assert {"MLmodel", "data/run/run.json", "requirements.txt", "input_example.json"} <= set(files)
    assert sum(path.stat().st_size for path in files.values()) < 20_000, "no weights are copied"
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pth"))]
    own = re.sub(r"artifact_path: .*", "", "".join(path.read_text() for path in files.values()))
    assert str(run.parent) not in own, "only MLflow's own line says where the store is"
    assert f"torch=={__import__('torch').__version__.partition('+')[0]}" in files["requirements.txt"].read_text()


@integration
def test_loaded_by_its_address_it_gives_the_numbers_of_avmend_load(trained, store):
    run, client, clips = trained
    model = mlflow.pyfunc.load_model(logged(client, run).data.tags[MODEL])
    assert [column.name for column in model.metadata.signature.inputs] == ["clip", "audio", "image", "question"]
    found = model.predict(pd.DataFrame({"clip": [str(clips / name) for name in (*NAMES, "gone.mp4")]}))
    own = avmend.load(run, "cpu")
    for row, name in zip(found.to_dict("records"), NAMES, strict=False):
        wanted = own.predict(clips / name)
        assert row["answer"] == wanted.answer
        assert row["probability"] == pytest.approx(wanted.probability, abs=1e-6)
        shares = json.loads(row["probabilities"])
        assert [shares[a] for a in wanted.answers] == pytest.approx(wanted.probabilities, abs=1e-6)
        assert row["present"] == [m for m, there in wanted.present.items() if there]
        assert row["failure"] is None
    last = found.iloc[-1]
    assert "missing file" in last["failure"]
    assert last["answer"] is None
    pair = model.predict(pd.DataFrame({"audio": [str(clips / "sound.wav")]}), params={"abstain_below": 1.0})
    assert pair["probability"][0] == pytest.approx(own.predict(clips / "sound.wav").probability, abs=1e-6)
    assert bool(pair["abstains"][0])
    with pytest.raises(Exception, match="row 0 has no clip, or two"):
        model.predict(pd.DataFrame({"clip": ["a.mp4"], "audio": ["b.wav"]}))
    with pytest.raises(Exception, match="leave the column out"):
        model.predict(pd.DataFrame({"clip": ["a.mp4"], "question": ["Is there a drum?"]}))


@unit
def test_what_pandas_calls_missing_is_nothing_and_no_rows_give_none(tmp_path):
    media = ingested_clips(tmp_path, ("train", "train", "test", "test"))
    config = FinetuneConfig(data=media, backbone=TINY, workers=0, cpus=1)
    own = avmend.load(untrained_run(config, tmp_path / "runs"), "cpu")
    both, sound = str(tmp_path / "both.mp4"), str(tmp_path / "sound.wav")
    table = pd.DataFrame({"clip": [both, None], "audio": [None, sound]}, dtype="string")
    found = AnswerModel(own).predict(table)
    assert list(found["probability"]) == pytest.approx([own.predict(clip).probability for clip in (both, sound)])
    none = AnswerModel(own).predict(table[:0])
    assert (len(none), list(none.columns)) == (0, list(found.columns))
    assert list(none.dtypes) == list(found.dtypes)


@integration
def test_a_name_and_an_alias_lead_to_it_and_again_to_the_same_version(trained, store, monkeypatch, capsys):
    run, client, clips = trained
    with monkeypatch.context() as patch:  # no process-wide store helps: that of the run's folder is asked
        patch.delenv("MLFLOW_TRACKING_URI")
        patch.chdir(clips)
        assert register_main([str(run), "sirens@champion"]) == 0
        assert not (clips / "mlflow.db").exists()
    assert capsys.readouterr().out.split()[-1] == "models:/sirens@champion"
    again = ["finetune", f"data={clips / 'media'}", *NET, "epochs=1", "batch_size=2", "workers=0", "cpus=1"]
    assert train_main([*again, "--runs", str(run.parent), "--register", "sirens"]) == 0
    assert capsys.readouterr().out.split()[-1] == "models:/sirens/1"
    (version,) = client.search_model_versions("name='sirens'")
    (output,) = logged(client, run).outputs.model_outputs
    assert version.source == client.get_logged_model(output.model_id).artifact_location
    found = mlflow.pyfunc.load_model("models:/sirens@champion").predict(pd.DataFrame({"clip": [str(clips / NAMES[0])]}))
    assert found["answer"][0] == avmend.load(run, "cpu").predict(clips / NAMES[0]).answer
    assert register_main([str(run), "sirens@"]) == 2
    assert "give NAME, or NAME@ALIAS" in capsys.readouterr().err
    assert register_main([str(run), "a/b"]) == 2
    assert "does not register it" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert register_main([str(run), "sirens", "--runs", str(clips)]) == 2
    assert "no MLflow store yet" in capsys.readouterr().err


@integration
def test_a_model_of_a_run_that_is_elsewhere_says_what_to_set(trained, tmp_path, monkeypatch):
    run, _, clips = trained
    save_model(tmp_path / "model", RunModel(run.name, "finetune", "classification", False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AVMEND_RUNS", raising=False)
    with pytest.raises(InputError, match="set AVMEND_RUNS"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
    monkeypatch.setenv("AVMEND_RUNS", str(run.parent))
    frame = pd.DataFrame({"clip": [str(clips / NAMES[0])]})
    found = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(frame)
    given = mlflow.pyfunc.load_model(str(tmp_path / "model"), model_config={"runs": str(run.parent), "device": "cpu"})
    assert found.equals(given.predict(frame))
    moved = run.parent / "a" / "b"
    assert run_folder(run.name, moved, None) == run, "the store's folder is above the model, wherever both are"


@pytest.mark.slow
def test_mlflow_models_serve_answers(trained, tmp_path):
    run, client, clips = trained
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = logged(client, run).data.tags[MODEL]
    env = {**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri(run.parent / "mlflow.db"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    command += ["--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    server = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True)
    try:
        rows = [{"clip": str(clips / name)} for name in NAMES]
        answers = asked(f"http://127.0.0.1:{port}", {"dataframe_records": rows})["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    own = avmend.load(run, "cpu").predict([clips / name for name in NAMES])
    assert [row["answer"] for row in answers] == [p.answer for p in own]
    assert [row["probability"] for row in answers] == pytest.approx(np.array([p.probability for p in own]), abs=1e-6)


def asked(server: str, content: dict, seconds: float = 240.0) -> dict:
    """What a scoring server answers, once it does."""
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{server}/ping", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < end, "the server does not come up"
            time.sleep(1.0)
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/invocations", json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)
