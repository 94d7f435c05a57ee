"""Imported features in training: which steps are taken, in what precision, at what scale; by every network."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

import avmend
from configs.public import load_resnet18
from models import vggish
from pipelines.feature_shard import features_of, reproducible
from pipelines.imports.compare import compare
from pipelines.imports.compare import table as comparison_table
from pipelines.imports.layouts.music_avqa import MusicAvqaLayout
from pipelines.imports.run import planned
from pipelines.sequences import ResNetVisual, SequenceExtractor, VGGishAudio
from shards.errors import InputError
from shards.reader import Sample, ShardDataset
from shards.schema import BackboneInfo, DatasetInfo
from shards.sequence import StepChoice, chosen_steps
from tests.fixtures.asking import SIZES, question_stages, saved_run
from tests.fixtures.builders import meta, split_info
from tests.test_feature_import import arrays, ask, save, take
from tests.test_sequences import record
from trainers.avqa.clips import Clips, feature_spec, scale_of
from trainers.avqa.config import AVQAConfig, QuestionEvaluation
from trainers.avqa.evaluate import prepare
from trainers.avqa.results import Result
from trainers.identity import content_settings
from trainers.recipe import FinishedRun
from trainers.runs import read_run

pytestmark = pytest.mark.integration
SPLITS = {f"clip{i}": ("train", "train", "train", "val", "test")[i % 5] for i in range(15)}


def plain(root: Path, visual: tuple[int, ...], *overrides: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A small world in the plain layout: source, questions, and the dataset in `out`."""
    found = {
        clip: (
            save(root / "feats" / "audio" / f"{clip}.npy", arrays(i, 12, 6)),
            save(root / "feats" / "visual" / f"{clip}.npy", arrays(100 + i, 12, *visual)),
        )
        for i, clip in enumerate(SPLITS)
    }
    take(root / "feats", ask(root / "q.jsonl", SPLITS, times=2), root / "out", "plain", *overrides)
    return found


def test_steps_are_the_published_ones_or_the_middles():
    assert chosen_steps(60, 10, "starts") == list(range(0, 60, 6))
    assert chosen_steps(60, 10, "middles") == list(range(3, 60, 6))
    assert chosen_steps(12, 5, "starts") == [0, 2, 4, 7, 9]
    assert chosen_steps(3, 3, "middles") == chosen_steps(3, 3, "starts") == [0, 1, 2]
    assert StepChoice(None).of(60) is StepChoice(60, "starts").of(60) is None
    with pytest.raises(InputError, match="61 of 60 steps"):
        StepChoice(61).of(60)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("wide", [3, 1100])  # rows below and above a page
def test_only_the_chosen_steps_are_taken_bit_for_bit(tmp_path, resident, dtype, wide):
    found = plain(tmp_path, (4, wide), f"dtype={dtype}")
    clips = Clips(tmp_path / "out", resident, StepChoice(4, "starts"))
    assert (clips.spec.steps, clips.spec.places, clips.spec.visual) == (4, 4, wide)
    numbers = [clips.number[name] for name in ("clip3", "clip0")]
    sound, picture = clips.features("audio", numbers), clips.features("visual", numbers)
    assert sound.dtype == picture.dtype == getattr(torch, dtype)
    for i, name in enumerate(("clip3", "clip0")):
        audio, visual = (x[[0, 3, 6, 9]].astype(dtype) for x in found[name])
        np.testing.assert_array_equal(sound[i].numpy(), audio)
        np.testing.assert_array_equal(picture[i].numpy(), visual)
    frames = clips.frames(numbers, [1, 3])
    np.testing.assert_array_equal(frames[0].numpy(), found["clip3"][1][3].astype(dtype))
    np.testing.assert_array_equal(frames[1].numpy(), found["clip0"][1][9].astype(dtype))


def test_features_are_standardised_or_left_as_they_are(tmp_path):
    plain(tmp_path, (4, 3))
    info = DatasetInfo.load(tmp_path / "out")
    assert scale_of(info).visual == (info.normalisation.visual.mean, info.normalisation.visual.std)
    assert scale_of(info, standardise=False).visual == ((0.0,) * 3, (1.0,) * 3)


def test_the_new_settings_change_no_run_that_does_not_use_them():
    config = AVQAConfig(data=Path("x"), questions=Path("y"))
    assert not {"steps", "steps_at", "standardise"} & set(content_settings(config))
    for changed in ({"steps": 10}, {"steps_at": "starts"}, {"standardise": False}):
        assert content_settings(config.model_copy(update=changed)).items() >= changed.items()


@pytest.mark.parametrize(
    ("network", "visual", "more"),
    [
        ("avst", (8, 2, 2), {"steps": 4, "steps_at": "starts"}),
        ("avst", (8,), {"steps": 3}),  # pooled
        ("pstp", (5, 8), {}),  # class token and patches, all steps
        ("avsd", (8, 2, 2), {}),
        ("lavit", (8, 2, 2), {"steps": 2}),
        ("avst_prompts", (8, 2, 2), {"steps": 2}),
        ("avst_drfuse", (8, 2, 2), {"steps": 2}),
    ],
)
def test_every_network_learns_from_imported_features(network, visual, more, tmp_path):
    plain(tmp_path, visual, *(["frame_token=true"] if visual == (5, 8) else []))
    (stage,) = question_stages(config_of(tmp_path, network=network, sizes=SIZES[network], **more))
    assert stage.meta["design"]["spec"]["steps"] == more.get("steps", 12)
    output = stage.objective(stage.train.batch([0, 1, 2]))
    output.loss.backward()
    assert torch.isfinite(output.loss)
    grads = [p.grad for p in stage.objective.parameters() if p.grad is not None]
    assert any(grad.abs().sum() > 0 for grad in grads)


def test_the_published_loaders_rows_and_scale_train_and_are_evaluated(tmp_path, mlflow_root, capsys):
    plain(tmp_path, (8, 2, 2))
    command = ["train", "avqa", f"data={tmp_path / 'out'}", f"questions={tmp_path / 'q.jsonl'}", "network=avst"]
    command += [f"sizes.{name}={value}" for name, value in SIZES["avst"].items()]
    command += ["epochs=1", "batch_size=4", "workers=0", "cpus=1", "steps=4", "steps_at=starts", "standardise=false"]
    assert avmend.main([*command, "--runs", str(mlflow_root)]) == 0
    run = Path(capsys.readouterr().out.split()[-1])
    said = json.loads((run / "avqa" / "checkpoint.json").read_text())["meta"]
    assert said["design"]["spec"]["steps"] == 4
    assert said["scale"]["visual"] == [[0.0] * 8, [1.0] * 8]
    out = mlflow_root / "results"
    assert avmend.main(["evaluate", str(run), "--out", str(out), "--set", "rates=[50]"]) == 0
    assert sum(row.startswith("zero,") for row in (out / "results.csv").read_text().splitlines()) > 4
    assert avmend.main(["export", str(run), str(tmp_path / "shared")]) == 0
    assert "`out`, fingerprint" in (tmp_path / "shared" / "README.md").read_text()
    assert avmend.main(["import", str(tmp_path / "shared"), "--runs", str(tmp_path / "runs")]) == 0
    there, again = tmp_path / "runs" / run.name, tmp_path / "again"
    words = [str(there), "--data", str(tmp_path / "out"), "--out", str(again), "--set", "rates=[50]"]
    assert avmend.main(["evaluate", *words, f"questions={tmp_path / 'q.jsonl'}"]) == 0
    mine, theirs = (list(csv.DictReader((place / "results.csv").open())) for place in (out, again))
    assert [row["accuracy"] for row in mine] == [row["accuracy"] for row in theirs]


def test_runs_that_take_other_steps_are_evaluated_side_by_side(tmp_path):
    plain(tmp_path, (4, 8))
    choices = ({"steps": 4}, {"steps": 2, "steps_at": "starts"}, {})
    configs = [
        config_of(tmp_path, network="avsd", sizes=SIZES["avsd"], label=f"take {i}", **more)
        for i, more in enumerate(choices)
    ]
    runs = [read_run(saved_run(tmp_path, f"avqa-{config.label[-1]}", config)) for config in configs]

    def rows(*those: FinishedRun) -> list[Result]:
        found = prepare(those, QuestionEvaluation(rates=(50,))).rows(lambda *args, **kwargs: None)
        return [replace(row, inference_seconds=0.0) for row in found if row.method.startswith("take")]

    assert rows(*runs) == [row for run in runs for row in rows(run)]


def test_a_run_on_imported_features_is_not_asked_about_clips(tmp_path):
    plain(tmp_path, (4, 8))
    run = saved_run(tmp_path, "avqa-x", config_of(tmp_path, network="avsd", sizes=SIZES["avsd"]))
    with pytest.raises(InputError, match=r"imported features \(layout plain\), which nothing here makes of clips"):
        avmend.load(run)


def config_of(root: Path, **more) -> AVQAConfig:
    """A small run on the world in `root`."""
    values = {
        "data": root / "out",
        "questions": root / "q.jsonl",
        "epochs": 1,
        "batch_size": 4,
        "workers": 0,
        "cpus": 1,
    }
    return AVQAConfig(**{**values, **more})


def own_features(folder: Path, clips: dict[str, dict[str, np.ndarray]], spec: dict) -> Path:
    """Sequence features as `avmend features` leaves them."""
    records = [
        (
            clip,
            {
                "json": meta(clip, "x", "train").model_copy(update={"id": clip}),
                **{f"{m}.npy": a for m, a in of.items()},
            },
        )
        for clip, of in clips.items()
    ]
    info = DatasetInfo(
        kind="features",
        preprocessing={"features": "sequence", "spec": spec},
        labels=("x",),
        splits={"train": split_info(folder, "train", records, 2)},
        backbone=BackboneInfo(id="own", fingerprint="a" * 64, depth=None, variants=("clean",)),
    )
    info.save(folder)
    return folder


def test_a_comparison_has_the_numbers_of_a_calculation_by_hand(tmp_path, capsys):
    feats = tmp_path / "feats"
    audio = np.array([[1.0, 0.0], [3.0, 0.0], [9.0, 0.0], [5.0, 0.0]], np.float32)
    visual = np.array([[[1.0], [3.0]], [[9.0], [9.0]], [[5.0], [7.0]], [[9.0], [9.0]]], np.float32)  # [T 4, P 2, D 1]
    for clip in ("a", "b", "only theirs"):
        save(feats / "audio" / f"{clip}.npy", audio)
        save(feats / "visual" / f"{clip}.npy", visual + (clip == "b"))
    splits = {"a": "train", "b": "train", "only theirs": "test"}
    take(feats, ask(tmp_path / "q.jsonl", splits), tmp_path / "out", "plain")
    # ours: two steps, one place: rows 1 and 3 of theirs are at the middles, places are averaged
    clips = {
        clip: {
            "audio": np.array([[6.0, 1.0], [10.0, 1.0]], np.float16),
            "visual": np.array([[[9.0]], [[10.0]]], np.float16),
        }
        for clip in ("a", "b", "only_ours")
    }
    spec = {"audio": 2, "visual": 1, "steps": 2, "places": 1, "frame_token": False}
    own = own_features(tmp_path / "own", clips, spec)
    found = compare(tmp_path / "out", own, tmp_path / "out")
    assert (found["clips"], found["audio"]["values"], found["audio"]["dead"]) == (2, 4, 1)
    channels = found["audio"]["channels"]
    assert channels["mean_theirs"] == [4.0, 0.0]  # 3, 5, 3, 5
    assert channels["std_theirs"] == [1.0, 0.0]
    assert (channels["mean_ours"], channels["std_ours"]) == ([8.0, 1.0], [2.0, 0.0])  # 6, 10, 6, 10
    assert channels["cosine"] == [pytest.approx((3 * 6 + 5 * 10) / np.sqrt((9 + 25) * (36 + 100))), None]
    seen = found["visual"]["channels"]  # theirs 9, 9 of a; 10, 10 of b; ours 9, 10, 9, 10
    assert seen["mean_theirs"] == [9.5]
    assert seen["cosine"] == [pytest.approx((81 + 90 + 90 + 100) / np.sqrt((81 * 2 + 200) * (81 * 2 + 200)))]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found
    assert "1 channels are zero in one of them" in comparison_table(found)
    command = ["features", "import", "--layout", "plain", "--source", str(feats), "--out", str(tmp_path / "out")]
    command += ["--questions", str(tmp_path / "q.jsonl"), "--compare", str(own), "workers=0", "samples_per_shard=2"]
    assert avmend.main(command) == 0
    assert "audio: 2 clips, 4 values a channel, 2 channels" in capsys.readouterr().out
    wider = {clip: {**of, "audio": np.zeros((2, 3), np.float16)} for clip, of in clips.items()}
    other = compare(tmp_path / "out", own_features(tmp_path / "wider", wider, {**spec, "audio": 3}))
    assert other["audio"] == {"reason": "theirs are 2 wide, ours 3: features of different networks"}
    with pytest.raises(InputError, match="no clip in common"):
        compare(tmp_path / "out", own_features(tmp_path / "none", {"x": clips["a"]}, spec))


def test_our_extractors_and_the_published_files_have_one_layout(tmp_path):
    """A network built for one takes the other: sizes, order of places, dtype; a comparison matches like with like."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(resnet18().state_dict(), tmp_path / "resnet18-f37072fd.pth")
        sound = VGGishAudio(vggish.VGGish((2, 2, 2, 2, 2, 2), (8, 8)).eval())
    steps = 4  # of the small clip below
    extractor = SequenceExtractor("vggish+resnet18", sound, ResNetVisual(load_resnet18(tmp_path)), steps)
    extractor.to("cpu")
    _, members = record("a", "train", 1)
    sample = Sample(members["json"], {name.removesuffix(".npy"): x for name, x in members.items() if name != "json"})
    with reproducible(), torch.inference_mode():
        ours = {m: features_of(extractor, m, [sample], 64)[0] for m in ("audio", "visual")}
    grid = ours["visual"].astype(np.float32).transpose(0, 2, 1).reshape(steps, 512, 14, 14)
    save(tmp_path / "feats" / "vggish" / "a.npy", ours["audio"].astype(np.float32))
    save(tmp_path / "feats" / "res18_14x14" / "a.npy", grid)  # as the published script saves its maps
    asked = ask(tmp_path / "q.jsonl", {"a": "train"})
    take(tmp_path / "feats", asked, tmp_path / "out", "music-avqa", f"rows={steps}")
    theirs = ShardDataset(tmp_path / "out", "train")[0].arrays
    for modality, values in ours.items():
        assert theirs[modality].dtype == values.dtype
        np.testing.assert_array_equal(theirs[modality], values)
    plan = planned(tmp_path / "feats", asked, "music-avqa", MusicAvqaLayout(rows=steps))
    assert plan.spec == extractor.spec
    assert feature_spec(DatasetInfo.load(tmp_path / "out")).steps == steps
    own = own_features(tmp_path / "own", {"a": ours}, extractor.spec.model_dump())
    cosines = [c for c in compare(tmp_path / "out", own)["visual"]["channels"]["cosine"] if c is not None]
    np.testing.assert_allclose(cosines, 1.0)
