from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainers.journal import FILE, Tail, append_metrics, keep_until, read_metrics

pytestmark = pytest.mark.unit


def test_lines_come_back_whole_with_numbers_of_any_kind(tmp_path):
    append_metrics(tmp_path, 1, {"loss": np.float32(0.5), "best/acc": torch.tensor(0.25), "n": 3})
    append_metrics(tmp_path, 2, {"loss": float("nan")})
    first, second = read_metrics(tmp_path)
    assert first.metrics == {"loss": 0.5, "best/acc": 0.25, "n": 3.0}
    assert (second.step, math.isnan(second.metrics["loss"])) == (2, True)
    assert 0 <= second.time - first.time < 10_000


def test_names_that_mlflow_would_refuse_and_texts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="acc\\(noisy\\)"):
        append_metrics(tmp_path, 0, {"acc(noisy)": 1.0})
    with pytest.raises(TypeError, match="'loss' is the text"):
        append_metrics(tmp_path, 0, {"loss": "0.5"})
    assert read_metrics(tmp_path) == []


def test_tail_returns_each_complete_line_once_and_starts_over_after_a_replacement(tmp_path):
    tail = Tail(tmp_path / FILE)
    assert tail.read() == []
    append_metrics(tmp_path, 1, {"a": 1})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 2, "time": 5, "metr')
        file.flush()
        assert [line.step for line in tail.read()] == [1]
        file.write('ics": {}}\n')
    assert [line.step for line in tail.read()] == [2]
    keep_until(tmp_path, 1)
    append_metrics(tmp_path, 2, {"a": 2})
    assert [line.step for line in tail.read()] == [1, 2]
    keep_until(tmp_path, None)
    assert tail.read() == []


def test_a_torn_line_costs_only_itself(tmp_path, caplog):
    append_metrics(tmp_path, 1, {"a": 1})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 2, "ti')
    append_metrics(tmp_path, 3, {"a": 3})
    assert [line.step for line in read_metrics(tmp_path)] == [1, 3]
    assert "not a line of metrics" in caplog.text
    keep_until(tmp_path, 3)
    caplog.clear()
    assert [line.step for line in read_metrics(tmp_path)] == [1, 3]
    assert not caplog.text
