"""What slots tell: mutual information against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recalling import mutual_information, slot_figures

pytestmark = pytest.mark.unit


def test_mutual_information_of_tables_worked_out_by_hand():
    there = np.array([True, True, False, False])
    assert mutual_information(np.array([7, 7, 2, 2]), there) == pytest.approx(1.0)
    assert mutual_information(np.array([0, 1, 0, 1]), there) == pytest.approx(0.0)
    # joint 3/8, 1/8, 1/8, 3/8: 1 - H(1/4) = 1 - 0.811278
    slots = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert mutual_information(slots, np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)) == pytest.approx(
        0.188722, abs=1e-6
    )


def test_slots_that_name_a_class_tell_all_of_it_and_others_nothing_but_chance():
    rng = np.random.default_rng(0)
    scenes = np.zeros((4000, 1, 2), dtype=bool)
    which = rng.integers(2, size=4000)
    scenes[np.arange(4000), 0, which] = True
    knowing = slot_figures(which[:, None], scenes)
    assert knowing["told"] == pytest.approx(1.0, abs=1e-9)
    assert knowing["told_by_chance"] < 0.01
    assert knowing["slots_addressed"] == 2
    blind = slot_figures(rng.integers(75, size=(4000, 1)), scenes)
    # plug-in estimates are too high by about (75 - 1) / (2 N ln 2) bits each
    assert blind["told"] == pytest.approx(74 / (2 * 4000 * np.log(2)), rel=0.5)
    assert abs(blind["told"] - blind["told_by_chance"]) < 0.01
