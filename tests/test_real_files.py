"""The measurement on real files: it finds what is wrong, lost and wrongly refused, and the zoo is large."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import real_files
from benchmarks.zoo import Specimen, Truth, source, specimens

H264 = ("-pix_fmt", "yuv420p", "-c:v", "libx264", "-c:a", "aac")


@pytest.mark.unit
def test_the_zoo_is_large_and_its_names_are_distinct():
    names = [specimen.name for specimen in specimens()]
    assert len(names) >= 150
    assert len(set(names)) == len(names)


@pytest.mark.unit
def test_verdicts(tmp_path: Path):
    right = Specimen("containers", "a.mp4", source(*H264), Truth())
    late = replace(right, name="late.mp4", make=source(*H264, late="sound", by=0.5))

    def outcome(specimen: Specimen, **truth: object) -> str:
        changed = replace(specimen, truth=replace(specimen.truth, **truth))
        return real_files.judge(changed, tmp_path, "pyav").outcome

    assert outcome(right) == real_files.RIGHT
    assert outcome(right, lag=0.1) == outcome(right, length=5.0) == real_files.WRONG
    assert outcome(late) == real_files.WRONG
    assert outcome(late, lag=0.5, length=4.5) == real_files.RIGHT
    assert outcome(right, refused=("truncated",)) == outcome(right, sound=False) == real_files.LOST
    empty = Specimen("refused", "empty.mp4", lambda path: path.write_bytes(b"") and None, Truth())
    assert outcome(empty) == real_files.REFUSED
    assert outcome(empty, refused=("truncated",)) == real_files.RIGHT


@pytest.mark.unit
def test_lags_are_measured():
    sound = np.random.default_rng(0).normal(size=32000) * 4000 * (np.sin(np.arange(32000) / 900) > 0)
    late = np.concatenate([np.zeros(1600), sound])[:32000]
    assert real_files._lag(late.astype(np.int16), sound.astype(np.int16)) == pytest.approx(0.1, abs=0.001)


@pytest.mark.slow
def test_a_slice_of_the_measurement(tmp_path: Path):
    options = ["--every", "30", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    assert real_files.main(options) == 0
    assert (tmp_path / "real-files/line.md").read_text().startswith("| `real-files` | ")
