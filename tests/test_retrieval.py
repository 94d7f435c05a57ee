"""Retrieval: the nearest training samples by what is present and the question, never the sample itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.avqa.batch import FeatureSpec
from models.avqa.recovery.retrieval import Retrieval
from models.batch import take_away
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from tests.fixtures.asking import asking_world, question_stages, saved_run, settings
from trainers.avqa.config import AVQAConfig
from trainers.data import epoch_order

pytestmark = pytest.mark.unit
SPEC = FeatureSpec(audio=4, visual=3, steps=2, places=4)
WORDS = 6


def samples() -> tuple[Tensor, Tensor, Tensor]:
    """Three clips whose sounds are at right angles, each with a picture of its own; two ask with word 2."""
    audio = torch.eye(4)[:3, None].expand(-1, 2, -1)
    visual = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1).expand(-1, 2, 4, 3) * torch.tensor([1.0, -1.0, 0.5])
    return audio, visual, torch.tensor([[2, 0], [3, 0], [2, 4]])


def bank(**sizes) -> Retrieval:
    method = Retrieval(SPEC, WORDS, **({"samples": 3, "neighbours": 1} | sizes)).eval()
    method.fill(*samples())
    return method


@torch.no_grad()
def test_the_nearest_by_what_is_present_is_found():
    _, visual, _ = samples()
    near = torch.tensor([0.2, 0.9, 0.1, 0.0]).expand(1, 2, -1)
    found = bank()(near, torch.full((1, 2, 4, 3), torch.nan), torch.tensor([[True, False]]), torch.tensor([[5, 0]]))
    assert torch.equal(found.visual[0], visual[1])
    assert found.present.all()
    deaf, turned = torch.full((1, 2, 4), torch.nan), visual[1:2].roll(1, dims=-1)
    found = bank(neighbours=3)(deaf, turned, torch.tensor([[False, True]]), torch.tensor([[3, 0]]))
    assert found.audio[0, 0].argmax() == 1  # all pictures point the same way: the question decides


@torch.no_grad()
def test_the_question_decides_between_equals():
    equal = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(3, 2, -1)
    question = torch.tensor([[3, 0], [2, 4], [2, 0]])
    assert bank().nearest("visual", equal, question)[1].flatten().tolist() == [1, 2, 0]


@torch.no_grad()
def test_neighbours_weigh_by_a_softmax_of_similarity():
    """By hand: cosines 0.8 and 0.6, no word in common."""
    sound = torch.tensor([0.8, 0.6, 0.0, 0.0]).expand(1, 2, -1)
    weights, chosen = bank(neighbours=2, temperature=0.5).nearest("visual", sound, torch.tensor([[5, 0]]))
    assert chosen.tolist() == [[0, 1]]
    torch.testing.assert_close(weights, torch.tensor([[0.8, 0.6]]).div(0.5).softmax(dim=1))


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_a_sample_does_not_find_itself(training):
    audio, visual, question = samples()
    weights, chosen = bank(neighbours=2).train(training).nearest("visual", audio, question)
    for i in range(3):
        assert weights[i, chosen[i] == i].sum() == 0
        torch.testing.assert_close(weights[i].sum(), torch.tensor(1.0))
    alone = Retrieval(SPEC, WORDS, samples=1, neighbours=1).train(training)
    alone.fill(audio[:1], visual[:1], question[:1])  # nothing else to find: the mean
    assert not alone.retrieve("visual", audio[:1], question[:1]).any()


def test_fewer_training_samples_than_it_is_to_hold_are_refused(tmp_path: Path):
    """Repeated, one sample would be all of its neighbours."""
    asking_world(tmp_path, {"train": 12}, gaps=False)
    config = AVQAConfig(**settings(tmp_path, "avst", "retrieval", recovery_sizes={"samples": 37, "neighbours": 3}))
    with pytest.raises(InputError, match="37 complete training samples are to be held, there are 36") as refused:
        question_stages(config)
    assert refused.value.field == "recovery_sizes.samples"


@torch.no_grad()
@pytest.mark.parametrize("freeze", [(), ("recovery",)], ids=["trains", "frozen"])
def test_no_clip_gets_back_what_training_or_evaluation_takes_away(tmp_path: Path, freeze):
    """All clips are in the bank, and the nearest stands in: that of another clip."""
    asking_world(tmp_path, {"train": 12}, gaps=False)
    sizes = {"samples": 36, "neighbours": 1}
    (stage,) = question_stages(
        AVQAConfig(**settings(tmp_path, "avst", "retrieval", recovery_sizes=sizes, freeze=freeze))
    )
    answerer, rows = stage.objective.answerer, list(range(0, 36, 3))
    batch = answerer.standardise(stage.train.batch(rows))
    for mode in (True, False):
        stage.objective.train(mode)
        for modality in ("audio", "visual"):
            less = take_away(batch, modality)
            found = answerer.recovery(less.audio, less.visual, less.present, less.question)
            given, real = (getattr(x, modality).half() for x in (found, batch))
            own = [[torch.equal(x, y) for y in real] for x in given]
            assert [sum(row) for row in own] == [1] * 12
            assert not any(own[i][i] for i in range(12))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"neighbours": 4}, "neighbours 4"), ({"neighbours": 0}, "neighbours 0"), ({"temperature": 0}, "temperature 0")],
)
def test_sizes_that_can_not_be_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        bank(**sizes)


def test_a_run_fills_its_bank_by_its_seed_and_keeps_it_in_the_checkpoint(tmp_path: Path):
    asking_world(tmp_path, {"train": 12})
    config = AVQAConfig(**settings(tmp_path, "avst", "retrieval"))
    (stage,), (again,) = question_stages(config), question_stages(config)
    (other,) = question_stages(config.model_copy(update={"seed": 1}))
    name = "recovery.bank.audio"
    assert torch.equal(stage.weights()[name], again.weights()[name])
    assert not torch.equal(stage.weights()[name], other.weights()[name])
    rows = stage.train.batch([i for i in range(36) if stage.train.clips.present[stage.train.numbers[i]].all()])
    known = stage.objective.answerer.standardise(rows).audio.half()
    assert all(any(torch.equal(x, y) for y in known) for x in stage.weights()[name])
    folder = saved_run(tmp_path, "retrieval", config)
    assert load_checkpoint(folder / "avqa").weights[name].dtype == torch.float16
    assert stage.meta["trained"] < stage.meta["parameters"]


def test_a_bank_and_negative_frames_hold_nothing_that_is_not_trained_on(tmp_path: Path):
    asking_world(tmp_path, {"train": 12})
    (stage,) = question_stages(AVQAConfig(**settings(tmp_path, "avst", "retrieval", proportion=0.3)))
    trained = epoch_order(stage.train.ids, 0, 0, proportion=0.3).tolist()
    batch = stage.train.batch(trained)
    known = stage.objective.answerer.standardise(batch).audio.half()
    assert len(stage.weights()["recovery.bank.audio"])
    assert all(any(torch.equal(x, y) for y in known) for x in stage.weights()["recovery.bank.audio"])
    frames = batch.visual.flatten(0, 1)
    assert all(any(torch.equal(x, y) for y in frames) for x in batch.negative.flatten(0, 1))
