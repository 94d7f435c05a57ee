"""`avmend predict`: the numbers of `avmend evaluate` for the same clips, and one line for every clip that fails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import avmend
from models.conditions import CONDITIONS
from pipelines.preprocessing import preprocessing, recorded_ingestion
from pipelines.settings import IngestConfig
from serving.predict import main
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS
from tests.fixtures.clips import NAMES, ingested_clips
from tests.fixtures.worlds import World
from trainers.classification.config import EvaluateConfig
from trainers.classification.detector import load_detector
from trainers.classification.evaluate import items_under, prepare
from trainers.classification.evaluate import testable as something_left
from trainers.classification.predict import detect
from trainers.data import collate
from trainers.runs import read_run
from tuning.report.clips import load_run

pytestmark = pytest.mark.integration
CLOSE = 1e-5  # of logits: batches of other sizes round otherwise


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with a manifest, ingested in this process into ``media``."""
    return ingested_clips(tmp_path_factory.mktemp("clips")).parent


def evaluated(run: Path, media: Path, condition: str) -> dict[str, torch.Tensor]:
    """Logits by selection of the clips that have something left, as evaluation computes them."""
    predictor, data = load_run(run), ShardDataset(media, "test")
    items = items_under(predictor, CONDITIONS[condition], data, EvaluateConfig())
    left = np.flatnonzero(something_left(data.present, CONDITIONS[condition])).tolist()
    with torch.inference_mode():
        return predictor.predict(collate([items[i] for i in left]), CONDITIONS[condition])


def accuracies(runs: list[Path], media: Path) -> dict[tuple[str, str], float]:
    """By run and selection, what `avmend evaluate` puts into its table for complete clips."""
    config = EvaluateConfig(data=media, conditions=("complete",))
    rows = prepare([read_run(run) for run in runs], config).rows(lambda *counts, **labels: None)
    return {(row.run, row.selection): row.accuracy for row in rows}


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[dict]]:
    status = main([*map(str, words), "--json", "--device", "cpu"])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predictions_are_what_evaluation_computes_for_the_same_clips(world: World, corpus, capsys):
    runs = [world.backbone, world.others["prompt"], world.others["lora"]]
    status, lines = predicted(capsys, *runs, *(corpus / name for name in NAMES), "--data", corpus / "media")
    assert status == 0
    shares_right = accuracies(runs, corpus / "media")
    for at, run in enumerate(runs):
        selection = "" if run == world.backbone else "detected"
        wanted = evaluated(run, corpus / "media", "complete")[selection].numpy()
        for line, logits in zip(lines, wanted, strict=True):
            found = line["runs"][at]
            assert found["run"] == run.name
            assert [found["logits"][label] for label in LABELS] == pytest.approx(logits, abs=CLOSE)
            assert found["answer"] == LABELS[int(logits.argmax())]
            shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            assert [found["probabilities"][label] for label in LABELS] == pytest.approx(shares, abs=CLOSE)
        right = [line["runs"][at]["answer"] == LABELS[i % 3] for i, line in enumerate(lines)]
        assert np.mean(right) == shares_right[run.name, selection]


def test_a_situation_is_what_is_missing(world: World, corpus):
    model = avmend.load(world.others["prompt"], "cpu", data=corpus / "media")
    silent = model.predict(corpus / "silent.mp4")
    wanted = evaluated(world.others["prompt"], corpus / "media", "audio_missing")["situation"][1]
    assert silent.others["situation"] == pytest.approx(wanted.numpy(), abs=CLOSE)
    assert set(silent.others) == {"situation", "concat"}


def test_a_manifest_a_folder_and_two_files_name_the_same_clips(world: World, corpus, tmp_path, capsys):
    data = ("--data", corpus / "media")
    _, by_manifest = predicted(capsys, world.backbone, corpus / "manifest.csv", *data)
    assert [line["clip"] for line in by_manifest] == list(NAMES)
    for name in NAMES:
        shutil.copy(corpus / name, tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    status = main([str(world.backbone), str(tmp_path), "--data", str(corpus / "media"), "--json"])
    out = capsys.readouterr()
    by_folder = [json.loads(line) for line in out.out.splitlines()]
    assert status == 0
    assert "1 files are no clips by their names: notes.txt" in out.err
    assert [line["runs"] for line in by_folder] == [line["runs"] for line in by_manifest]
    _, alone = predicted(capsys, world.backbone, "--audio", corpus / "sound.wav", *data)
    assert alone[0]["runs"] == by_manifest[2]["runs"]
    assert alone[0]["streams"]["visual"] == {"present": False, "cause": "absent at source"}


def test_clips_that_fail_are_told_one_by_one_and_the_others_answered(world: World, corpus, tmp_path, capsys):
    (tmp_path / "cut.mp4").write_bytes((corpus / "both.mp4").read_bytes()[:900])
    clips = [tmp_path / "gone.mp4", corpus / "both.mp4", tmp_path / "cut.mp4"]
    runs = [world.backbone, world.others["prompt"]]
    assert main([*map(str, [*runs, *clips]), "--data", str(corpus / "media"), "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    blocks = [block.splitlines() for block in out.split(str(tmp_path / "cut.mp4"))]
    assert f"{world.backbone.name}" in out
    assert out.count("failed: missing file") == len(runs)
    assert sum(line.count("failed: ") for line in blocks[1]) == len(runs)
    assert "sound 1.0 s, picture 1.0 s" in out
    assert "[detected: " in out
    assert "2 of 3 clips failed" in err


@pytest.mark.filterwarnings("ignore")  # a warning that tells of such a name can't be sent between test processes
def test_a_name_that_is_no_utf8_is_a_name(world: World, corpus, tmp_path, capsys):
    odd = os.fsencode(tmp_path) + b"/caf\xe9 #1.mp4"
    shutil.copy(corpus / "both.mp4", odd)
    status, (line,) = predicted(capsys, world.backbone, os.fsdecode(odd), "--data", corpus / "media")
    assert status == 0
    assert line["clip"] == f"{tmp_path}/caf\\udce9 #1.mp4"
    assert line["streams"]["audio"]["present"]


def test_the_detector_takes_for_ruined_what_it_takes_for_ruined_in_evaluation(world: World, corpus):
    run = world.others["lora"]
    model, predictor = avmend.load(run, "cpu", data=corpus / "media"), load_run(run)
    items = items_under(predictor, CONDITIONS["complete"], ShardDataset(corpus / "media", "test"), EvaluateConfig())
    batch = collate([items[i] for i in range(len(items))])
    audio, visual = predictor.backbone.net.tokens_at(
        predictor.run.config.depth, batch.audio, batch.visual, batch.present
    )
    cases = detect(load_detector(run), audio, visual, batch.present)
    for name, case in zip(NAMES, cases, strict=True):
        found = model.predict(corpus / name)
        assert found.case == case
        there = [m for m, present in found.present.items() if present]
        assert found.ruined == tuple(m for m in CONDITIONS[case].noisy if m in there)


def test_what_is_no_run_or_no_clip_is_refused(world: World, corpus, capsys):
    assert main([str(corpus / "both.mp4")]) == 2
    assert "no run's folder among" in capsys.readouterr().err
    assert main([str(world.backbone)]) == 2
    assert "no clips" in capsys.readouterr().err
    asked = [str(world.backbone), str(corpus / "both.mp4"), "--data"]
    assert main([*asked, str(corpus / "media"), "--question", "Is there a drum?"]) == 2
    assert "takes no question" in capsys.readouterr().err
    manifest = str(corpus / "manifest.csv")
    assert main([*asked, str(corpus / "media"), manifest, "--split", "val"]) == 2
    assert "no split 'val'\n  remedy: choose one of: test" in capsys.readouterr().err
    assert main([*asked, str(corpus / "nowhere")]) == 2
    assert "remedy: give --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config",
    [
        IngestConfig(workers=0),
        IngestConfig(frames=1, image_size=64, keep_wave=True, frame_mode="approximate", workers=0),
        IngestConfig(decoder="ffmpeg", channel="loudest", pixels="stored", workers=0),
    ],
)
def test_the_ingestion_is_read_back_from_what_dataset_json_says(config):
    said = json.loads(json.dumps(preprocessing(config)))
    info = DatasetInfo(kind="media", preprocessing=said, labels=LABELS, splits={})
    assert recorded_ingestion(info, Path("data")) == config
    with pytest.raises(InputError, match="does not say how its clips became samples"):
        recorded_ingestion(info.model_copy(update={"preprocessing": {}}), Path("data"))
