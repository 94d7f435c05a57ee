"""Ruined files leave nothing behind: no open file and no process more, in the driver or in Ray's workers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mutations import MUTATIONS
from pipelines import shard_job
from pipelines.decoder_process import Decoder
from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from tests.fixtures.media import make_clip

CONFIG = IngestConfig(frames=2, image_size=16, samples_per_shard=14, timeout_s=20, workers=0)
FILES = 14


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Each mutation twice, of a small clip, and a whole one."""
    folder = tmp_path_factory.mktemp("hostile")
    data = make_clip(folder / "whole.mp4", seconds=0.3).read_bytes()
    rows = ["id,path,label,split", "whole,whole.mp4,x,train"]
    for i, mutate in enumerate([*MUTATIONS.values()] * (FILES // len(MUTATIONS))):
        (folder / f"{i}.mp4").write_bytes(mutate(data, np.random.default_rng(i)))
        rows.append(f"{i},{i}.mp4,x,train")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder / "clips.csv"


def handles(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> int:
    """Processes that `pid` started and that are still there, dead ones nobody waited for too."""
    stats = (Path(f"/proc/{entry}/stat") for entry in os.listdir("/proc") if entry.isdigit())
    found = 0
    for stat in stats:
        try:
            found += int(stat.read_text().rpartition(")")[2].split()[1]) == pid
        except OSError:
            continue
    return found


def state(decoder: Decoder) -> dict[str, int]:
    """Open files and processes of this process and of its decoder."""
    child = decoder._process.pid if decoder._process else 0
    return {
        "files": handles(os.getpid()),
        "processes": children(os.getpid()),
        "decoder's files": handles(child) if child else 0,
        "decoder's processes": children(child) if child else 0,
    }


@pytest.mark.slow
def test_the_driver_and_its_decoder_hold_no_more_than_before(manifest, tmp_path, monkeypatch):
    decoder = Decoder(CONFIG.memory_mb)
    monkeypatch.setattr(shard_job, "_decoders", {CONFIG.memory_mb: decoder})
    seen = []
    for turn in range(3):
        ingest(manifest, tmp_path / str(turn), CONFIG)
        seen.append(state(decoder))
    decoder.close()
    print(seen)
    assert all(later[what] <= seen[0][what] for later in seen[1:] for what in seen[0]), seen
    assert seen[0]["decoder's processes"] == 0, "an ffmpeg outlived its clip"


@pytest.mark.ray
def test_workers_hold_no_more_than_before(manifest, tmp_path, ray_cluster):
    """The same shards in one worker of Ray, again and again."""
    import ray

    from pipelines.manifest import read_manifest
    from pipelines.plan import make_plan

    @ray.remote(num_cpus=1)
    class Worker:
        def make(self, turn: int) -> dict[str, int]:
            for plan in make_plan(read_manifest(manifest), CONFIG.samples_per_shard, manifest.parent):
                shard_job.ingest_shard(plan, CONFIG, tmp_path / str(turn))
            return state(shard_job._decoders[CONFIG.memory_mb])

    worker = Worker.remote()
    seen = [ray.get(worker.make.remote(turn)) for turn in range(3)]
    ray.kill(worker)
    assert all(later[what] <= seen[0][what] + 1 for later in seen[1:] for what in seen[0]), seen
    assert seen[0]["decoder's processes"] == 0
