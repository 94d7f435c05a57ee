"""Dense training: targets as they are written, what a backbone then holds, and that train clips alone taught it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.backbone import load_backbone
from models.backbone import weights_fingerprint
from pipelines.corpora.synthetic.drawing import draw
from pipelines.corpora.synthetic.ensemble_corpus import target_of
from pipelines.corpora.synthetic.ensembles_2 import Ensembles2Config, describe
from pipelines.corpora.synthetic.sound import synthesise
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.checkpoint import load_checkpoint
from shards.dense_targets import DenseTarget, load_targets, save_targets
from shards.errors import InputError
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS
from tests.fixtures.dense import SIDE, STEPS, dense_world, truth
from tests.test_loop import Killed, Log, assert_equal, train
from trainers.classification.config import DenseConfig, FinetuneConfig, FuseConfig, PromptConfig
from trainers.loop import Rank, train_stage
from trainers.recipes import recipe_of

pytestmark = pytest.mark.integration
SIZES = {"train": 48, "val": 8, "test": 24}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_world(tmp_path_factory.mktemp("dense"), SIZES, less=(3, 20))


def config(root: Path, **changes) -> DenseConfig:
    values = {"data": root / "media", "backbone": root / "run", "targets": root / "targets.jsonl", "side": SIDE}
    return DenseConfig(**{"epochs": 1, "batch_size": 12, "workers": 0, "cpus": 1, **values, **changes})


def trained(settings: DenseConfig, folder: Path) -> Log:
    log = Log()
    (stage,) = recipe_of(settings).stages(settings)
    train_stage(stage, settings, Rank(), folder, log)
    return log


@pytest.fixture(scope="module")
def taught(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Log]:
    folder = tmp_path_factory.mktemp("runs") / "dense"
    return folder, trained(config(world, epochs=16, lr=6e-3), folder)


def test_levels_and_cells_are_those_of_the_moments_and_places_asked_for():
    target = DenseTarget.model_validate(
        {
            "clip": "a",
            "seconds": [{"b": -20.0}, {}, {"a": -30.5, "b": -21.0}],
            "places": [{"class": "a", "x": 0.1, "y": 0.9}, {"class": "b", "x": 1.0, "y": 0.34}],
        }
    )
    nan = np.nan
    found = target.levels(("a", "b"), np.array([0.5, 1.999, 2.0]))
    np.testing.assert_array_equal(found, np.float32([[nan, -20], [nan, nan], [-30.5, -21]]))
    grid = target.cells(("a", "b"), 3)
    assert np.argwhere(grid).tolist() == [[5, 1], [6, 0]]  # row 1 column 2, row 2 column 0
    with pytest.raises(InputError, match="ends after 3 seconds"):
        target.levels(("a",), np.array([3.2]))


@pytest.mark.parametrize("number", range(4))
def test_targets_of_ensembles_are_what_is_drawn_and_synthesised(number):
    """Measured in the sound and the pictures themselves, one performer at a time."""
    scene = describe(Ensembles2Config(clips=10, seconds=5, size=96, fps=2), number)
    target = target_of(scene)
    for sound in scene["sounds"]:
        alone = synthesise({**scene, "sounds": [sound], "noise": {**scene["noise"], "loudness_db": -120.0}})
        power = (alone**2).reshape(5, -1).mean(axis=1)
        plays = [sound["class"] in second for second in target.seconds]
        levels = {second[sound["class"]] for second, there in zip(target.seconds, plays, strict=True) if there}
        assert 10 * np.log10(power[plays].mean()) == pytest.approx(*levels, abs=0.5)
        assert power[plays].sum() > 0.95 * power.sum()
    assert {name for second in target.seconds for name in second} == {sound["class"] for sound in scene["sounds"]}
    empty = draw({**scene, "objects": []}).astype(int)
    for item, place in zip(scene["objects"], target.places, strict=True):
        differs = np.abs(draw({**scene, "objects": [item]}) - empty).sum(axis=-1)[5] > 30  # at the middle of the clip
        y, x = ((np.flatnonzero(differs.any(axis=axis)).mean() + 0.5) / 96 for axis in (1, 0))
        assert (place.name, place.x, place.y) == (item["class"], pytest.approx(x, abs=0.06), pytest.approx(y, abs=0.06))


def test_targets_are_read_as_they_were_written(tmp_path):
    targets = [truth("train", i) for i in range(5)] + [DenseTarget(clip="unknown")]
    path = save_targets(tmp_path / "targets.jsonl", targets)
    assert list(load_targets(path).values()) == targets
    assert json.loads(path.read_text().splitlines()[-1]) == {"clip": "unknown"}


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"clip": "a", "seconds": [{"dog": 3.0}]}', [":2", "seconds.0.dog", "less than or equal to 0"]),
        ('{"clip": "a", "places": [{"class": "dog", "x": 0.5}]}', [":2", "places.0.y", "required"]),
        ('{"clip": "a", "places": [{"class": "dog", "x": 1.5, "y": 0}]}', [":2", "places.0.x"]),
        ('{"clip": "first"}', [":2", "there twice"]),
        ("not json", [":2", "a line is"]),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(tmp_path, line, parts):
    path = tmp_path / "targets.jsonl"
    path.write_text('{"clip": "first"}\n' + line + "\n")
    with pytest.raises(InputError) as found:
        load_targets(path)
    assert [part for part in parts if part not in str(found.value)] == [], found.value


def test_a_backbone_learns_seconds_levels_and_cells(taught):
    _, log = taught
    first, last = log[0][2], log[-1][2]
    assert last["loss"] < first["loss"] / 4
    assert last["val_second_accuracy"] > 0.7, last  # all of three classes; of eight sets the most frequent has 22 %
    assert last["val_cell_accuracy"] > 0.9, last
    assert last["val_level_error"] < 3, last  # guessing the mean errs by 6 dB


def test_its_run_is_a_backbone_of_features_and_of_nothing_else(world, taught):
    folder, _ = taught
    backbone = load_backbone(folder)
    assert backbone.dense
    weights = backbone.net.state_dict()
    mixture = {f"dense.bands.{name}": x for name, x in backbone.bands.state_dict().items()}
    assert backbone.fingerprint == weights_fingerprint(weights | mixture, backbone.net.config.as_dict())
    before = load_backbone(world / "run")
    assert not before.dense
    assert backbone.labels == before.labels
    untouched = [name for name in weights if name.startswith(("blocks_u", "fusion", "mlp_head"))]
    assert untouched
    assert all(torch.equal(weights[name], before.net.state_dict()[name]) for name in untouched)
    out = extract(world / "media", folder, FeatureConfig(extractor="cavmae", side=SIDE, workers=0))
    assert DatasetInfo.load(out).backbone.fingerprint == backbone.fingerprint


@pytest.mark.parametrize(
    ("kind", "field", "more"),
    [(PromptConfig, "backbone", {}), (FinetuneConfig, "start", {}), (FuseConfig, "start", {"method": "masking"})],
)
def test_nothing_that_classifies_begins_with_it(world, taught, kind, field, more):
    """Its head and joint encoder did not learn, and a run's checkpoint would lack its mixture of bands."""
    config = kind(data=world / "media", workers=0, **{field: taught[0]}, **more)
    with pytest.raises(InputError, match=f"field '{field}': learnt densely"):
        recipe_of(config).fingerprints(config)


def test_no_tokens_are_extracted_that_nothing_can_take(world, taught):
    with pytest.raises(InputError, match="field 'backbone': learnt densely"):
        extract(world / "media", taught[0], FeatureConfig(workers=0))
    assert not list((world / "media/features").glob("*-k0"))


def test_a_killed_training_goes_on_to_the_same_bits(world, tmp_path):
    settings = config(world, epochs=2, batch_size=24)
    whole, _ = train(settings, tmp_path / "whole")
    with pytest.raises(Killed):
        train(settings, tmp_path / "halves", 4)  # of two steps an epoch: in the midst of the second
    resumed, later = train(settings, tmp_path / "halves")
    assert_equal(whole, resumed)
    assert [epoch for _, epoch, _ in later] == [2]


def test_clips_outside_train_teach_nothing(world, tmp_path):
    known = load_targets(world / "targets.jsonl")
    save_targets(tmp_path / "train.jsonl", [known[clip] for clip in known if "train" in clip])
    trained(config(world, batch_size=48), tmp_path / "with")
    trained(config(world, batch_size=48, targets=tmp_path / "train.jsonl"), tmp_path / "without")
    found = [load_checkpoint(tmp_path / run / "dense").weights for run in ("with", "without")]
    assert all(torch.equal(x, found[1][name]) for name, x in found[0].items())
    save_targets(tmp_path / "test.jsonl", [known[clip] for clip in known if "train" not in clip])
    with pytest.raises(InputError, match="no clip of the train split"):
        recipe_of(config(world)).fingerprints(config(world, targets=tmp_path / "test.jsonl"))


def test_clips_without_a_target_are_left_out_and_told(world, tmp_path):
    known = list(load_targets(world / "targets.jsonl").values())
    save_targets(tmp_path / "some.jsonl", known[:40])
    some = config(world, targets=tmp_path / "some.jsonl")
    assert recipe_of(some).fingerprints(some).notes == ("8 of 48 train clips have no targets and are left out",)
    (stage,) = recipe_of(some).stages(some)
    assert len(stage.train) == 40
    both = [recipe_of(c).fingerprints(c).data for c in (some, config(world))]
    assert both[0] != both[1]


def test_a_clip_in_which_nobody_is_heard_or_seen_teaches_that_and_one_of_which_nothing_is_known_nothing(
    world, tmp_path
):
    known = list(load_targets(world / "targets.jsonl").values())[:8]
    known[0] = DenseTarget(clip=known[0].clip, seconds=({},) * STEPS)
    known[1] = DenseTarget(clip=known[1].clip)
    known[3] = known[3].model_copy(update={"places": None})  # and it has no sound
    save_targets(tmp_path / "some.jsonl", known)
    some = config(world, targets=tmp_path / "some.jsonl")
    (stage,) = recipe_of(some).stages(some)
    assert [stage.train.data.ids[i] for i in stage.train.positions] == [known[i].clip for i in (0, 2, 4, 5, 6, 7)]
    batch = stage.train.batch([0])
    assert batch.present.tolist() == [[True, False]]
    assert batch.label.isnan().all()
    assert stage.objective(batch).loss > 0


def test_what_is_absent_or_not_annotated_reaches_neither_loss_nor_gradient(world):
    settings = config(world)
    (stage,) = recipe_of(settings).stages(settings)
    batch = stage.train.batch(range(12))
    assert not batch.present.all()
    found = set()
    for value in (float("nan"), 7.0):
        audio, visual = batch.audio.clone(), batch.visual.clone()
        audio[~batch.present[:, 0]], visual[~batch.present[:, 1]] = value, value
        output = stage.objective(dataclasses.replace(batch, audio=audio, visual=visual))
        stage.objective.zero_grad()
        output.loss.backward()
        found.add((output.loss.item(), float(stage.objective.rows.net.patch_embed_a.proj.weight.grad.norm())))
    assert len(found) == 1
    assert np.isfinite(list(found)).all()


def test_a_step_is_the_second_of_its_middle(world):
    (stage,) = recipe_of(config(world)).stages(config(world))
    levels = stage.train[0][3].numpy()
    wanted = [[second.get(name, np.nan) for name in LABELS] for second in truth("train", 0).seconds]
    assert levels.shape == (STEPS, len(LABELS))
    np.testing.assert_array_equal(levels, np.float32(wanted))


@pytest.mark.parametrize("changes", [{"side": 5}, {"targets": Path("none.jsonl")}, {"backbone": Path("none")}])
def test_what_can_not_be_is_refused_before_anything_is_made(world, changes):
    wrong = config(world, **changes)
    with pytest.raises(InputError):
        recipe_of(wrong).fingerprints(wrong)
