"""``avmend corpus`` as a command: what it prints, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.corpus import main
from pipelines.manifest import read_manifest

pytestmark = pytest.mark.unit


def test_scenes_in_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["scenes", "--out", str(tmp_path), "--clips", "2", "--seconds", "1", "--size", "32"]
    assert main([*arguments, "--jobs", "2"]) == 0
    assert str(tmp_path / "manifest.csv") in capsys.readouterr().out
    assert all(Path(clip.path or "").is_file() for clip in read_manifest(tmp_path / "manifest.csv"))


def test_wrong_input_is_told_in_words_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert main(["scenes", "--out", str(out), "--clips", "0"]) == 2
    assert main(["avdigits", "--source", str(tmp_path), "--out", str(out)]) == 2
    assert main(["cifar10-av", "--source", str(tmp_path), "--out", str(out)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("remedy: ") == 3
    assert "Traceback" not in errors
    assert not out.exists()


def test_unpaired_files_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "vision" / "cat").mkdir(parents=True)
    (tmp_path / "sound" / "cat").mkdir(parents=True)
    (tmp_path / "vision" / "cat" / "1.jpg").write_bytes(b"x")
    assert main(["cifar10-av", "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "1 without sound" in capsys.readouterr().out
