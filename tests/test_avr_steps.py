"""The measurement of AVR in fewer steps: figures against the protocol's own, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import avr_steps
from shards.questions import load_questions
from tests.fixtures.asking import RECOVERY_SIZES, asking_world, saved_run, settings
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.avqa.predict import load_answerer
from trainers.avqa.protocol import EvaluationProtocol, right_answers
from trainers.runs import read_run

unit = pytest.mark.unit


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("asking")
    asking_world(root, {"train": 9, "test": 27})
    return root


@pytest.mark.slow
def test_accuracies_are_those_of_the_exam_at_each_number_of_steps(root, tmp_path):
    sizes = RECOVERY_SIZES["avr"] | {"start": 4}
    config = AVQAConfig(**settings(root, recovery="avr", recovery_sizes=sizes))
    folder = saved_run(root, "avr", config)
    wanted = ["--steps", "4,1", "--repeats", "1", "--batch-size", "8", "--out", str(tmp_path)]
    assert avr_steps.main([str(folder), *wanted]) == 0
    p = load_answerer(read_run(folder), torch.device("cpu"))
    clips = Clips(config.data)
    protocol = EvaluationProtocol.of(load_questions(config.questions), "test", clips, 0)
    rows = json.loads((tmp_path / "avr-steps.json").read_text())["rows"]
    assert [row["steps"] for row in rows] == [4, 1]
    for row in rows:
        p.answerer.recovery.steps = row["steps"]
        for m in ("audio", "visual"):
            right = right_answers(p, clips, protocol, m, 8, 0, torch.device("cpu"))[protocol.left[m]]
            assert row[m] == [pytest.approx(100 * right.mean())]
        assert row["ms"]["median"] > 0
    assert "4 steps" in (tmp_path / "avr-steps.md").read_text()


@unit
def test_more_steps_than_a_run_has_and_runs_without_avr_are_refused(root, capsys):
    folder = saved_run(root, "zero", AVQAConfig(**settings(root)))
    assert avr_steps.main([str(folder)]) == 2
    assert "its recovery is zero" in capsys.readouterr().out
    folder = saved_run(root, "short", AVQAConfig(**settings(root, recovery="avr")))
    assert avr_steps.main([str(folder), "--steps", "3,1"]) == 2
    assert "starts at timestep 1" in capsys.readouterr().out
