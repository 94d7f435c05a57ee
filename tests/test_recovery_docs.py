"""The example of docs/recovery.md is a plugin that trains; its table names every method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from models.avqa.recovery import RECOVERIES
from tests.fixtures.asking import asking_world, question_stages, settings
from tests.test_plugins import untouched as untouched  # a fixture
from trainers.avqa.config import AVQAConfig

pytestmark = pytest.mark.unit
PAGE = (Path(__file__).parent.parent / "docs" / "recovery.md").read_text(encoding="utf-8")


def test_the_example_trains(untouched, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(import torch.*?)```", PAGE, re.DOTALL)
    (tmp_path / "that_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AVMEND_PLUGINS", "that_module")
    asking_world(tmp_path, {"train": 9})
    values = {"recovery": "gain", "recovery_sizes": {"start": 2}, "weights": {"size": 0.2}}
    (stage,) = question_stages(AVQAConfig(**settings(tmp_path) | values))
    total, _, figures = stage.objective(stage.train.batch(range(9)))
    total.backward()
    torch.testing.assert_close(figures["size"][0] / figures["size"][1], torch.tensor(4.0))


def test_every_method_is_in_the_table():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", PAGE, re.MULTILINE))
    assert set(rows) == set(RECOVERIES)
    for name, losses in rows.items():
        found = {k: float(v) for k, v in re.findall(r"`(\w+)` \(([\d.]+)\)", losses)}
        assert found == dict(RECOVERIES[name].loss_names)
