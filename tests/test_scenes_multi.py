"""The corpus ``scenes-multi``: who is seen and heard in its clips, and that each depends on its number alone."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.drawing import draw
from pipelines.corpora.synthetic.scenes_multi import SENSES, SIZES, ScenesMultiConfig, describe
from pipelines.corpora.synthetic.sound import synthesise

pytestmark = pytest.mark.unit
SCENES = [describe(ScenesMultiConfig(clips=1000), number) for number in range(1000)]


def test_labels_are_all_who_are_seen_or_heard():
    for scene in SCENES:
        seen, heard = ({part["class"] for part in scene[kind]} for kind in ("objects", "sounds"))
        assert set(scene["labels"]) == seen | heard
        assert len(scene["labels"]) == len(set(scene["labels"])) <= 3
        places = [(round(o["x"]), round(o["y"])) for o in scene["objects"]]
        assert len(set(places)) == len(places)  # a quarter of the frame each


def test_sizes_senses_and_classes_come_as_often_as_drawn():
    sizes = collections.Counter(len(scene["labels"]) for scene in SCENES)
    assert [sizes[n + 1] / 1000 for n in range(3)] == pytest.approx(SIZES, abs=0.05)
    parts = [(scene, name) for scene in SCENES for name in scene["labels"]]
    seen = np.mean([name in {o["class"] for o in scene["objects"]} for scene, name in parts])
    heard = np.mean([name in {s["class"] for s in scene["sounds"]} for scene, name in parts])
    assert seen == pytest.approx(SENSES["both"] + SENSES["seen"], abs=0.03)
    assert heard == pytest.approx(SENSES["both"] + SENSES["heard"], abs=0.03)
    counts = collections.Counter(name for _, name in parts)
    assert set(counts) == set(CLASSES)
    assert min(counts.values()) > 0.7 * max(counts.values())


def test_a_clip_depends_on_its_number_alone():
    assert describe(ScenesMultiConfig(clips=8), 7) == SCENES[7] != describe(ScenesMultiConfig(clips=8, seed=1), 7)


def test_who_is_unseen_is_not_drawn_and_who_is_unheard_does_not_sound():
    scene = next(s for s in SCENES if not s["sounds"])
    quiet, loud = (float(np.sqrt(np.mean(synthesise(s) ** 2))) for s in (scene, next(s for s in SCENES if s["sounds"])))
    assert quiet < 10 ** (-45 / 20) < loud
    unseen = next(s for s in SCENES if not s["objects"])
    assert np.ptp(draw(unseen).astype(int), axis=0).max() == 0  # a still background
