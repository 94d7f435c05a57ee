"""RMM: what each way of addressing can do, by its equations and in a fit; the losses; slots from data."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import addressing
from models.avqa.batch import FeatureSpec
from models.avqa.recovery.rmm import RMM, QuestionEncoder
from shards.published_words import released_words
from shards.questions import Vocabulary

pytestmark = pytest.mark.unit

TOY = FeatureSpec(audio=16, visual=4, steps=1, places=4)
SLOTS = 75


def weights(mode: str, audio: int, seed: int = 0) -> torch.Tensor:
    """Weights of 75 slots in recalling the picture from random sounds of so many channels."""
    torch.manual_seed(seed)
    rmm = RMM(FeatureSpec(audio, 2, 1, 1), 9, slots=SLOTS, question=512, addressing=mode)  # type: ignore[arg-type]
    return rmm.address("visual", torch.randn(64, 1, audio), torch.randint(1, 9, (64, 5)))


@torch.no_grad()
def test_released_addressing_is_uniform_to_a_millionth():
    """Softmax of the product of two softmaxes of cosines, at the paper's width: what methods.md prints."""
    found = weights("released", 512)
    assert (found - 1 / SLOTS).abs().max() < 1e-6  # 0.013333 to 0.013334
    assert weights("product", 512).max() > 10 / SLOTS


@torch.no_grad()
def test_paper_addressing_never_lets_a_slot_weigh_more_than_its_bound():
    bound = math.e / (math.e + SLOTS - 1)
    assert bound == pytest.approx(0.0354, abs=1e-4)
    assert weights("paper", 512).max() < 0.0136  # 1 / L is 0.0133
    rmm = RMM(FeatureSpec(8, 2, 1, 1), 9, slots=SLOTS, question=8, addressing="paper")
    sure = torch.zeros(1, 1, SLOTS)
    sure[..., 3] = 1e4  # both agree on one slot, beyond doubt
    assert rmm.weights(sure, sure)[..., 3].item() == pytest.approx(bound)
    assert RMM(FeatureSpec(8, 2, 1, 1), 9, slots=SLOTS, question=8).weights(sure, sure)[..., 3] == 1


@torch.no_grad()
def test_product_is_the_normalised_product_of_both_distributions():
    rmm = RMM(TOY, 9, slots=5, question=8)
    a, b = torch.randn(3, 2, 5), torch.randn(3, 1, 5)
    both = a.softmax(-1) * b.softmax(-1)
    torch.testing.assert_close(rmm.weights(a, b), both / both.sum(-1, keepdim=True))


@pytest.mark.parametrize("places", [1, 196])
@torch.no_grad()
def test_product_scores_start_with_unit_variance_at_any_grid(places):
    torch.manual_seed(0)
    rmm = RMM(FeatureSpec(16, 8, 1, places), 9, slots=200, question=64)
    scores = rmm._scores("visual", torch.randn(50, 1, places * 8))
    assert 0.8 < scores.var() < 1.25


def test_what_a_fit_reaches_under_each_addressing():
    """The order of methods.md section 0: mean and released alike, paper hardly better, product all of it."""
    way = {"spec": TOY, "seed": 0, "steps": 25, "rate": 0.1, "slots": 40}
    mean = addressing.mean_error(TOY, 0)
    released, paper, product = (
        addressing.fit(**way, addressing=mode).error for mode in ("released", "paper", "product")
    )
    assert released == pytest.approx(mean, rel=0.02)
    assert 0.8 * mean < paper < released
    assert product < 0.4 * paper


@torch.no_grad()
def test_slots_taken_from_data_recall_it_at_once():
    spec = FeatureSpec(audio=64, visual=64, steps=1, places=4)
    audio, visual, question = addressing.pairs(spec, 0)
    torch.manual_seed(0)
    rmm = RMM(spec, 9, slots=40, question=32)
    before = rmm.losses(audio, visual, question)["rmmr"].mean()
    rmm.memorise(audio, visual, question)
    assert rmm.losses(audio, visual, question)["rmmr"].mean() < 0.05 * before


@torch.no_grad()
def test_rmmr_is_the_mean_squared_error_of_both_recalls():
    spec = FeatureSpec(audio=3, visual=2, steps=4, places=4, frame_token=True)
    rmm = RMM(spec, 9, slots=5, question=6)
    audio, visual, question = torch.randn(2, 4, 3), torch.randn(2, 4, 5, 2), torch.tensor([[2, 3], [4, 0]])
    expected = [
        (rmm.recall("audio", visual, question) - audio).square().mean(dim=(1, 2)),
        (rmm.recall("visual", audio, question) - visual).square().mean(dim=(1, 2, 3)),
    ]
    torch.testing.assert_close(rmm.losses(audio, visual, question)["rmmr"], expected[0] + expected[1])


@torch.no_grad()
def test_every_step_is_recalled_by_itself_with_its_own_question():
    spec = FeatureSpec(audio=3, visual=2, steps=4, places=1)
    rmm = RMM(spec, 9, slots=5, question=6)
    visual, question = torch.randn(3, 4, 1, 2), torch.tensor([[2, 3], [4, 0], [5, 6]])
    whole = rmm.recall("audio", visual, question)
    for b in range(3):
        for t in range(4):
            one = rmm.recall("audio", visual[b : b + 1, t : t + 1], question[b : b + 1])
            torch.testing.assert_close(one[0, 0], whole[b, t])


@torch.no_grad()
def test_the_question_matters_to_its_last_word():
    encoder = QuestionEncoder(9, 8)
    found = encoder(torch.tensor([[2, 3, 4, 0], [2, 3, 5, 0], [2, 3, 4, 5], [0, 0, 0, 0]]))
    assert found.isfinite().all()
    assert len({tuple(row.tolist()) for row in found}) == 4


@torch.no_grad()
@pytest.mark.parametrize("rule", ["words", "released", "clip", "released+clip", "pieces"])
def test_a_question_s_state_is_that_after_its_last_word_by_every_rule(rule):
    """By torch's LSTM on the ids of one question alone, without padding."""
    texts = ["How many horns?", "Is the horn on the left the loudest of all?", "Horns?"]
    known = ["horns", "horn", *(word for text in texts for word in released_words(text)), "[SEP]", "[UNK]"]
    vocabulary = Vocabulary(words=("<pad>", *dict.fromkeys(known)), answers=("one",), rule=rule)
    encoder = QuestionEncoder(vocabulary.size, 4)
    ids = [vocabulary.encode(text, 14) for text in texts]
    for row, found in zip(ids, encoder(torch.tensor(ids)), strict=True):
        words = torch.tensor([[i for i in row if i]])
        _, (hidden, _) = encoder.lstm(encoder.embedding(words))
        torch.testing.assert_close(found, encoder.norm(hidden[0, 0]))


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"addressing": "cosine"}, "cosine"),
        ({"slots": 0}, "slots"),
        ({"addressing": "paper", "temperature": True}, "paper"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, match):
    with pytest.raises(ValueError, match=match):
        RMM(TOY, 9, **sizes)
