"""The measurement of the question-answering networks: its options, and a small run."""

from __future__ import annotations

import json

import pytest

from benchmarks import avqa_cost, avqa_training
from benchmarks.avqa_job import Job
from models.avqa.networks import NETWORKS


def job(network: str, batch_size: int = 2) -> Job:
    return Job(network, "none", "common", "tiny", batch_size, 1, 1, "cpu", None)


@pytest.mark.unit
def test_networks_are_measured_on_common_inputs_and_on_their_own():
    def planned(*options: str) -> list[tuple[str, str]]:
        return [(j.network, j.inputs) for j in avqa_cost.jobs(avqa_cost.parse(options))]

    assert planned() == planned("--preset", "base", "--quick") == [(n, "common") for n in NETWORKS]
    own = [(n, inputs) for n in NETWORKS for inputs in ("common", "published")]
    for name in ("avst", "avst_prompts", "avst_drfuse", "missing_avqa"):
        own.remove((name, "published"))  # the common ones
    assert planned("--preset", "base") == own


@pytest.mark.unit
def test_options_that_can_not_be_are_refused(capsys):
    for wrong in (["--networks", "avtt"], ["--recovery", "magic"], ["--steps", "0"]):
        with pytest.raises(SystemExit, match="2"):
            avqa_cost.parse(wrong)
        assert wrong[0] in capsys.readouterr().err


@pytest.mark.unit
def test_a_training_is_timed_and_its_memory_counted():
    found = avqa_training.train(job("avst"))
    memory = found["memory"]
    assert found["step_seconds"] > 0
    assert memory["parameters"] == memory["gradients"] == memory["optimizer"] / 2 == 4 * found["trained"]
    features = 4 * (2 * 10 * 96) * (1 + 36 + 36)  # audio, visual, negative frames; float32
    assert memory["inputs"] == features + 2 * 2 + 2 * 8 + 2 * 8 + 2 * 14 * 8
    wider = avqa_training.random_batch(job("avst", 4)), avqa_training.random_batch(job("pstp", 4))
    assert (wider[0].negative is None, wider[1].negative is None) == (False, True)


@pytest.mark.slow
def test_end_to_end(tmp_path):
    assert avqa_cost.main(["--quick", "--threads", "1", "--batch-size", "2", "--out", str(tmp_path)]) == 0
    name = "avqa-cost-tiny-none-cpu-quick"
    assert all((tmp_path / f"{name}.{kind}").stat().st_size for kind in ("md", "png"))
    rows = json.loads((tmp_path / f"{name}.json").read_text())["summary"]
    assert [row["network"] for row in rows] == list(NETWORKS)
    for row in rows:
        assert row["peak"]["low"] > row["memory"]["activations"]
