"""The doctor's checks of one machine, each made to fail by a real fault."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fixtures.builders import SMALL, feature_dataset, media_dataset
from tuning.checks import cluster, machine, stored
from tuning.checks.finding import Finding, guarded
from tuning.doctor import main

unit, integration = pytest.mark.unit, pytest.mark.integration


def the(findings: list[Finding]) -> Finding:
    (found,) = findings
    assert found.remedy or found.status in ("ok", "skip"), "what is wrong has a remedy"
    return found


@pytest.fixture
def nobody(monkeypatch):
    """No variable of Ray's, and a home without a token."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    return monkeypatch


@unit
def test_this_machine_is_fit():
    checks = (machine.check_python, machine.check_ffmpeg, machine.check_decoders, machine.check_gpu)
    for check in checks:
        assert the(check()).status == "ok", check()
    assert the(machine.check_versions(ROOT)).status == "ok"


@pytest.fixture
def project(tmp_path):
    """A folder with this project's requirements, to change."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())

    def change(name: str, before: str, after: str) -> Path:
        text = (tmp_path / name).read_text()
        assert before in text
        (tmp_path / name).write_text(text.replace(before, after))
        return tmp_path

    return change


@unit
def test_an_old_version_pinned_is_seen(project):
    found = the(machine.check_versions(project("constraints.txt", "torch==2.11.0", "torch==2.10.0")))
    assert (found.status, found.found) == ("warn", "not those tried together: torch 2.11.0 instead of 2.10.0")


@unit
def test_a_version_out_of_range_and_one_missing_fail(project):
    project("pyproject.toml", "ray[default,data,train,tune,serve]>=2.60,<2.62", "ray>=3")
    found = the(machine.check_versions(project("pyproject.toml", '"pillow",', '"pillow", "no-such-thing",')))
    assert found.status == "fail"
    assert "ray 2.60.0 instead of >=3" in found.found
    assert "no-such-thing is not installed" in found.found
    assert the(machine.check_versions(ROOT / "tests")).status == "skip"


@integration
def test_an_ffmpeg_that_does_not_run_or_decodes_nothing_fails(tmp_path):
    """In processes of their own: the path is looked up once."""
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho ' V..... theora'\n")
    broken.chmod(0o755)
    code = "from tuning.checks import machine as m; print(*m.check_ffmpeg(), *m.check_decoders(), sep='\\n')"
    for path, words in ((broken, "can't decode"), (tmp_path / "none", "does not run")):
        env = {**os.environ, "IMAGEIO_FFMPEG_EXE": str(path)}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
        first, second = done.stdout.splitlines()
        assert first.startswith("fail ffmpeg"), done.stderr
        assert words in first
        assert second.startswith("fail decoders")


@unit
def test_a_full_disk_is_measured(tmp_path):
    free = machine.shutil.disk_usage(tmp_path).free / machine.GB
    assert the(machine.check_disk([tmp_path], 0)).status in ("ok", "warn"), "warn where 95 % are full"
    assert the(machine.check_disk([tmp_path / "not" / "yet"], free * 2)).status == "warn"
    assert the(machine.check_disk([tmp_path], free * 20)).status == "fail"


@unit
def test_few_open_files_are_seen():
    code = "from tuning.checks import machine as m; print(m.check_open_files()[0].status)"
    for limit, status in ((512, "fail"), (4096, "warn")):
        shell = f"ulimit -S -n {limit}; exec {sys.executable} -c '{code}'"
        done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.strip() == status, done.stderr


@unit
def test_little_shared_memory_is_seen(tmp_path):
    free = machine.shutil.disk_usage(tmp_path).free / machine.GB
    assert the(machine.check_shared_memory(tmp_path, free / 2)).status == "ok"
    assert the(machine.check_shared_memory(tmp_path, free * 2)).status == "warn"
    assert the(machine.check_shared_memory(tmp_path / "none")).status == "skip"


@unit
def test_a_flipped_byte_in_a_shard_fails(tmp_path):
    media_dataset(tmp_path, {"train": 12})
    feature_dataset(tmp_path / "features" / "small-k0", {"train": 6}, SMALL, "f")
    assert [f.status for f in stored.check_datasets([tmp_path])] == ["ok", "ok"]
    shard = tmp_path / "features" / "small-k0" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    good, bad = stored.check_datasets([tmp_path])
    assert good.status == "ok"
    assert bad.status == "fail"
    assert "train-000000.tar: sha256 is" in bad.found
    assert the(stored.check_datasets([tmp_path / "none"])).status == "fail"
    assert the(stored.check_datasets([])).status == "skip"


@unit
def test_the_mlflow_store_is_opened_and_written(mlflow_root):
    before = (mlflow_root / "mlflow.db").read_bytes()
    found = the(stored.check_store(mlflow_root))
    assert found.status == "ok", found
    assert (mlflow_root / "mlflow.db").read_bytes() == before
    assert "none yet" in the(stored.check_store(mlflow_root / "new")).found


@integration
def test_a_store_that_is_held_of_another_schema_or_garbage_fails(mlflow_root):
    path = mlflow_root / "mlflow.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    found = the(stored.check_store(mlflow_root))
    assert found.status == "fail"
    assert "locked" in found.found
    holder.execute("ROLLBACK")
    holder.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    holder.close()
    found = the(stored.check_store(mlflow_root))
    assert found.status == "fail"
    assert "mlflow db upgrade sqlite" in found.remedy
    path.write_bytes(b"not a database" * 100)
    assert "not a database" in the(stored.check_store(mlflow_root)).found


@unit
def test_an_mlflow_server_that_is_not_there_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = the(stored.check_store(tmp_path))
    assert found.status == "fail"
    assert "no MLflow server answers" in found.found


@unit
def test_a_folder_that_can_not_be_written_fails(tmp_path):
    assert the(cluster.check_storage(tmp_path / "runs", connected=False)).status == "ok"
    (tmp_path / "file").write_text("")
    assert not (tmp_path / "runs").exists(), "it leaves nothing behind"
    place = Path("/proc")  # which even root can't write
    if os.geteuid() != 0:
        place = tmp_path / "shut"
        place.mkdir(mode=0o555)
    assert the(cluster.check_storage(place, connected=False)).status == "fail"
    assert the(cluster.check_storage(tmp_path / "file", connected=False)).status == "fail"


@unit
def test_a_token_that_others_read_or_none_at_all_fails(nobody, tmp_path):
    assert the(cluster.check_token()).status == "skip"
    nobody.setenv("RAY_AUTH_MODE", "token")
    assert "there is none" in the(cluster.check_token()).found
    path = tmp_path / "token"
    nobody.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert "can't be read" in the(cluster.check_token()).found
    path.write_text("")
    assert "empty" in the(cluster.check_token()).found
    path.write_text("x" * 32)
    path.chmod(0o640)
    found = the(cluster.check_token())
    assert (found.status, found.remedy) == ("fail", f"chmod 600 {path}")
    path.chmod(0o600)
    found = the(cluster.check_token())
    assert found.status == "ok"
    assert "x" * 32 not in str(found)
    nobody.delenv("RAY_AUTH_MODE")
    nobody.setenv("RAY_ADDRESS", "127.0.0.1:9")
    found = the(cluster.check_token())
    assert (found.status, found.remedy) == ("fail", "set RAY_AUTH_MODE=token, here and on every node")


@integration
def test_a_wrong_cluster_file_fails_with_every_problem(tmp_path):
    path = tmp_path / "c.yaml"
    text = (ROOT / "configs" / "clusters" / "local.yaml").read_text()
    path.write_text(text)
    assert the(stored.check_cluster_file(path)).status == "ok"
    path.write_text(text.replace("RAY_AUTH_MODE=token", "").replace("=127.0.0.1 ", "=0.0.0.0 "))
    found = stored.check_cluster_file(path)
    assert [f.status for f in found] == ["fail"] * 3
    for wrong in (b"a: [", b"[" * 5000, b"a: \xff"):
        path.write_bytes(wrong)
        assert "YAML" in the(stored.check_cluster_file(path)).found
    assert the(stored.check_cluster_file(ROOT / "cluster.yaml")).status == "warn", "to be filled in"
    assert the(stored.check_cluster_file(None)).status == "skip"


@unit
def test_a_check_that_breaks_is_a_failed_one():
    def broken() -> list[Finding]:
        raise ZeroDivisionError("x")

    assert "ZeroDivisionError" in the(guarded("it", broken)).found


@integration
def test_the_command_says_one_line_each_and_its_status(nobody, tmp_path, capfd):
    command = ["--runs", str(tmp_path / "runs"), "--room", "0", "--cluster", str(tmp_path / "none.yaml")]
    assert main(command) == 1
    *lines, last = capfd.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail", "skip"}
    (failed,) = (line for line in lines if line.startswith("fail"))
    assert failed.startswith("fail cluster file")
    assert "remedy: " in failed
    assert last.startswith("1 failed")
    nobody.chdir(tmp_path)
    assert main([*command[:4], "--json"]) == 0
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {f["check"] for f in found} >= {"python", "versions", "ffmpeg", "gpu", "token", "mlflow store"}
    assert all(set(f) == {"check", "status", "found", "remedy"} for f in found)
