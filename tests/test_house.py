"""The counts of `benchmarks.house` on small checkouts whose figures are known, and this project's own limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import house

unit, integration = pytest.mark.unit, pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent
TRAIN = """
from trainers import steps
from configs.base import PromptConfig

def train(config):
    "Train."
    return isinstance(config, (int, PromptConfig)), isinstance(config, str)
"""
STEPS = """
from configs.base import TrainConfig as Base

def _hidden():
    pass

class Step:
    "One."

    def run(self):
        from trainers.train import train

        return train("rmm")
"""
FILES = {
    "avmend.py": '"""Front."""\nimport trainers.train\n',
    "configs/__init__.py": "",
    "configs/base.py": "class TrainConfig:\n    pass\n\n\nclass PromptConfig(TrainConfig):\n    'Prompts.'\n",
    "trainers/__init__.py": "",
    "trainers/train.py": TRAIN,
    "trainers/steps.py": STEPS,
    "tests/test_x.py": "METHODS = {'rmm': 1}\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@unit
def test_class_tests_chains_and_circles(checkout: Path):
    files = house.read_checkout(checkout)
    assert house.class_tests(files) == ["trainers/train.py:7"]
    at_import = house.imports(files, deferred=False)
    assert at_import["trainers.train"] == {"trainers.steps", "configs.base"}
    assert house.longest_chain(at_import, "avmend") == ["avmend", "trainers.train", "trainers.steps", "configs.base"]
    assert max(map(len, house.components(at_import))) == 1
    circles = [sorted(c) for c in house.components(house.imports(files, deferred=True)) if len(c) > 1]
    assert circles == [["trainers.steps", "trainers.train"]]


@unit
def test_docstrings_names_and_lengths(checkout: Path):
    files = house.read_checkout(checkout)
    counted = {name: has for file in files.values() for name, has in house.public(file.tree)}
    assert counted == {"TrainConfig": False, "PromptConfig": True, "train": True, "Step": True, "Step.run": False}
    assert [str(path) for path in house.naming(checkout, "rmm")] == ["trainers/steps.py", "tests/test_x.py"]
    found = house.figures(checkout)
    assert found["lines: trainers"] == "20 in 3"
    assert found["functions"] == "3"
    assert found["public functions and classes with a docstring"] == "60.0%"
    assert found["class tests on recipes' configs"] == "1 in 1 files"


@unit
def test_another_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no checkout"):
        house.read_checkout(tmp_path)


@integration
def test_this_project_keeps_to_its_limits():
    files = house.read_checkout(ROOT)
    described = [has for file in files.values() for _, has in house.public(file.tree)]
    assert sum(described) / len(described) >= 0.98
    assert house.class_tests(files) == []
    assert max(map(len, house.components(house.imports(files, deferred=True)))) == 1
