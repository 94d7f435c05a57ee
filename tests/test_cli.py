from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import avmend
from shards.errors import InputError

unit, integration = pytest.mark.unit, pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def command(monkeypatch):
    """Stand in for one command's module, to see what the front makes of what its main does."""

    def install(main) -> None:
        module = types.ModuleType("a_command")
        module.main = main
        monkeypatch.setitem(sys.modules, "a_command", module)
        monkeypatch.setitem(avmend.COMMANDS, "act", avmend.Command("a_command", "acts"))

    return install


def raising(error: BaseException):
    def main(argv: list[str]) -> int:
        raise error

    return main


@unit
def test_help_lists_every_command_in_one_line(capsys):
    assert avmend.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(avmend.COMMANDS)
    assert all(len(line) <= 100 for line in lines)
    assert avmend.main([]) == 2


@unit
def test_unknown_command_suggests_the_nearest(capsys):
    assert avmend.main(["trian"]) == 2
    assert "unknown command 'trian'\n  remedy: did you mean 'train'?" in capsys.readouterr().err
    assert avmend.main(["xyz"]) == 2
    assert "commands: corpus, ingest" in capsys.readouterr().err


@unit
def test_arguments_and_exit_code_pass_through(command):
    seen = []
    command(lambda argv: seen.extend(argv) or 7)
    assert avmend.main(["act", "--a", "b=c"]) == 7
    assert seen == ["--a", "b=c"]


@unit
def test_wrong_input_is_two_lines_and_status_2(command, capsys):
    command(raising(InputError("is empty", file="m.csv", field="id", remedy="add clips")))
    assert avmend.main(["act"]) == 2
    assert capsys.readouterr().err == "error: m.csv: field 'id': is empty\n  remedy: add clips\n"


@unit
def test_interrupt_is_130_and_a_defect_keeps_its_traceback(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert avmend.main(["act"]) == 130
    command(raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        avmend.main(["act"])


@unit
def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "avmend.py", "--help"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "usage: avmend" in shown.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in shown.stderr.splitlines()}
    assert "re" in imported, "the list is read"
    assert not imported & {"torch", "ray", "mlflow", "numpy", "pandas", "pydantic", "yaml", "av", "PIL"}


QUICK = [name for name, found in avmend.COMMANDS.items() if found.parser]


@integration
def test_help_of_no_command_imports_anything_heavy():
    """All in one process, with the fields of every recipe and of both kinds of study and evaluation."""
    code = f"""
import sys, avmend
from trainers.recipes import RECIPES
lines = [[], *([name] for name in {QUICK}), *(["train", name] for name in RECIPES)]
lines += [["study", "demo"], ["study", "avqa"], ["features", "import"], ["features", "import", "--layout", "pstp"]]
for line in lines:
    try:
        avmend.main([*line, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
print({{"torch", "ray", "mlflow", "av", "matplotlib", "pandas"}} & set(sys.modules))
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("set()")
    for words in ("backbone.target_length: integer or null", "weights: mapping of text to number"):
        assert words in done.stdout


@unit
def test_version_names_the_commit_and_what_it_stands_on(capsys):
    assert avmend.main(["--version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("avmend 0.")
    assert all(name in second for name in ("Python 3.11", "torch 2.", "ray 2.", "mlflow 3."))


@unit
@pytest.mark.parametrize("name", list(avmend.COMMANDS))
def test_each_command_has_a_main_that_prints_its_help(name, capsys):
    module = avmend.COMMANDS[name].module
    place = ROOT / module.replace(".", "/")
    assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    with pytest.raises(SystemExit) as ended:
        avmend.main([name, "--help"])
    assert ended.value.code == 0
    assert f"avmend {name}" in capsys.readouterr().out
