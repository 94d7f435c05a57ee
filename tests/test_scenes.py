"""The corpus ``scenes``: its ceilings, its determinism, and clips that decode to what was promised."""

from __future__ import annotations

import collections
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest

from configs import load_config
from pipelines.corpora.synthetic import design
from pipelines.corpora.synthetic.appearance import HUES, LOOKS
from pipelines.corpora.synthetic.drawing import draw
from pipelines.corpora.synthetic.scenes import ScenesConfig, build, class_of, describe, split_of
from pipelines.corpora.synthetic.sound import synthesise
from pipelines.corpora.synthetic.timbres import TIMBRES
from pipelines.manifest import read_manifest
from shards.errors import InputError
from shards.progress import Progress
from tests.fixtures.decoding import decode_frames, decode_sound, describe_file

pytestmark = pytest.mark.unit


def test_each_sense_alone_has_its_ceiling_and_both_name_the_class():
    ceilings = design.ceilings(0.5)
    assert (ceilings.visual, ceilings.audio, ceilings.both, ceilings.chance) == (0.75, 0.75, 1.0, 0.125)
    assert design.ceilings(1.0).visual == 1.0
    assert design.ceilings(0.0).audio == 0.5


def test_every_class_shares_one_look_and_one_sound_with_different_partners():
    looks, sounds = (dict(pairs) for pairs in (design.SHARED_LOOKS, design.SHARED_SOUNDS))
    for pairs in (looks, sounds):
        assert sorted(name for pair in pairs.values() for name in pair) == sorted(design.CLASSES)
    assert not {frozenset(pair) for pair in looks.values()} & {frozenset(pair) for pair in sounds.values()}
    assert set(LOOKS) == set(HUES) == set(design.CLASSES) | set(looks)
    assert set(TIMBRES) == set(design.CLASSES) | set(sounds)


def test_looks_and_sounds_are_drawn_as_the_design_says():
    scenes = [describe(ScenesConfig(clips=1), number) for number in range(1600)]
    own_look = np.array([scene["objects"][0]["look"] in scene["labels"] for scene in scenes])
    own_sound = np.array([scene["sounds"][0]["timbre"] in scene["labels"] for scene in scenes])
    deviation = 0.5 / np.sqrt(len(scenes))
    assert abs(own_look.mean() - 0.5) < 4 * deviation
    assert abs(own_sound.mean() - 0.5) < 4 * deviation
    assert abs(np.corrcoef(own_look, own_sound)[0, 1]) < 4 / np.sqrt(len(scenes))


def test_splits_are_stratified_and_do_not_depend_on_the_number_of_clips():
    cells = collections.Counter((class_of(3, number), split_of(3, number)) for number in range(160))
    for name in design.CLASSES:
        assert [cells[name, split] for split in ("train", "val", "test")] == [14, 2, 4]
    small = [(class_of(3, number), split_of(3, number)) for number in range(24)]
    assert {split for _, split in small} == {"train", "val", "test"}
    assert {name for name, split in small if split == "train"} == set(design.CLASSES)


def test_a_clip_depends_on_seed_and_number_alone():
    assert describe(ScenesConfig(clips=10, seed=1), 7) == describe(ScenesConfig(clips=9999, seed=1), 7)
    assert describe(ScenesConfig(clips=10, seed=1), 7) != describe(ScenesConfig(clips=10, seed=2), 7)
    assert json.loads(json.dumps(describe(ScenesConfig(clips=10), 7))) == json.loads(
        json.dumps(describe(ScenesConfig(clips=10), 7))
    )


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_every_look_fills_a_fair_part_of_the_frame(look: str):
    scene = describe(ScenesConfig(clips=1, size=64, fps=2), 0)
    item = scene["objects"][0] | {"look": look}
    empty, full = draw(scene | {"objects": []}), draw(scene | {"objects": [item]})
    changed = (np.abs(full.astype(int) - empty) > 8).any(-1).mean()
    assert full.shape == (4, 64, 64, 3)
    assert item["size"] ** 2 * 0.15 < changed < item["size"] ** 2


@pytest.mark.parametrize("timbre", sorted(TIMBRES))
def test_every_timbre_sounds_at_its_loudness_over_quieter_noise(timbre: str):
    scene = describe(ScenesConfig(clips=1, seconds=2.5), 0)
    source = {"timbre": timbre, "pitch_hz": TIMBRES[timbre].pitch[0], "onsets_s": [0.5], "loudness_db": -31.0}
    sound = synthesise(scene | {"sounds": [source], "noise": {"colour": "pink", "loudness_db": -60.0}})
    assert sound.shape == (40_000,)
    assert np.abs(sound).max() <= 0.99
    assert 10 * np.log10(np.mean(sound**2)) == pytest.approx(-31, abs=0.1)
    before, after = np.mean(sound[:8000] ** 2), np.mean(sound[8000:16000] ** 2)
    assert after > 50 * before


def test_onsets_lie_in_the_clip_and_pitches_in_their_range():
    for number in range(200):
        scene = describe(ScenesConfig(clips=1), number)
        (source,) = scene["sounds"]
        low, high = TIMBRES[source["timbre"]].pitch
        assert low <= source["pitch_hz"] <= high
        assert source["onsets_s"]
        assert all(0 <= onset < scene["seconds"] for onset in source["onsets_s"])


def test_builds_clips_that_decode_and_keeps_them(tmp_path: Path):
    config = ScenesConfig(clips=3, seed=5, seconds=1.5, size=64, fps=4, jobs=1)
    lines = io.StringIO()
    progress = functools.partial(Progress, "scenes", stream=lines)
    summary = build(config, tmp_path, progress)
    assert "3/3 clips" in lines.getvalue()
    clips = read_manifest(summary.manifests["default"])
    assert len(clips) == summary.clips == 3
    for clip in clips:
        assert clip.path
        path = Path(clip.path)
        scene = json.loads(path.with_suffix(".json").read_text())
        assert scene["labels"] == list(clip.labels)
        seconds, streams = describe_file(path)
        assert seconds == pytest.approx(1.5, abs=0.02)
        assert "h264" in streams
        assert "aac" in streams
        assert "4 fps" in streams
        frames, sound = decode_frames(path, 64), decode_sound(path)
        assert len(frames) == 6
        assert len(sound) / 16_000 == pytest.approx(1.5, abs=0.07)  # AAC comes in blocks of 64 ms
        assert np.abs(frames.astype(int) - draw(scene)).mean() < 8
        rms = 10 * np.log10(np.mean(sound**2))
        assert rms == pytest.approx(10 * np.log10(np.mean(synthesise(scene) ** 2)), abs=1)
    corpus = json.loads((tmp_path / "corpus.json").read_text())
    assert corpus["bayes_ceilings"] == {"visual": 0.75, "audio": 0.75, "both": 1.0, "chance": 0.125}

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").glob("*.mp4")}
    first, second, third = sorted(stamps)
    bytes_before = second.read_bytes()
    second.with_suffix(".json").write_text("{}")  # not what was asked for
    third.unlink()
    build(config, tmp_path, progress)
    assert first.stat().st_mtime_ns == stamps[first]
    assert second.stat().st_mtime_ns != stamps[second]
    assert second.read_bytes() == bytes_before  # the same scene gives the same bytes
    assert third.is_file()
    assert not list(tmp_path.rglob("*.tmp*"))


def test_refuses_impossible_settings():
    with pytest.raises(InputError, match="field 'clips'"):
        load_config(ScenesConfig, None, ["clips=0"])
    with pytest.raises(InputError, match="multiple of 2"):
        load_config(ScenesConfig, None, ["clips=8", "size=97"])
