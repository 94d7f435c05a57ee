"""Linear probes: what was planted in features is found, what was shuffled is not; the command on real shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.dense_targets import load_targets, save_targets
from shards.errors import InputError
from tests.fixtures.dense import SIDE, dense_world
from trainers.linear_probe import Probed, figures
from trainers.probe import ProbeRow, main, probe
from trainers.tables import read_rows

unit, integration = pytest.mark.unit, pytest.mark.integration
CLASSES, STEPS, PLACES = 4, 5, 4


def planted(clips: int, seed: int) -> Probed:
    """Sounds from one step to another at a level, in one channel of two each; who is in a cell, in a channel each."""
    rng = np.random.default_rng(seed)
    levels = np.full((clips, STEPS, CLASSES), np.nan, np.float32)
    for clip in range(clips):
        for name in rng.permutation(CLASSES)[: rng.integers(1, 4)]:
            begin = rng.integers(STEPS)
            levels[clip, begin : rng.integers(begin + 1, STEPS + 1), name] = rng.uniform(-40, -20)
    cells = rng.random((clips, PLACES, CLASSES)) < 0.25
    there, loud = ~np.isnan(levels), np.nan_to_num((levels + 30) / 10)
    audio = np.concatenate([there, loud], axis=2) + rng.normal(0, 0.02, (clips, STEPS, 2 * CLASSES))
    mixed = audio @ np.random.default_rng(9).normal(size=(2 * CLASSES, 2 * CLASSES))  # no channel is anybody's own
    visual = cells + rng.normal(0, 0.05, cells.shape)
    all_of_them = np.ones(clips, bool)
    seen = cells.any(axis=2).sum(axis=1)
    parts = (mixed.astype(np.float32), visual.astype(np.float32), levels, cells, seen, all_of_them, all_of_them)
    return Probed(*parts)


def found(train: Probed, test: Probed) -> dict[str, tuple[float, float]]:
    return {figure.what: (figure.value, figure.floor) for figure in figures(train, test)}


@unit
def test_what_is_planted_is_found():
    values = found(planted(150, 0), planted(80, 1))
    assert values["who sounds in a second, mAP"][0] > 0.99
    assert values["who sounds in a second, all right"][0] > 0.97
    assert values["how loud, mean error in dB"][0] < 0.5
    assert values["louder of two"][0] > 0.95
    assert values["first of two"][0] > 0.97
    assert values["who is seen in a cell, all right"][0] > 0.97
    assert values["who it is, in a cell with one"][0] == 1


@unit
def test_of_features_of_other_clips_nothing_is_found():
    train, test = planted(150, 0), planted(150, 1)
    rng = np.random.default_rng(5)
    mixed = [
        replace(clips, audio=rng.permuted(clips.audio, axis=0), visual=rng.permuted(clips.visual, axis=0))
        for clips in (train, test)
    ]
    values = found(*mixed)
    assert values["who sounds in a second, mAP"][0] < values["who sounds in a second, mAP"][1] + 0.15
    assert abs(values["louder of two"][0] - 0.5) < 0.15
    assert values["how loud, mean error in dB"][0] > 0.9 * values["how loud, mean error in dB"][1]
    assert values["who it is, in a cell with one"][0] < 0.45  # of four
    assert values["who is seen in a cell, mAP"][0] < 0.4


@unit
def test_floors_are_those_of_the_most_frequent_answer_and_of_the_mean_level():
    train, test = planted(60, 0), planted(40, 1)
    values = found(train, test)
    heard = (~np.isnan(train.levels)).reshape(-1, CLASSES).tolist()
    most = max(heard, key=heard.count)
    truth = (~np.isnan(test.levels)).reshape(-1, CLASSES).tolist()
    assert values["who sounds in a second, all right"][1] == pytest.approx(truth.count(most) / len(truth))
    mean = np.nanmean(train.levels)
    assert values["how loud, mean error in dB"][1] == pytest.approx(np.nanmean(np.abs(test.levels - mean)), rel=1e-5)


@unit
def test_clips_without_sound_or_target_are_not_asked_about_it():
    train, test = planted(60, 0), planted(40, 1)
    heard = np.arange(40) % 2 == 0
    audio, levels = test.audio.copy(), test.levels.copy()
    audio[~heard], levels[~heard] = np.nan, np.nan
    few = {f.what: f.right for f in figures(train, replace(test, audio=audio, levels=levels, heard=heard))}
    assert len(few["who sounds in a second, all right"]) == 20 * STEPS
    assert len(few["how many are seen"]) == 40
    none = figures(train, replace(test, heard=np.zeros(40, bool)))
    assert {figure.modality for figure in none} == {"visual"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = dense_world(tmp_path_factory.mktemp("probe"), {"train": 40, "test": 20}, less=(3,))
    return root, extract(root / "media", root / "run", FeatureConfig(extractor="cavmae", workers=0))


@integration
def test_the_command_writes_a_table_with_intervals(world, capsys):
    root, features = world
    arguments = [str(features), "--targets", str(root / "targets.jsonl"), "--side", str(SIDE)]
    assert main(arguments) == 0
    rows = read_rows((features / "probe" / "probe.csv").read_text(), ProbeRow)
    assert rows is not None
    shares = [row for row in rows if row.items]
    assert {row.modality for row in shares} == {"audio", "visual"}
    assert all(row.low <= row.value <= row.high for row in shares)
    by_name = {row.what: row for row in rows}
    assert by_name["who sounds in a second, all right"].items == 3 * 19  # of 20 test clips, 3 steps; one has no sound
    assert by_name["who is seen in a cell, all right"].items == SIDE**2 * 19  # and one no picture
    assert by_name["who it is, in a cell with one"].value > 0.8  # colours are not lost in random weights
    printed = capsys.readouterr().out
    assert (features / "probe" / "probe.md").read_text() in printed
    again = probe(features, root / "targets.jsonl", root / "again", side=SIDE)
    assert again == rows or [str(row) for row in again] == [str(row) for row in rows]


@integration
def test_what_can_not_be_probed_is_refused(world, tmp_path):
    root, features = world
    known = load_targets(root / "targets.jsonl")
    save_targets(tmp_path / "train.jsonl", [target for clip, target in known.items() if "train" in clip])
    for folder, targets, side, part in (
        (root / "media", root / "targets.jsonl", SIDE, "not sequence features"),
        (features, tmp_path / "train.jsonl", SIDE, "no clip of the split test"),
        (features, root / "targets.jsonl", 9, "beyond the features' grid"),
    ):
        with pytest.raises(InputError, match=part):
            probe(folder, targets, tmp_path / "out", side=side)
    assert not (tmp_path / "out").exists()
