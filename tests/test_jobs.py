"""Jobs sent to a real cluster that has only the dependencies, and the doctor looking at it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fixtures.builders import media_dataset
from tests.fixtures.heads import Head, ray_head
from tests.fixtures.media import make_clip
from tests.fixtures.sweeps import SWEEP, sweep_file
from tests.test_ingest import write_manifest
from tuning.checks.cluster import check_address, check_token
from tuning.checks.finding import guarded

SMALL = [f"backbone.{k}={v}" for k, v in {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 2}.items()]
SMALL += ["backbone.target_length=32", "backbone.image_size=32", "batch_size=8", "epochs=1", "cpus=1"]


@pytest.fixture(scope="module")
def head():
    with ray_head() as running:
        yield running


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    media_dataset(folder, {"train": 24, "val": 8})
    return folder


def doctor(head: Head, runs: Path, *arguments: str, **variables: str) -> dict[str, dict]:
    """The doctor's findings by check, the worst of each, from the project's own environment."""
    command = [
        sys.executable,
        "-m",
        "tuning.doctor",
        "--json",
        "--runs",
        str(runs),
        "--room",
        "0",
        *arguments,
    ]
    env = {**head.env, "RAY_ADDRESS": head.address, **variables}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == int(any(line["status"] == "fail" for line in lines)), done.stderr
    found: dict[str, dict] = {}
    for line in lines:
        if line["status"] == "fail" or line["check"] not in found:
            found[line["check"]] = line
    return found


@pytest.mark.ray
def test_without_the_token_a_job_is_refused(head, tmp_path):
    touched = tmp_path / "touched"
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "f" * 32}):
        done = head.submit("touch", str(touched), env={**head.env, **variables})
        assert done.returncode != 0
        assert "Unauthorized" in done.stdout or "Forbidden" in done.stdout, done.stdout
    assert not touched.exists()


@pytest.mark.ray
def test_clips_are_ingested_where_only_the_dependencies_are_installed(head, tmp_path):
    python = [head.bin / "python", "-c"]
    alone = subprocess.run([*python, "import avmend"], env=head.env, cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'avmend'" in alone.stderr
    subprocess.run([*python, "import ray, torch, mlflow"], env=head.env, cwd=tmp_path, check=True)
    make_clip(tmp_path / "a.mp4", seconds=0.5)
    manifest = write_manifest(tmp_path, *(f"c{i},a.mp4,x,train" for i in range(4)))
    given = ["--manifest", str(manifest), "--out", str(tmp_path / "out")]
    settings = ["frames=2", "image_size=16", "samples_per_shard=2"]
    done = head.submit("python", "-m", "pipelines.ingest", *given, *settings)
    assert done.returncode == 0, done.stdout
    assert "train: 4 clips in 2 shards" in done.stdout
    assert (tmp_path / "out" / "dataset.json").is_file()


@pytest.mark.ray
def test_a_job_gets_the_code_alone_and_may_not_write_its_runs_there(head, media, tmp_path):
    """From a checkout with gigabytes beside the code: .gitignore keeps them out of the upload."""
    left_out = shutil.ignore_patterns(".*", "runs", "data", "build", "*.egg-info", "__pycache__")
    checkout = shutil.copytree(ROOT, tmp_path / "checkout", ignore=left_out)
    shutil.copy(ROOT / ".gitignore", checkout)
    for name in ("runs/big.bin", "data/big.bin", ".venv/big.bin"):
        (checkout / name).parent.mkdir()
        with (checkout / name).open("wb") as file:
            file.truncate(600_000_000)  # more than Ray takes
    train = f"python -m trainers.train finetune data={media} {' '.join(SMALL)}"
    done = head.submit("bash", "-c", f"echo there: $(ls -A); {train}", cwd=checkout)
    assert done.returncode != 0
    (there,) = {line for line in done.stdout.splitlines() if line.startswith("there:")}  # Ray may tell it twice
    assert "trainers" in there
    assert not {"runs", "data", ".venv"} & set(there.split())
    assert "field '--runs': runs would be lost with the job's temporary working directory" in done.stdout
    assert "remedy: give an absolute path" in done.stdout


@pytest.mark.ray
def test_the_doctor_finds_a_sound_cluster_sound(head, tmp_path):
    found = doctor(head, tmp_path)
    checked = {name: found[name]["status"] for name in ("token", "ray address", "state api", "nodes", "storage")}
    assert set(checked.values()) == {"ok"}, found
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


@pytest.mark.slow
def test_the_doctor_tells_shared_storage_from_a_nodes_own(head, tmp_path):
    """The same folder, seen by the second node as by the head; then with a file system of its own over it."""
    with head.node():
        found = doctor(head, tmp_path)
        assert found["nodes"]["found"].startswith("2, 3 CPUs")
        assert found["storage"]["found"] == f"{tmp_path} is written and read by all 2 nodes"
    own = ["unshare", "--mount", "bash", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "bash"]
    if subprocess.run([*own, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces for this user")
    with head.node(*own):
        found = doctor(head, tmp_path)
        assert found["storage"]["status"] == "fail"
        assert "No such file" in found["storage"]["found"]
        assert found["storage"]["remedy"] == f"mount the same storage at {tmp_path} on every node"


@pytest.fixture
def client(head, monkeypatch):
    """This process with a client's variables; set them, and ask the checks that need no Ray."""
    for name, value in head.env.items():
        if name.startswith("RAY_AUTH"):
            monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.ray
@pytest.mark.parametrize(
    ("variables", "check", "words"),
    [
        ({"RAY_AUTH_TOKEN": "f" * 32}, "address", "refuses that of RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "disabled"}, "address", "this process sends none"),
        ({"RAY_AUTH_MODE": "disabled"}, "token", "RAY_AUTH_MODE=disabled"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "token", "No such file"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, "address", "no Ray answers at 127.0.0.1:9"),
        ({"RAY_ADDRESS": "http://127.0.0.1:9"}, "address", "nobody answers at http://127.0.0.1:9"),
    ],
)
def test_the_doctor_says_why_a_cluster_can_not_be_used(head, client, variables, check, words):
    for name, value in {"RAY_ADDRESS": head.address, **variables}.items():
        client.setenv(name, value)
    checks = {"token": check_token, "address": lambda: check_address(os.environ["RAY_ADDRESS"])}
    (found,) = guarded(check, checks[check])
    assert found.status == "fail"
    assert words in found.found
    assert found.remedy


@pytest.mark.ray
def test_the_doctor_asks_the_job_api_too(head, client):
    (found,) = check_address(head.url)
    assert found.status == "ok", found
    client.setenv("RAY_AUTH_TOKEN", "f" * 32)
    (found,) = check_address(head.url)
    assert "refuses this token" in found.found


@pytest.mark.slow
def test_training_and_a_sweep_run_as_jobs(head, media, tmp_path):
    runs = str(tmp_path / "runs")
    train = [
        "python",
        "-m",
        "trainers.train",
        "finetune",
        f"data={media}",
        "--runs",
        runs,
        "workers=1",
        *SMALL,
    ]
    done = head.submit(*train)
    assert done.returncode == 0, done.stdout
    (run,) = Path(runs).glob("finetune-*")
    made_by = json.loads((run / "config.json").read_text())["commit"]
    assert made_by.startswith("code-"), "the job's folder is no checkout, but its code has a name"

    data = {**SWEEP["data"], "media": str(media)}
    file = sweep_file(tmp_path, data=data, space={"length": [1, 2]})
    sweep = ["python", "-m", "tuning.sweep", str(file), "--data", str(tmp_path / "data"), "--runs", runs]
    done = head.submit(*sweep)
    assert done.returncode == 0, done.stdout
    (table,) = Path(runs).glob("mini-*/sweep.csv")
    assert table.read_text().count("finished") == 2
