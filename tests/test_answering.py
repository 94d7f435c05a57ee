"""Every network with every recovery method, from checkpoint to answer: blind to what is absent, alone in its
batch, the same bits every time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.avqa.batch import AVQABatch
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.batch import take_away
from models.settings import MODALITIES
from shards.errors import InputError
from shards.questions import load_questions
from tests.fixtures.asking import RECOVERY_SIZES, SIZES, asking_world, question_stages, saved_run, settings
from tests.fixtures.tiers import told_by
from trainers.answers import Answers
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig, check_sizes
from trainers.avqa.items import QuestionItems
from trainers.avqa.objective import AnswerLoss, divergence
from trainers.avqa.predict import QuestionPredictor, load_answerer
from trainers.confidence import probabilities
from trainers.loop import seeded
from trainers.metrics import StepOutput
from trainers.runs import read_run

unit = pytest.mark.unit
PAIRS = [(n, r) for n in SIZES for r in RECOVERY_SIZES]
every_pair = pytest.mark.parametrize(  # all pairs behave as their halves do: each network by itself, each method once
    ("network", "recovery"),
    told_by(lambda pair: pair[1] == "zero" or pair[0] == "avst", PAIRS, pytest.mark.integration),
)
PRESENT = torch.tensor([[1, 1], [0, 1], [1, 0], [1, 1], [1, 0], [0, 1]], dtype=torch.bool)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 12}, gaps=False)
    return folder


@pytest.fixture(scope="module")
def predictors(root) -> Callable[[str, str], QuestionPredictor]:
    """Runs as training leaves them, every parameter drawn at random; each loaded from its folder alone."""
    made: dict[tuple[str, str], QuestionPredictor] = {}

    def get(network: str, recovery: str) -> QuestionPredictor:
        if (network, recovery) not in made:
            config = AVQAConfig(**settings(root, network, recovery))
            folder = saved_run(root, f"{network}-{recovery}", config)
            made[network, recovery] = load_answerer(read_run(folder), torch.device("cpu"))
        return made[network, recovery]

    return get


@pytest.fixture(scope="module")
def batch(root) -> AVQABatch:
    """Six complete samples with negative frames, and answers to choose from."""
    (stage,) = question_stages(AVQAConfig(**settings(root)))
    found = stage.train.batch(range(0, 36, 6))
    assert isinstance(found, AVQABatch)
    assert 4 not in found.label
    allowed = torch.ones(6, len(stage.meta["vocabulary"]["answers"]), dtype=torch.bool)
    allowed[2:, 4] = False  # no right answer
    return dataclasses.replace(found, allowed=allowed)


def filled(batch: AVQABatch, filling: Callable[[Tensor], Tensor | float]) -> AVQABatch:
    """Something in place of what `PRESENT` says is absent."""
    values = {}
    for i, name in enumerate(("audio", "visual")):
        x = getattr(batch, name)
        there = PRESENT[:, i].view(-1, *[1] * (x.dim() - 1))
        values[name] = torch.where(there, x, filling(x))
    return dataclasses.replace(batch, **values, present=PRESENT)


FILLINGS: dict[str, Callable[[Tensor], Tensor | float]] = {
    "NaN": lambda x: float("nan"),
    "other samples": lambda x: x.roll(1, dims=0),
    "their own content": lambda x: x,
    "infinity": lambda x: float("inf"),
}


@unit
def test_every_member_of_the_registries_has_sizes_for_tests():
    assert set(NETWORKS) == set(SIZES)
    assert set(RECOVERIES) == set(RECOVERY_SIZES)


@every_pair
@torch.inference_mode()
def test_absent_content_reaches_no_answer_and_the_bits_repeat(predictors, batch, network, recovery):
    p = predictors(network, recovery)
    out = {name: p(filled(batch, filling)) for name, filling in FILLINGS.items()}
    reference = out.pop("NaN")
    assert reference[batch.allowed].isfinite().all(), "NaN of an absent modality reached the answers"
    assert (reference[~batch.allowed] == float("-inf")).all()
    for name, logits in out.items():
        assert torch.equal(logits, reference), f"{name} in place of NaN changed the answers"
    torch.manual_seed(77)
    torch.randn(5)
    assert torch.equal(p(filled(batch, FILLINGS["NaN"])), reference), "another state of the global generator"
    again = load_answerer(p.run, torch.device("cpu"))
    assert torch.equal(again(filled(batch, FILLINGS["NaN"])), reference), "loaded again"


@every_pair
@torch.inference_mode()
def test_a_sample_answers_alike_wherever_it_stands_and_alone(predictors, batch, network, recovery):
    p, mixed = predictors(network, recovery), filled(batch, FILLINGS["NaN"])
    whole = p(mixed)
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    torch.testing.assert_close(p(mixed.select(order)), whole[order], atol=1e-5, rtol=1e-5)
    for row in range(6):
        alone = p(mixed.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=1e-5)


class Peeking(torch.nn.Module):
    """A recovery method that leaks on purpose: it cleans NaN away, or fills with the batch's mean."""

    def __init__(self, inner: torch.nn.Module, how: str):
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, audio, visual, present, question):
        if self.how == "cleans":
            audio, visual = audio.nan_to_num(posinf=9.0), visual.nan_to_num(posinf=9.0)
            present = torch.ones_like(present)
        else:
            audio = torch.where(present[:, 0, None, None], audio, audio.nanmean().nan_to_num(posinf=9.0))
            present = torch.stack([torch.ones_like(present[:, 0]), present[:, 1]], dim=1)
        return self.inner(audio, visual, present, question)


@unit
@pytest.mark.parametrize("how", ["cleans", "mean"])
@torch.inference_mode()
def test_the_test_catches_a_method_that_peeks(predictors, batch, how):
    p = load_answerer(predictors("avst", "zero").run, torch.device("cpu"))
    p.answerer.recovery = Peeking(p.answerer.recovery, how)
    out = [p(filled(batch, filling)) for filling in FILLINGS.values()]
    assert not all(torch.equal(x, out[0]) for x in out[1:])


@unit
@torch.inference_mode()
def test_a_specialist_does_not_look_at_its_absent_modality(root, batch):
    config = AVQAConfig(**settings(root, absent="audio"))
    folder = saved_run(root, "specialist", config)
    p = load_answerer(read_run(folder), torch.device("cpu"))
    assert (p.sees(None), p.sees("audio"), p.sees("visual")) == (False, True, False)
    assert torch.equal(p(batch), p(take_away(batch, "audio")))
    assert torch.equal(p(batch), p(dataclasses.replace(batch, audio=batch.audio.roll(1, 0))))


@unit
@torch.no_grad()
def test_a_question_none_of_whose_choices_is_known_is_wrong_and_harms_no_figure(predictors):
    p = predictors("avst", "dropout")
    plain = load_questions(p.config.questions)[0]
    strange = plain.model_copy(update={"answer": "gong", "choices": ("gong", "lyre")})
    batch = QuestionItems(Clips(p.config.data), [plain, strange], p.vocabulary, p.words).batch([0, 1])
    found = Answers.of(batch.index, p(batch), batch.label, ("", ""))
    assert probabilities(found.logits).sum(axis=1) == pytest.approx([1, 1])
    assert not found.right[1]
    assert AnswerLoss(p.answerer, MODALITIES, p.config.weights, distillation=1.0)(batch).loss.isfinite()


@pytest.fixture(params=[("avst", "rmm_avr"), ("pstp", "rmm")], ids="-".join)
def loss(request, root) -> AnswerLoss:
    (stage,) = question_stages(AVQAConfig(**settings(root, *request.param)))
    assert isinstance(stage.objective, AnswerLoss)
    return stage.objective.eval()


def unpacked(output: StepOutput) -> tuple:
    return output.loss, output.logits, output.metrics


@unit
def test_the_objective_is_eq_8(loss, batch):
    """By hand: three cross-entropies, each through the method, and the own losses by their weights."""
    answerer = loss.answerer
    views = [batch, *(take_away(dataclasses.replace(batch, negative=None), m) for m in ("audio", "visual"))]
    expected, aux = torch.zeros(()), {}
    for view in views:
        logits, more = answerer(view)
        aux |= more
        chosen = logits.log_softmax(1)[torch.arange(6), batch.label]
        expected = expected - chosen.mean()
    whole = answerer.standardise(batch)
    own = answerer.recovery(whole.audio, whole.visual, whole.present, whole.question).losses()
    expected = expected + sum(x.mean() for x in own.values())
    if "match" in aux:
        expected = expected + 0.5 * aux["match"].mean()
    total, logits, figures = unpacked(loss(batch))
    assert expected.isfinite()
    torch.testing.assert_close(total, expected)
    assert torch.equal(logits, answerer(batch)[0].detach())
    assert {"ce_complete", "ce_audio_missing", "accuracy_visual_missing", *own, *aux} <= set(figures)
    assert all(figure[1] == 6 for figure in figures.values())


@unit
def test_alternate_missing_every_sample_loses_one_modality(loss, batch):
    """Even rows the sound, odd rows the picture, as when these are trained on by themselves."""
    loss.alternate_missing = True
    _, _, figures = unpacked(loss(batch))
    turns = {"audio": torch.tensor([0, 2, 4]), "visual": torch.tensor([1, 3, 5])}
    for modality, rows in turns.items():
        less = take_away(dataclasses.replace(batch, negative=None).select(rows), modality)
        logits, _ = loss.answerer(less)
        chosen = logits.log_softmax(1)[torch.arange(3), less.label]
        sum_, count = figures[f"ce_{modality}_missing"]
        torch.testing.assert_close(sum_, -chosen.sum().detach())
        assert count == 3


@pytest.fixture
def alternating(root) -> Callable[[bool, int, AVQABatch], StepOutput]:
    """The loss of a step by its number, with turns or without."""
    (stage,) = question_stages(AVQAConfig(**settings(root, "avst", "dropout", distillation=0.5)))
    objective = stage.objective.eval()
    assert isinstance(objective, AnswerLoss)

    def step(turns: bool, number: int, batch: AVQABatch) -> StepOutput:
        objective.alternate_missing = turns
        with torch.no_grad(), seeded(torch.device("cpu"), 0, 0, number, 0):
            return objective(batch)

    return step


@unit
def test_a_complete_sample_alone_loses_either_modality_equally_often(alternating, batch):
    """Beside five that lack one anyway. Within five standard deviations of a fair coin, the same at the same step."""
    mixed = filled(batch, FILLINGS["NaN"]).select(torch.tensor([0, 1, 2, 4, 5]))
    names = {"ce_audio_missing", "ce_visual_missing"}
    taken = [names & set(alternating(True, number, mixed).metrics) for number in range(100)]
    assert all(len(of) == 1 for of in taken)
    assert abs(sum("ce_audio_missing" in of for of in taken) - 50) <= 25
    assert [names & set(alternating(True, number, mixed).metrics) for number in range(9)] == taken[:9]


@unit
@pytest.mark.parametrize("samples", [1, 3, 5])
def test_an_odd_number_of_samples_in_turns_is_expected_to_lose_what_they_lose_without(alternating, batch, samples):
    """The mean over who is first is Eq. 8."""
    some = batch.select(torch.arange(samples))
    found = {round(alternating(True, number, some).loss.item(), 5) for number in range(20)}
    assert len(found) == 2
    assert sum(found) / 2 == pytest.approx(alternating(False, 0, some).loss.item(), abs=2e-5)


@unit
def test_distillation_adds_the_divergence_from_the_complete_answers(loss, batch):
    """By hand; where an answer is not allowed nothing is added, and the complete answers are only taught from."""
    plain, _, _ = unpacked(loss(batch))
    loss.distillation = 0.5
    total, _, figures = unpacked(loss(batch))
    taught = loss.answerer(batch)[0].softmax(1)
    apart = []
    for modality in ("audio", "visual"):
        given = loss.answerer(take_away(dataclasses.replace(batch, negative=None), modality))[0].softmax(1)
        rows = [
            [p * (p / q).log() for p, q in zip(*row, strict=True) if p > 0] for row in zip(taught, given, strict=True)
        ]
        apart.append(torch.stack([torch.stack(row).sum() for row in rows]))
    torch.testing.assert_close(total - plain, 0.5 * sum(x.mean() for x in apart))
    assert figures["distillation"][1] == 12
    assert sum(apart).min() > 0


@unit
def test_only_the_taught_learns_of_a_divergence():
    complete = torch.tensor([[0.0, 2.0, float("-inf")]], requires_grad=True)
    without = torch.tensor([[1.0, 0.0, float("-inf")]], requires_grad=True)
    divergence(complete.detach(), without).sum().backward()
    p, q = (x.detach()[0, :2].softmax(0) for x in (complete, without))
    torch.testing.assert_close(without.grad, torch.tensor([[*(q - p), 0.0]]))
    assert complete.grad is None
    assert divergence(complete, complete).tolist() == [0.0]


@unit
def test_incomplete_samples_keep_what_they_have(loss, batch):
    """Nothing is taken from them, no own loss is theirs, and what their absent rows hold counts nothing."""
    outcomes = []
    for filling in (FILLINGS["NaN"], FILLINGS["infinity"]):
        loss.zero_grad()
        total, logits, figures = unpacked(loss(filled(batch, filling)))
        total.backward()
        grads = [p.grad for p in loss.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        outcomes.append((total.detach(), logits, *grads))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    counts = {name: int(figure[1]) for name, figure in figures.items()}
    assert counts["ce_complete"] == 6
    assert {count for name, count in counts.items() if name != "ce_complete"} == {2}


@unit
def test_a_batch_without_a_complete_sample_still_trains(loss, batch):
    total, _, figures = unpacked(loss(filled(batch, FILLINGS["NaN"]).select(torch.tensor([1, 2]))))
    total.backward()
    assert total.isfinite()
    assert set(figures) == {"ce_complete"}


@unit
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sizes": {"dimm": 8}}, ["sizes: unknown size 'dimm'", "did you mean 'dim'"]),
        ({"recovery": "rmm", "recovery_sizes": {"slot": 8}}, ["unknown size 'slot'", "mean 'slots'"]),
        (
            {"recovery": "rmm_avr", "recovery_sizes": {"avr": {"step": 8}}},
            ["unknown size 'step'", "mean 'steps'"],
        ),
        ({"recovery": "rmm", "recovery_sizes": {}, "absent": "audio"}, ["specialist"]),
        ({"network": "avstt"}, ["'avst'"]),
        ({"recovery": "rmm", "alternate_missing": True, "batch_size": 1}, ["batch_size", "at least 2"]),
        ({"distillation": 1.0}, ["distillation", "nobody to teach", "give missing"]),
    ],
)
def test_a_config_that_can_not_be_is_refused(root, changes, parts):
    with pytest.raises(ValueError) as error:
        AVQAConfig(**settings(root) | changes)
    assert [part for part in parts if part not in str(error.value)] == []


@unit
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sizes": {"dim": 15}}, ["field 'sizes'"]),
        ({"freeze": ("network",)}, ["nothing is left to train", "field 'freeze'"]),
        ({"questions": Path("none.jsonl")}, ["none.jsonl"]),
    ],
)
def test_what_only_the_data_tell_is_an_input_error(root, changes, parts):
    with pytest.raises(InputError) as error:
        question_stages(AVQAConfig(**settings(root) | changes))
    assert [part for part in parts if part not in str(error.value)] == []


@unit
def test_every_size_of_a_part_can_be_checked():
    check_sizes(RECOVERIES["rmm_avr"], {"rmm": {"addressing": "paper"}, "avr": {"steps": 2}})
    with pytest.raises(ValueError, match="'addressed'"):
        check_sizes(RECOVERIES["rmm_avr"], {"rmm": {"addressed": "paper"}})
