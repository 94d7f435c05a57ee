"""Secrets planted in every way a user gives them: found in nothing that commands write, print or start."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from avmend import main
from benchmarks.processes import ROOT, Marked
from tests.fixtures.builders import media_dataset
from tests.fixtures.media import run_ffmpeg
from tests.fixtures.servers import tracking_server
from trainers.classification.config import FinetuneConfig, Sizes
from trainers.evaluation_cache import save_rows
from trainers.job import prepare

SIZES = {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 2, "target_length": 32, "image_size": 32}
SMALL = [f"backbone.{name}={value}" for name, value in SIZES.items()]
SMALL += ["batch_size=8", "epochs=1", "workers=0", "cpus=1"]
VARIABLES = {
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token",
    "RAY_AUTH_TOKEN": "planted-ray-token-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
    "AWS_SESSION_TOKEN": "planted-aws-session",
    "OPENAI_API_KEY": "planted-api-key",
    "DB_PASSWORD": "planted-db-password",
}
IN_ADDRESS = "planted-in-address"
IN_FILE = "planted-in-file"
IN_ARGUMENT = "planted-in-argument"
SECRETS = [*VARIABLES.values(), IN_ADDRESS, IN_FILE, IN_ARGUMENT]


@pytest.fixture
def planted(tmp_path, monkeypatch) -> Path:
    """A home with a token's file, and all variables set; returns the folder in which commands run."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(IN_FILE)
    (home / ".ray" / "auth_token").chmod(0o600)
    (home / ".netrc").write_text(f"machine 127.0.0.1 login ann password {IN_FILE}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    work = tmp_path / "work"
    work.mkdir()
    media_dataset(work / "data", {"train": 8, "val": 4})
    monkeypatch.chdir(work)
    return work


def found_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes().decode(errors="replace")


@pytest.mark.integration
def test_no_secret_is_written_or_printed(planted, mlflow_root, monkeypatch, capfd, caplog):
    runs, data = planted / "runs", planted / "data"
    with tracking_server(mlflow_root / "mlflow.db") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{IN_ADDRESS}@127.0.0.1:{server.port}")
        train = ["train", "finetune", f"data={data}", "--runs", str(runs), *SMALL]
        assert main(train) == 0
        server.status = 401
        assert main(["train", "finetune", f"data={data}", "--runs", str(runs), *SMALL, "seed=1"]) == 0
    statuses = {
        "report": main(["report", "--runs", str(runs)]),
        "ui": main(["ui", "--store", str(runs)]),
        "doctor": main(["doctor", "--runs", str(runs), "--room", "0", "--json"]),
        "data": main(["train", "finetune", f"data=s3://ann:{IN_ARGUMENT}@bucket/x", "--runs", str(runs), *SMALL]),
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ann:{IN_ADDRESS}@127.0.0.1:9/x")
    statuses["postgres"] = main(["ui", "--store", str(runs)])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("RAY_ADDRESS", f"http://ann:{IN_ADDRESS}@127.0.0.1:9")
    statuses["ray"] = main(["doctor", "--runs", str(runs), "--room", "0"])
    monkeypatch.delenv("RAY_ADDRESS")
    assert statuses == dict.fromkeys(("report", "ui", "data", "postgres"), 2) | {"doctor": 1, "ray": 1}
    out, err = capfd.readouterr()
    assert not found_in(out)
    assert not found_in(err)
    assert not found_in(caplog.text)
    for path, text in [*files(planted), *files(mlflow_root)]:
        assert not found_in(text), path
    (folder, _) = sorted(runs.glob("finetune-*"))
    assert folder.is_dir()


@pytest.mark.unit
def test_a_command_line_with_a_password_is_recorded_without_it(planted, mlflow_root, monkeypatch, capfd):
    """The report shows what the store holds of runs."""
    from trainers.tracking import Store, read_runs

    address = f"mysql://ann:{IN_ARGUMENT}@db/x"
    monkeypatch.setattr(sys, "argv", ["avmend", "train", f"data={address}"])
    store = Store(mlflow_root)
    params = {"recipe": "prompt", "data": address}

    def fail() -> None:
        with store.run("r", "demo", params, {"note": address}, folder=mlflow_root / "r") as run:
            run.note(f"see {address} and {VARIABLES['DB_PASSWORD']}")
            raise ValueError(f"{address} refused {VARIABLES['AWS_SECRET_ACCESS_KEY']}")

    with pytest.raises(ValueError, match="refused"):
        fail()
    (recorded,) = read_runs(mlflow_root)
    told = json.dumps([recorded.params, recorded.tags])
    assert told.count("mysql://ann:***@db/x") == 5
    assert main(["report", "--runs", str(mlflow_root), "--out", str(planted / "report.html")]) == 0
    assert not found_in((planted / "report.html").read_text() + told + "".join(capfd.readouterr()))
    for path, text in files(mlflow_root):
        assert not found_in(text), path


@pytest.mark.unit
def test_addresses_of_clips_and_of_settings_are_recorded_without_their_passwords(planted, capfd):
    """Whatever a user writes into a manifest or a config goes into quarantines, pages, records and what is printed."""
    address = f"s3://ann:{IN_ARGUMENT}@bucket/a.wav?token={IN_ADDRESS}"
    (planted / "m.csv").write_text(f"id,path,label,split\na,{address},x,train\nb,b.wav,x,train\n")
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.3", planted / "b.wav")
    shards = planted / "shards"
    ingest = ["ingest", "--manifest", "m.csv", "--out", str(shards), "workers=0", "frames=1", "image_size=32"]
    assert main(ingest) == 2, "credentials come from the environment alone"
    assert main(["ingest", "--manifest", address, "--out", str(shards)]) == 2
    assert main(["ingest", "--manifest", "m.csv", "--out", address]) == 2
    assert not shards.exists()
    assert main(["audit", "m.csv", "--out", str(planted / "audit"), "workers=0"]) in (0, 1, 2)
    (planted / "m.csv").write_text("id,path,label,split\na,a.wav,x,train\nb,b.wav,x,train\n")
    assert main(ingest) == 0
    assert main(["audit", str(shards), "--out", str(planted / "audit-2"), "workers=0"]) in (0, 1, 2)
    assert main(["shards", address]) == 2
    assert main(["evaluate", address, "--out", str(planted / "results")]) == 2
    assert main(["predict", address, "m.csv"]) == 2
    assert main(["features", "--data", address, "--backbone", address]) == 2
    for override in (f"start={address}", f"public={address}", f"data={address}", f"recipe={address}", f"{address}=1"):
        assert main(["train", "finetune", f"data={planted / 'data'}", "--dry-run", *SMALL, override]) == 2
    assert main(["study", "demo", "--dry-run", f"corpus.source={address}"]) in (0, 2)
    config = FinetuneConfig(data=planted / "data", backbone=Sizes(**SIZES), epochs=1)
    job = prepare(config, planted / "runs")
    dataclasses.replace(job, config=config.model_copy(update={"public": Path(address)})).begin()
    record = json.loads((job.folder / "config.json").read_text())
    assert record["config"]["public"] == "s3:/ann:***@bucket/a.wav?token=***"
    assert record["config"]["data"] == str(planted / "data")
    save_rows(planted, {}, {"config": {"data": address}, "runs": [address]}, [])
    out, err = capfd.readouterr()
    assert not found_in(out)
    assert not found_in(err)
    for path, text in files(planted):
        assert path.name in ("m.csv", "auth_token", ".netrc") or not found_in(text), path


@pytest.mark.unit
def test_a_defects_traceback_has_no_password(planted):
    lines = (
        "from shards.command import command",
        "@command",
        "def main(argv):",
        f"    raise RuntimeError('http://ann:{IN_ARGUMENT}@host/x')",
        "main([])",
    )
    (planted / "defect.py").write_text("\n".join(lines).replace(IN_ARGUMENT, "'\n    'planted-in-argument"))
    run = subprocess.run(
        [sys.executable, "defect.py"], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert run.returncode == 1
    told = run.stderr.decode()
    assert "RuntimeError: http://ann:***@host/x" in told
    assert "Traceback" in told


@pytest.mark.slow
def test_no_secret_is_in_a_command_line_of_ours(planted):
    """What all users of a machine see: the command lines of a command and of all that it starts."""
    runs, seen = planted / "runs", set[str]()
    secret = {"MLFLOW_BACKEND_STORE_URI": "", "MLFLOW_TRACKING_URI": f"http://ann:{IN_ADDRESS}@127.0.0.1:9"}
    given = ["-m", "trainers.train", "finetune", f"data={planted / 'data'}", "--runs", str(runs)]
    with Marked.start(*given, *SMALL, log=planted / "log", **{**os.environ, **secret}) as run:
        while run.process.poll() is None:
            for pid in run.pids():
                try:
                    seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
                except OSError:
                    continue
            time.sleep(0.1)
        assert run.process.returncode == 0, (planted / "log").read_text()[-2000:]
    assert seen
    assert not [line for line in seen if found_in(line)]
    for path, text in files(planted):
        assert not found_in(text), path
