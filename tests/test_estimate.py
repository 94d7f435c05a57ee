"""The plan of a corpus: numbers worked by hand, and a real sample of real clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.estimate import Interval, Measured, Nodes, Prices, Survey, cluster_nodes, lines, main
from pipelines.settings import IngestConfig
from shards.errors import InputError
from tests.fixtures.media import make_clip

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parent.parent


def test_the_workers_of_the_cluster_file():
    assert cluster_nodes(ROOT / "cluster.yaml") == Nodes(count=4, cpus=32, gpus=4)  # 4 times 8 CPUs and a GPU


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("kind: RayCluster\n")
    with pytest.raises(InputError, match="no cluster file"):
        cluster_nodes(tmp_path / "x.yaml")


def test_totals_are_those_of_the_sample_times_the_clips():
    found = Measured(
        seconds=[3.6] * 4, read=[5e6] * 4, written=[2e6] * 4, lengths=[10.0] * 3, causes=Counter({"truncated": 1}),
        extraction=(7.2, "GPU"),
    )  # fmt: skip
    text = list(
        lines(
            {"train": 900_000, "test": 100_000},
            found,
            IngestConfig(samples_per_shard=64),
            Nodes(count=4, cpus=32, gpus=4),
            Prices(node=2.0, storage=0.02, transfer=0.09),
        )
    )
    assert text[0] == "clips: 1,000,000 (900,000 train, 100,000 test)"
    assert text[1] == "sample: 4 of them, 3 ingested here; 1 truncated"
    assert "to read 5 TB" in text[2].replace(".0", "")
    assert text[3].startswith("shards: 15,626, of up to 64 clips;")  # 14,063 + 1,563
    assert any("ingestion: 1,000 (1,000 to 1,000) core-hours" in line for line in text)  # 3.6 s x 10^6
    assert any("2,000 GPU-hours" in line for line in text)
    assert any("ingestion 31 (31 to 31) hours" in line for line in text)  # over 32 CPUs
    assert any("features 500 hours" in line for line in text)  # over 4 GPUs
    assert any(line.startswith("price: 250 (250 to 250)") for line in text)  # 31.25 h x 4 x 2
    assert any(line.startswith("storage: 40 (40 to 40) a month") for line in text)
    assert any(line.startswith("transfer: 450 (450") for line in text)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(1).normal(10, 2, 400)
    found = Interval.of(values.tolist())
    half = 1.96 * values.std() / 20  # of a mean of 400
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.03)


def test_every_clip_is_drawn_as_often(tmp_path):
    (tmp_path / "m.csv").write_text("id,path,label,split\n" + "".join(f"c{i},a,x,train\n" for i in range(20)))
    drawn = Counter(clip.id for seed in range(300) for clip in Survey(5, seed).read(tmp_path / "m.csv").drawn)
    assert len(drawn) == 20
    assert min(drawn.values()) > 40 < max(drawn.values()) < 115  # 75 expected, deviation 7.5


def test_a_manifest_is_planned_from_its_own_clips(tmp_path, capsys):
    make_clip(tmp_path / "a.wav", video=False, seconds=0.5)
    rows = "".join(f"c{i},a.wav,x,{'test' if i % 4 else 'train'}\n" for i in range(12)) + "gone,gone.wav,x,train\n"
    (tmp_path / "m.csv").write_text("id,path,label,split\n" + rows)
    assert main([str(tmp_path / "m.csv"), "--clips", "13", "--cluster", str(ROOT / "cluster.yaml")]) == 0
    out = capsys.readouterr().out
    assert "clips: 13 (4 train, 9 test)" in out
    assert "sample: 13 of them, 12 ingested here; 1 missing file" in out
    assert "sources: 0.5 (0.5 to 0.5) s a clip" in out
    assert "shards: 2, of up to 64 clips" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "m.csv"]  # nothing is left behind
