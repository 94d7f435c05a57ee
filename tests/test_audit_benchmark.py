"""How ``benchmarks.audit`` counts, by hand; and that what it plants is what it says."""

from __future__ import annotations

import re
import subprocess

import pytest

from benchmarks.audit import FAULTS, at_scale, build, score, truth, wrong
from pipelines.ffmpeg import executable
from pipelines.manifest import read_manifest

NO = frozenset[str]()


@pytest.mark.unit
def test_counting_by_hand():
    planted = {"a": "silent", "b": "silent", "c": "", "d": "black", "e": "short_audio"}
    flags = {"a": frozenset({"silent"}), "b": NO, "c": frozenset({"silent"}), "d": frozenset({"black"}), "e": NO}
    found = {row["fault"]: row for row in score(planted, flags)}
    assert (found["silent"]["planted"], found["silent"]["recall"], found["silent"]["precision"]) == (2, 0.5, 0.5)
    assert (found["black"]["recall"], found["black"]["precision"]) == (1, 1)
    assert (found["short_audio"]["recall"], found["short_audio"]["precision"]) == (0, "")
    assert {row["id"]: (row["missed"], row["besides"]) for row in wrong(planted, flags)} == {
        "b": ("silent", ""),
        "c": ("", "silent"),
        "e": ("length_differs;short_audio", ""),
    }


@pytest.mark.unit
def test_a_copy_is_found_when_both_streams_and_the_split_are():
    both = frozenset({"duplicate_audio", "duplicate_visual", "across_splits"})
    planted = {"x": "has a copy, gain", "copy-x": "gain", "y": ""}
    found = {row["fault"]: row for row in score(planted, {"x": both, "copy-x": both, "y": both})}
    assert (found["gain"]["recall"], found["gain"]["precision"]) == (1, 0.667)
    half = {"x": both, "copy-x": both - {"across_splits"}, "y": NO}
    assert {row["fault"]: row for row in score(planted, half)}["gain"]["recall"] == 0
    assert truth("") == (set(), set())


@pytest.mark.slow
def test_every_fault_is_planted_once_in_turn(tmp_path):
    planted = build(tmp_path, faults=19, clean=1, seed=3, jobs=2)
    assert sorted(k for k in planted.values() if k in FAULTS) == sorted(FAULTS)
    clips = {planted[clip.id]: clip for clip in read_manifest(tmp_path / "manifest.csv")}
    assert len(planted) == 25  # 20 clips, five of them with a copy
    command = [executable(), "-i", str(clips["silent"].path), "-af", "volumedetect", "-vn", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    level = re.search(r"max_volume: (-?[\d.]+) dB", said)
    assert level
    assert float(level[1]) < -60


@pytest.mark.unit
def test_candidates_at_a_small_scale():
    found = at_scale(2000, 0)
    assert found["found"] >= 0.97
    assert found["bytes_a_clip"] < 2000
