"""How ``benchmarks.audit`` counts, by hand; and that what it plants is what it says."""

from __future__ import annotations

import re
import subprocess

import pytest

from benchmarks.audit import FAULTS, at_scale, build, score, truth, wrong
from benchmarks.audit_scale import audited, draw, planted
from pipelines.ffmpeg import executable
from pipelines.manifest import read_manifest
from shards.audit_file import read_flags

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
def test_drawn_parts_are_audited_as_if_they_had_been_measured(tmp_path):
    """Two parts and a half, of which every tenth clip of the second half is a copy of one of the first."""
    found = audited(draw(tmp_path, 2500))
    assert found["clips"] == 2500
    assert found["pairs"] == planted(2500) == 125
    assert found["across"] == len(range(2000, 2500, 10))  # parts of 1,000 clips: the last is in another split
    flags = read_flags(tmp_path / "audit")
    assert "silent" in flags["clip/000000097"]
    assert sum("duplicate_visual" in f for f in flags.values()) == 250
    assert found["page_kb"] < 1000
    text = (tmp_path / "audit" / "audit.html").read_text()
    assert "8 of 125 pairs, those across splits first; all are in duplicates.csv" in text
    assert f"{len(range(0, 2500, 97)) - 8} more in audit.csv" in text


@pytest.mark.unit
def test_candidates_at_a_small_scale():
    found = at_scale(2000, 0)
    assert found["found"] >= 0.97
    assert found["bytes_a_clip"] < 2000
