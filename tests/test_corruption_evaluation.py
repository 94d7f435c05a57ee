"""Evaluation under corruptions: every method on the same ruined media, the ladder's tables, what is refused."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import config_to_dict, load_config
from models.conditions import condition_named
from models.fbank import log_mel
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS, media_records, split_info
from tests.fixtures.worlds import World
from tests.test_corruptions import write_wav
from tests.test_evaluate import predictor
from trainers.classification import ladders
from trainers.classification.config import EvaluateConfig
from trainers.classification.evaluate import items_under, prepare
from trainers.classification.results import Row
from trainers.evaluate import evaluate
from trainers.runs import read_run
from tuning.report.classification import accuracy_blocks
from tuning.report.parts import Table

pytestmark = pytest.mark.integration
COUNT = 12
CHOSEN = ("complete", "avrobustbench-gaussian", "avrobustbench-wind", "read-picture-fog", "read-sound-gaussian_noise")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media shards as the world's, with waveforms that the log-mels are of."""
    folder = tmp_path_factory.mktemp("waves")
    records = list(media_records("test", COUNT, lambda i: LABELS[i % len(LABELS)]))
    for i, (_, members) in enumerate(records):
        if "audio.npy" in members:
            members["wave.npy"] = np.random.default_rng(i).integers(-4000, 4000, 6640, dtype=np.int16)
            members["audio.npy"] = log_mel(members["wave.npy"])
    splits = {"test": split_info(folder, "test", records, 9)}
    DatasetInfo(kind="media", preprocessing={"wave": True}, labels=LABELS, splits=splits).save(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for i in range(2):
        write_wav(folder / f"wind_{i}.wav", np.random.default_rng(i).integers(-9999, 9999, (3000, 1)))
    return folder


@pytest.fixture(scope="module")
def evaluated(world: World, media: Path, recordings: Path, mlflow_once: Path) -> tuple[Path, list[Row]]:
    out = mlflow_once / "results"
    config = EvaluateConfig(data=media, conditions=CHOSEN, severities=(1, 5), recordings=recordings, batch_size=5)
    return out, evaluate([world.backbone, world.others["prompt"]], config, out)


@pytest.fixture(scope="module")
def mlflow_once(_mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(_mlflow_schema, folder)
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_method_meets_the_same_ruined_media(world, media, recordings):
    config = EvaluateConfig(data=media, recordings=recordings)
    data = ShardDataset(media, "test")
    for name in (
        "avrobustbench-gaussian-3",
        "avrobustbench-wind-5",
        "read-picture-fog-5",
        "read-sound-gaussian_noise-1",
    ):
        condition = condition_named(name)
        own, other = (items_under(predictor(world, m), condition, data, config) for m in ("finetune", "prompt"))
        clean = items_under(predictor(world, "finetune"), condition_named("complete"), data, config)
        for i in reversed(range(COUNT)):  # not in the order in which the others are read
            pairs = zip(own[i], other[i], clean[i], strict=True)
            audio, visual, present = [*pairs][:3]
            assert torch.equal(present[0], present[2])
            for column, (mine, theirs, untouched) in enumerate((audio, visual)):
                assert torch.equal(mine, theirs) or (mine.isnan().all() and theirs.isnan().all())
                there = bool(present[0][column])
                assert bool(mine.isnan().all()) == (not there), "NaN stays where nothing was"
                ruined = ("audio", "visual")[column] in condition.noisy
                assert not there or torch.equal(mine, untouched) == (not ruined)


def test_rows_and_draws_have_every_severity(evaluated):
    out, rows = evaluated
    names = ["complete", *(f"{name}-{s}" for name in CHOSEN[1:] for s in (1, 5))]
    methods = {("finetune", ""), ("prompt", "situation"), ("prompt", "concat"), ("prompt", "detected")}
    assert [(r.condition) for r in rows if r.method == "finetune"] == names
    assert {(r.method, r.selection) for r in rows} == methods
    assert all(row.samples == COUNT for row in rows)
    drawn = {(r["condition"], r["audio"], r["visual"]) for r in table(out / "draws.csv") if r["id"].endswith("000")}
    assert ("avrobustbench-wind-5", "wind 5", "wind 5") in drawn
    assert ("read-picture-fog-1", "clean", "fog 1") in drawn


def test_tables_hold_means_over_severities_and_what_is_left(evaluated):
    out, rows = evaluated
    accuracy = {r.condition: r.accuracy for r in rows if r.method == "finetune"}
    found = [r for r in table(out / "corruptions.csv") if r["method"] == "finetune"]
    assert len(found) == 8
    for r in found:
        part = "wind" if r["corruption"] == "wind" else r["corruption"].split()[-1]
        (name,) = [c for c in accuracy if c.endswith(f"{part}-{r['severity']}") and c.startswith(r["protocol"])]
        assert float(r["accuracy"]) == accuracy[name]
        assert float(r["relative"]) == pytest.approx(1 - (accuracy["complete"] - accuracy[name]) / accuracy["complete"])
    text = (out / "results.md").read_text()
    mean = statistics.fmean(accuracy[f"avrobustbench-{k}-{s}"] for k in ("gaussian", "wind") for s in (1, 5))
    section = text.split("## avrobustbench")[1].split("## read")[0]
    line = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in section.splitlines() if row.startswith("|")}
    assert line["mean"] == f"{100 * mean:.1f}"
    assert line["mean, relative to clean"] == f"{100 * mean / accuracy['complete']:.1f}"
    assert line["5"] == f"{100 * statistics.fmean(accuracy[f'avrobustbench-{k}-5'] for k in ('gaussian', 'wind')):.1f}"
    assert (out / "avrobustbench.png").stat().st_size > 5000
    assert "complete" in text.splitlines()[0]
    assert "wind" not in text.splitlines()[0]


def test_the_report_has_the_same_means(evaluated):
    _, rows = evaluated
    tables = [block for block in accuracy_blocks(rows, "x") if isinstance(block, Table)]
    titles = [t.caption for t in tables]
    assert [t for t in titles if "avrobustbench" in t and "under the corruptions" in t]
    accuracy = [r.accuracy for r in rows if r.method == "finetune" and r.condition.startswith("avrobustbench")]
    (under,) = [t for t in tables if "under the corruptions of avrobustbench" in t.caption]
    cells = {line[0].text: line[1].text for line in under.rows}
    assert cells["mean"] == f"{100 * statistics.fmean(accuracy):.1f}"


def test_means_are_over_seeds():
    def row(seed: int, condition: str, accuracy: float) -> Row:
        return Row("m", "", seed, condition, accuracy, 10, 1, 1, 0.0, 0.0, "r")

    rows = [row(s, f"avrobustbench-{k}-{level}", a) for s, k, level, a in (
        (0, "rain", 1, 0.8), (0, "rain", 5, 0.4), (0, "snow", 1, 0.6), (0, "snow", 5, 0.2),
        (1, "rain", 1, 0.6), (1, "rain", 5, 0.2), (1, "snow", 1, 0.4), (1, "snow", 5, 0.0),
    )]  # fmt: skip
    (ladder,) = ladders.ladders(ladders.corruption_rows([*rows, row(0, "complete", 1.0), row(1, "complete", 0.5)]))
    assert ladders.over_seeds(ladder.rows("m"), lambda r: r.accuracy) == pytest.approx((0.4, 0.02**0.5))
    assert ladders.over_seeds(ladder.rows("m"), lambda r: r.relative)[0] == pytest.approx((0.5 + 0.6) / 2)
    assert ladders.over_seeds(ladder.rows("m", "rain"), lambda r: r.accuracy)[0] == pytest.approx(0.5)
    assert ladders.over_seeds(ladder.rows("m", severity=5), lambda r: r.accuracy)[0] == pytest.approx(0.2)
    text = ladders.markdown(ladder)
    assert "| mean | 40.0 ± 14.1 |" in text
    (bare,) = ladders.ladders(ladders.corruption_rows(rows))
    assert "| mean, relative to clean |  |" in ladders.markdown(bare)


def test_the_files_belong_to_the_identity_and_their_place_does_not(world, media, recordings, tmp_path):
    runs = [read_run(world.backbone)]

    def inputs(**settings):
        return prepare(runs, EvaluateConfig(data=media, **settings)).inputs

    windy = {"conditions": ("avrobustbench-wind",)}
    first = inputs(**windy, recordings=recordings)
    for path in recordings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert inputs(**windy, recordings=tmp_path) == first
    write_wav(tmp_path / "wind_0.wav", np.full((100, 1), 99))
    assert inputs(**windy, recordings=tmp_path) != first
    assert inputs(**windy, recordings=recordings, severities=(1, 2)) != first
    plain = inputs(conditions=("complete",))
    assert set(plain) == {"runs", "config", "dataset"}
    assert not set(plain["config"]) & {"protocol", "severities", "recordings", "overlays"}


def test_what_corruptions_need_is_asked_for_before_anything_runs(world, media):
    runs = [read_run(world.backbone)]
    with pytest.raises(InputError, match="keep_wave=true"):
        prepare(runs, EvaluateConfig(conditions=("avrobustbench-gaussian",)))
    prepare(runs, EvaluateConfig(conditions=("read-picture-fog",)))  # nothing of the sound
    with pytest.raises(InputError, match=r"'recordings'.*'wind' needs files"):
        prepare(runs, EvaluateConfig(data=media, conditions=("avrobustbench-wind",)))
    with pytest.raises(InputError, match=r"'overlays'.*'frost' needs files"):
        prepare(runs, EvaluateConfig(data=media, conditions=("read-picture-frost",)))


def test_a_protocol_fills_in_what_is_not_given():
    config = load_config(EvaluateConfig, None, ["protocol=avrobustbench"])
    assert len(config.conditions) == 16
    assert len(config.applied()) == 76
    assert config.applied()[1].name == "avrobustbench-gaussian-1"
    assert len(load_config(EvaluateConfig, None, ["protocol=read"]).applied()) == 22
    fewer = load_config(
        EvaluateConfig, None, ["protocol=avrobustbench", "severities=[5]", "conditions=[avrobustbench-rain]"]
    )
    assert [c.name for c in fewer.applied()] == ["avrobustbench-rain-5"]
    assert EvaluateConfig(**config_to_dict(config)) == config, "its record gives the same"
    for wrong, said in (
        ("protocol=avrobust", "did you mean 'avrobustbench'"),
        ("severities=[6]", "less than or equal to 5"),
        ("severities=[1,1]", "twice"),
        ("conditions=[avrobustbench-rian]", "did you mean 'avrobustbench-rain'"),
    ):
        with pytest.raises(InputError, match=said):
            load_config(EvaluateConfig, None, [wrong])
