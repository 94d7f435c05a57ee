"""Duplicates: candidates against all pairs, correlation against what was done to a copy, groups by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from models.fbank import log_mel
from pipelines.audit import candidates, sketch
from pipelines.audit.candidates import close_pairs, equal_pairs
from pipelines.audit.duplicates import Match, decide, match_array
from pipelines.audit.joined import components
from pipelines.audit.settings import AuditConfig
from pipelines.audit.similarity import coarser, picture_similarity, same_extent, sound_similarity

pytestmark = pytest.mark.unit
SEARCH = {"tables": 24, "neighbours": 8, "distance": 8, "nearest": 6, "seed": 0}


def video(seed: int) -> np.ndarray:
    """Smooth random frames, uint8 [3, 96, 96, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    frame = np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC))
    return np.stack([frame, np.roll(frame, 3, 1), np.roll(frame, 6, 1)])


def speech(seed: int, seconds: float = 1.5) -> np.ndarray:
    """Bursts of tones and noise, float [samples]."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(16000 * seconds)) / 16000
    wave = rng.normal(0, 0.002, len(times))
    for begin in np.arange(0, seconds, 0.12):
        length = rng.uniform(0.05, 0.15)
        inside = (times >= begin) & (times < begin + length)
        wave += inside * rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * rng.uniform(150, 5000) * times)
    return wave


def fbank(wave: np.ndarray) -> np.ndarray:
    return log_mel(np.round(32767 * np.clip(wave, -1, 1)).astype(np.int16))


def crop(frames: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    parts = (Image.fromarray(f[top : top + size, left : left + size]) for f in frames)
    return np.stack([np.asarray(part.resize((96, 96), Image.Resampling.BICUBIC)) for part in parts])


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a[:, None] ^ b[None]).min())


@pytest.mark.parametrize("change", ["gain", "cut", "noise"])
def test_a_changed_sound_stays_near_and_another_is_far(change):
    wave = speech(1)
    changed = {
        "gain": 0.3 * wave,
        "cut": wave[1900:],
        "noise": wave + np.random.default_rng(0).normal(0, 0.003, len(wave)),
    }
    a, b, other = (sketch.sound_sketch(fbank(w)) for w in (wave, changed[change], speech(2)))
    hashes = [sketch.sound_hashes(s) for s in (a, b, other)]
    assert distance(hashes[0], hashes[1]) <= 8 < distance(hashes[0], hashes[2])
    assert sound_similarity(a, b) > 0.8
    assert abs(sound_similarity(a, other)) < 0.4


@pytest.mark.parametrize("box", [(0, 0, 88), (8, 4, 86), (6, 9, 80)])
def test_a_crop_is_found_and_another_picture_is_not(box):
    whole, part, other = (sketch.picture_sketch(f) for f in (video(1), crop(video(1), *box), video(2)))
    assert distance(sketch.picture_hashes(whole), sketch.picture_hashes(part)) <= 8
    assert picture_similarity(whole, part) > 0.98
    assert picture_similarity(part, whole) > 0.98
    assert picture_similarity(whole, other) < 0.85
    assert same_extent(whole, whole) == pytest.approx(1)


def test_long_and_short_sketches_meet_on_common_steps():
    long = fbank(speech(3, 12.0))
    a, b = sketch.sound_sketch(long), sketch.sound_sketch(long[:950])
    assert len(a) <= sketch.STEPS
    factor = sketch.sound_step(len(long)) // sketch.sound_step(950)
    assert factor == 2
    assert sound_similarity(a, coarser(b, factor)) > 0.95


def test_sounds_of_very_different_length_are_none():
    a = sketch.sound_sketch(fbank(speech(3, 2.0)))
    assert sound_similarity(a, a[: len(a) // 2]) == -1
    assert sound_similarity(a, a[:0]) == -1


def test_candidates_are_those_of_all_pairs():
    """Planted neighbours at 0 to 6 of 41 bits among 3,000 random hashes, against comparing all with all."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 41, (3000, 3), dtype=np.uint64)
    for i in range(100):
        flips = rng.choice(41, i % 7, replace=False)
        hashes[1500 + i, 1] = hashes[i, 2] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    usable = np.ones(3000, bool)
    usable[:5] = False
    a, b, apart = close_pairs(hashes, usable, **SEARCH)
    found = set(zip(a.tolist(), b.tolist(), strict=True))
    planted = {(i, 1500 + i) for i in range(5, 100)}
    assert len(found & planted) >= 0.97 * len(planted)
    for i, j, d in zip(a, b, apart, strict=True):
        assert i < j
        assert d == distance(hashes[i], hashes[j]) <= 8
    assert not {clip for pair in found for clip in pair} & set(range(5))


def test_a_still_is_no_neighbour_of_itself_and_of_each_clip_the_nearest_are_kept():
    same = np.zeros((40, 6), np.uint64)
    a, b, _ = close_pairs(same, np.ones(40, bool), **{**SEARCH, "nearest": 3})
    assert (a != b).all()
    counts = np.bincount(np.concatenate([a, b]), minlength=40)
    assert counts.min() >= 3
    assert len(a) <= 3 * 40
    assert set(
        components(40, match_array(Match(i, j, 1, 0, False) for i, j in zip(a, b, strict=True)), np.zeros(40, int))
    ) == {0}


def test_candidates_do_not_depend_on_the_blocks_in_which_they_are_sought(monkeypatch):
    hashes = np.random.default_rng(1).integers(0, 1 << 12, (500, 2), dtype=np.uint64)
    whole = close_pairs(hashes, np.ones(500, bool), **SEARCH)
    monkeypatch.setattr(candidates, "BLOCK", 7)
    for one, other in zip(whole, close_pairs(hashes, np.ones(500, bool), **SEARCH), strict=True):
        assert np.array_equal(one, other)
    assert len(whole[0]) > 500


def test_equal_values_are_chained():
    values = np.array([5, 7, 5, 0, 5, 7], np.uint64)
    a, b, _ = equal_pairs(values, values != 0)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 2), (1, 5), (2, 4)]


def test_components_join_duplicates_and_groups():
    groups = np.array([0, 3, 0, 3, 0, 0])
    found = components(6, match_array([Match(0, 1, 1, 0, False), Match(4, 5, 0, 0, True)]), groups)
    together = {frozenset(np.flatnonzero(found == value).tolist()) for value in found}
    assert together == {frozenset({0, 1, 3}), frozenset({2}), frozenset({4, 5})}


def test_one_stream_beyond_doubt_supports_the_other():
    config = AuditConfig()
    assert decide(0.99, 0.2, -1, config) == (0.99, 0.0)
    assert decide(0.6, 0.99, -1, config) == (0.6, 0.99)
    assert decide(0.6, 0.95, 0.95, config) == (0.0, 0.0)
    assert decide(0.9, 0.7, 0.95, config) == (0.9, 0.95)
    assert decide(0.97, 0.3, 0.93, config) == (0.97, 0.93)
    assert decide(-1, -1, -1, config) == (0.0, 0.0)


def test_equal_arrays_have_equal_digests_and_others_do_not():
    found = [sketch.digest(a) for a in (video(1), video(1), video(2), video(1).reshape(3, 96, -1))]
    assert found[0] == found[1]
    assert len(set(itertools.islice(found, 1, 4))) == 3
