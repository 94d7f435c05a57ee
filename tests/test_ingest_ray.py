"""Ingestion on Ray: the real clips in one run, and kills."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from shards.reader import ShardDataset
from shards.verify import verify
from tests.conftest import ROOT
from tests.fixtures.media import make_clip

pytestmark = pytest.mark.ray

# What ffmpeg says about each file, looked at by hand: audio codec, video codec, seconds.
TRUTH = {
    "00W1lcxW-WU_40.000.mp4": ("aac", "h264", 10.0),
    "KlsG1EnBEjc_000361.mp4": ("aac", "h264", 10.04),
    "av1_video.mkv": (None, "av1", 5.0),
    "big_buck_bunny_30s.webm": ("vorbis", "vp8", 30.0),
    "chaplin.mp4": ("mp3", "h264", 9.64),
    "cockatoo.mp4": ("mp3", "h264", 14.0),
    "failing_audio.mp4": ("mp3", "h264", 11.23),
    "fire2.mp4": ("aac", "h264", 2.38),
    "flipping_a_pancake.mkv": ("opus", "h264", 10.38),
    "h265_10bits.mp4": (None, "hevc", 1.0),
    "nasa_13013.mp4": ("aac", "h264", 13.06),
    "rotated_0.mov": (None, "h264", 0.1),
    "rotated_180.mov": (None, "h264", 0.1),
    "rotated_270.mov": (None, "h264", 0.1),
    "rotated_90.mov": (None, "h264", 0.1),
    "sine_mono_s16.wav": ("pcm_s16le", None, 4.0),
    "talking_face_33s.mp4": ("aac", "h264", 33.2),
}
PLAIN = IngestConfig(frames=2, image_size=32, samples_per_shard=3, workers=0)
QUARANTINED = {"corrupted.mp4": "undecodable"}  # its fifth frame has a NAL unit of impossible size


def write_manifest(path: Path, files: list[Path]) -> Path:
    rows = "".join(f"{file.name},{file},x,train\n" for file in files)
    path.write_text("id,path,label,split\n" + rows)
    return path


def test_all_real_clips_in_one_run(shared_data, tmp_path, ray_cluster):
    files = sorted((shared_data / "clips").iterdir())
    assert {file.name for file in files} == set(TRUTH) | set(QUARANTINED)
    manifest = write_manifest(tmp_path / "clips.csv", files)
    ingest(manifest, tmp_path / "out", IngestConfig(samples_per_shard=4, image_size=64))
    data = ShardDataset(tmp_path / "out", "train")
    assert verify(tmp_path / "out") == []
    assert {meta.id for meta in data.metas} == set(TRUTH)
    for meta in data.metas:
        audio, visual, seconds = TRUTH[meta.id]
        assert (meta.audio.codec, meta.visual.codec) == (audio, visual), meta.id
        assert (meta.audio.present, meta.visual.present) == (bool(audio), bool(visual)), meta.id
        assert abs(meta.duration - seconds) < 0.1, meta.id
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert {line["id"]: line["error"] for line in lines} == QUARANTINED
    turned = {meta.id: data[i].arrays["frames"] for i, meta in enumerate(data.metas) if "rotated" in meta.id}
    assert all(np.ptp(frames) > 100 for frames in turned.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A manifest of 36 clips, 2 of them without sound and 2 cut short."""
    folder = tmp_path_factory.mktemp("small")
    clip = make_clip(folder / "both.mp4").read_bytes()
    silent = make_clip(folder / "silent.mp4", audio=False).read_bytes()
    files = [folder / f"c{i}.mp4" for i in range(36)]
    for i, file in enumerate(files):
        file.write_bytes({3: silent, 7: clip[:2000]}.get(i % 20, clip))
    return write_manifest(folder / "manifest.csv", files)


@pytest.fixture(scope="module")
def calm(small, tmp_path_factory) -> dict[str, str]:
    """Digests of what an undisturbed run in this process makes of it."""
    out = tmp_path_factory.mktemp("calm")
    ingest(small, out, PLAIN)
    return digests(out)


def command(manifest: Path, out: Path, address: str | None) -> subprocess.Popen[bytes]:
    """The command line in a process group of its own, on the cluster at `address` or one of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"RAY_ADDRESS": address} if address else {}
    fields = ["frames=2", "image_size=32", "samples_per_shard=3", "workers=2"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.ingest", "--manifest", str(manifest), "--out", str(out), *fields],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def wait_for_shards(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300  # of a busy machine
    while len(list(out.glob("ledger/*.json"))) < count:
        assert process.poll() is None, "the run ended before the kill"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_and_resumed_gives_the_bytes_of_an_undisturbed_run(small, calm, tmp_path, ray_cluster):
    """Killed with its cluster, then alone; in the end it runs in this process."""
    out = tmp_path / "killed"
    for shards, address in ((2, None), (6, ray_cluster)):
        process = command(small, out, address)
        wait_for_shards(out, shards, process)
        time.sleep(random.Random(shards).random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "dataset.json").exists()
    ingest(small, out, PLAIN.model_copy(update={"workers": 2}))
    assert digests(out) == calm
    assert verify(out) == []
    assert ShardDataset(out, "train").info.splits["train"].present == {"audio": 32, "visual": 34}


def test_a_killed_worker_costs_only_time(small, calm, tmp_path, ray_cluster):
    import ray

    from pipelines.ingest import ingest_kept

    marker = tmp_path / "died"

    def dies_once(shard, config, out, turns):
        if shard.name == "train-000004" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ingest_kept(shard, config, out, turns)

    from pipelines import ingest as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ingest_kept", dies_once)
        ingest(small, tmp_path / "out", PLAIN.model_copy(update={"workers": None}))
    assert marker.exists()
    assert ray.is_initialized()
    assert digests(tmp_path / "out") == calm
