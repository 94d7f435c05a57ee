"""The rooms and the arrows between them, read from the source."""

from __future__ import annotations

import ast
import importlib
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

unit, integration = pytest.mark.unit, pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent
ARROWS = {
    "shards": set(),
    "models": set(),
    "configs": {"models", "shards"},
    "pipelines": {"configs", "models", "shards"},
    "trainers": {"configs", "models", "shards"},
    "tuning": {"pipelines", "trainers", "configs", "models", "shards"},
    "serving": {"pipelines", "trainers", "configs", "models", "shards"},
}
FILES = sorted(path.relative_to(ROOT) for room in ARROWS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every absolute module name a file imports, within functions and by string too."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the room's name"
            yield node.module or ""
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


@cache
def tops(path: Path) -> set[str]:
    """The packages that a file imports from."""
    return {name.partition(".")[0] for name in imported(path)}


@integration
def test_imports_follow_the_arrows():
    wrong = []
    for path in FILES:
        room = path.parts[0]
        beyond = (tops(path) & {*ARROWS, "tests", "avmend"}) - ARROWS[room] - {room}
        if beyond:
            wrong.append(f"{path} imports {beyond}; {room} may import {ARROWS[room] or 'nothing of ours'}")
    assert not wrong


@unit
def test_ray_and_mlflow_stay_in_their_places():
    near = ("pipelines", "trainers", "tuning", "serving")
    ray = {path for path in FILES if "ray" in tops(path) and path.parts[0] not in near}
    mlflow = {path.parent for path in FILES if "mlflow" in tops(path)}
    assert ray <= {Path("configs/cluster.py")}
    assert mlflow - {Path("serving")} == {Path("trainers/tracking")}


@unit
def test_every_module_imports():
    for path in FILES:
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))


@unit
def test_the_arrows_make_no_circle():
    reached = {room: set(allowed) for room, allowed in ARROWS.items()}
    for _ in ARROWS:
        for room in reached:
            reached[room] |= {far for near in reached[room] for far in reached[near]}
    assert not [room for room in reached if room in reached[room]]


@unit
def test_every_folder_of_the_rooms_is_packaged():
    from setuptools import find_packages

    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    folders = {".".join(path.parent.parts) for path in FILES}
    assert set(find_packages(str(ROOT), include=patterns)) >= folders, "a folder of code lacks its __init__.py"
