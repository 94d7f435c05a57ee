"""From clips in a bucket to training, killed on the way, on a store that fails: the bytes that a local disk has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import ingest as ingestion
from pipelines.audit.command import main as audit
from pipelines.features import main as features
from pipelines.ingest import main as ingest
from pipelines.merge import main as merge
from shards.inspect import main as shards
from shards.reader import ShardDataset
from shards.store import StorePath
from tests.conftest import ROOT
from tests.fixtures.media import make_clip
from tests.fixtures.stores import CONFIG, Bucket, as_on_disk, bucket, files, make_corpus
from tests.test_features import save_backbone
from tests.test_ingest import write_manifest

FIELDS = ["frames=2", "image_size=32", "samples_per_shard=2"]


def killed_after(s3: Bucket, prefix: str, ledgers: int, log: Path, *arguments: str) -> None:
    """Run an ingestion with Ray workers, and kill all of it once so many shards are finished."""
    command = [sys.executable, "-m", "pipelines.ingest", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    env |= {"RAY_gcs_server_port_wait_time_s": "300", "RAY_raylet_start_wait_time_s": "300"}  # of a busy machine
    deadline = time.monotonic() + 300
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        while sum(name.endswith(".json") for name in s3.names(f"{prefix}/ledger")) < ledgers:
            assert process.poll() is None, f"the run ended before the kill: {log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.ray
def test_all_of_it_on_a_store_is_what_it_is_on_a_disk(tmp_path, monkeypatch, capsys):
    corpus, local = tmp_path / "corpus", tmp_path / "local"
    corpus.mkdir()
    make_clip(corpus / "a.mp4", seconds=0.5)
    rows = (f"c{i},a.mp4,{('dog', 'cat')[i % 2]},{'test' if i > 5 else 'train'}" for i in range(8))
    manifest = write_manifest(corpus, *rows)
    run = save_backbone(tmp_path / "run")
    make = ["--backbone", str(run), "draws=1", "workers=0"]
    assert ingest(["--manifest", str(manifest), "--out", str(local), *FIELDS, "workers=0"]) == 0
    assert features(["--data", str(local), *make]) == 0
    assert merge([str(local), "--out", str(tmp_path / "merged"), "--samples-per-shard", "8"]) == 0
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    with bucket() as s3:
        clips, out = s3.upload(corpus, "clips"), s3.root / "set"
        s3.misbehave(failing=0.03, cut=0.03, lost=0.03, stale=True)
        arguments = ["--manifest", f"{clips}/manifest.csv", "--out", str(out), *FIELDS]
        killed_after(s3, "set", 1, tmp_path / "killed.log", *arguments, "workers=2")
        assert ingest([*arguments, "workers=0"]) == 0
        assert features(["--data", str(out), *make]) == 0
        assert s3.objects("set") == files(local)
        assert merge([str(out), "--out", f"{s3.root}/merged", "--samples-per-shard", "8"]) == 0
        assert s3.objects("merged") == files(tmp_path / "merged")
        s3.misbehave()
        assert audit([str(out), "--out", str(tmp_path / "audit"), "workers=0"]) == 0
        assert audit([f"{clips}/manifest.csv", "--out", str(tmp_path / "audit-2"), "workers=0", "frames=2"]) == 0
        capsys.readouterr()
        assert shards(["info", str(out)]) == shards(["verify", str(out)]) == shards(["index", str(out)]) == 0
        assert "split test: 2 samples" in capsys.readouterr().out
        assert s3.objects("set") == files(local), "the index was made to the same bytes"
        assert ingest([*arguments, "workers=0"]) == features(["--data", str(out), *make]) == 0
        assert capsys.readouterr().out.count("already finished") == 2
        data = ShardDataset(f"{out}/features/{next((local / 'features').iterdir()).name}", "train")
        assert len(data) == 6


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param(("train-000001.tar", "dataset.json"), marks=pytest.mark.ray, id="shard and end"),
        pytest.param(("train-000001.arrow", "train-000001.json"), marks=pytest.mark.slow, id="table and ledger"),
    ],
)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, endings):
    """Killed after each object of the second shard, after its ledger, and just before the end."""

    class Killed(BaseException):
        pass

    def dying(method, ending):
        def put(self, *arguments):
            found = method(self, *arguments)
            if self.name == ending:
                raise Killed
            return found

        return put

    corpus = make_corpus(tmp_path)
    ingestion.ingest(corpus / "manifest.csv", tmp_path / "local", CONFIG)
    with bucket() as s3:
        clips, out = s3.upload(corpus, "corpus"), s3.root / "killed"
        for ending in endings:
            with monkeypatch.context() as patch:
                patch.setattr(StorePath, "put", dying(StorePath.put, ending))
                patch.setattr(StorePath, "create", dying(StorePath.create, ending))
                with pytest.raises(Killed):
                    ingestion.ingest(f"{clips}/manifest.csv", out, CONFIG)
            assert f"{ending}" in "".join(s3.objects("killed"))
        ingestion.ingest(f"{clips}/manifest.csv", out, CONFIG)
        found = as_on_disk(s3.objects("killed"), clips, corpus)
        assert found == files(tmp_path / "local")
