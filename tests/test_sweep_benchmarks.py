"""The benchmarks of sweeps: one that is killed, MLflow under load, what a sweep adds; small runs of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import mlflow_load, sweep_kills, sweep_share
from benchmarks.processes import Kill


def written(out: Path, name: str) -> dict:
    assert all((out / f"{name}.{kind}").stat().st_size for kind in ("md", "png"))
    return json.loads((out / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_that_is_killed_ends_as_an_undisturbed_one(tmp_path):
    assert sweep_kills.main(["--times", "3", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]) == 0
    found = written(tmp_path, "sweep-kills")
    assert sum(len(r["kills"]) for r in found["rounds"]) == 3
    assert all(r["trials"] == 4 and not r["differing"] for r in found["rounds"])
    assert all(set(r["statuses"]) == {"FINISHED"} for r in found["rounds"])


@pytest.mark.unit
def test_a_trial_differs_by_a_metric_or_a_byte_of_its_weights(tmp_path):
    roots = []
    for number, (loss, byte, seconds) in enumerate(
        [(0.5, b"a", 1.0), (0.5, b"a", 9.0), (0.4, b"a", 1.0), (0.5, b"b", 1.0)]
    ):
        root = tmp_path / str(number)
        place, run = root / "runs" / "short-x" / "trials" / "000-prompt-1", root / "runs" / "prompt-1"
        place.mkdir(parents=True)
        (run / "complete").mkdir(parents=True)
        (place.parent.parent / "sweep.csv").write_text(
            f"number,run,status,epoch_seconds\n0,prompt-1,finished,{seconds}\n"
        )
        line = {"step": 1, "metrics": {"loss": loss, "epoch_seconds": seconds}, "time": seconds}
        (place / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (run / "complete" / "weights.safetensors").write_bytes(byte)
        roots.append(root)
    calm = sweep_kills.told(roots[0])
    assert list(calm) == ["0"]
    assert [sweep_kills.told(root) == calm for root in roots] == [True, True, False, False]


@pytest.mark.unit
def test_a_round_is_sound_only_if_nothing_is_left():
    fine = sweep_kills.Round(0, (Kill("driver", 1.0, 1),), 2, 4, 0, 0, {"FINISHED": 6}, (), 0, 9.0)
    assert fine.sound
    for wrong in ({"differing": 1}, {"running": 1}, {"leaked": ("ray",)}, {"hung": 1}):
        assert not sweep_kills.Round(**{**vars(fine), **wrong}).sound


@pytest.mark.slow
def test_mlflow_load_end_to_end(tmp_path):
    assert mlflow_load.main(["--trials", "3", "--epochs", "4", "--metrics", "2", "--out", str(tmp_path)]) == 0
    row = written(tmp_path, "mlflow-load")["row"]
    assert row["listed"] == 4
    assert row["search_seconds"]["low"] > 0
    assert len(row["trials"]) == 3


@pytest.mark.slow
def test_sweep_share_end_to_end(tmp_path):
    options = ["--seconds", "2", "--trials", "1", "--clips", "32", "--out", str(tmp_path)]
    assert sweep_share.main(options) == 0
    rows = written(tmp_path, "sweep-share")["rows"]
    assert len(rows) == 2
    assert all(0 < row["step_share"]["median"] < 1 for row in rows)
