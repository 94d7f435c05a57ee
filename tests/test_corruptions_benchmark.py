"""The figure of corruptions: a toy run on a drawn scene, without recordings."""

from __future__ import annotations

import json

import pytest

from benchmarks import corruptions

pytestmark = pytest.mark.slow


def test_what_needs_no_files_is_drawn_and_the_rest_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corruptions, "CLIP", tmp_path / "no real clip")
    assert corruptions.main(["--side", "48", "--out", str(tmp_path), "--sounds", str(tmp_path / "sounds")]) == 0
    record = json.loads((tmp_path / "corruptions.json").read_text())
    assert [run["kind"] for run in record["runs"]] == [
        "gaussian",
        "impulse",
        "shot",
        "speckle",
        "compression",
        "interference",
    ]
    assert len(record["missing"]) == 9
    assert "rain is left out: 'rain' needs files" in capsys.readouterr().out
    assert record["runs"][0]["snr"] == {str(s): pytest.approx(50 - 10 * s, abs=0.2) for s in range(1, 6)}
    assert len(list((tmp_path / "sounds").glob("*.wav"))) == 1 + 3 * 6
