"""Recovery methods: blind to what is absent, one sample at a time, the same bits again."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Recovered
from models.avqa.recovery import RECOVERIES
from models.avqa.recovery.avr import AVR
from models.avqa.recovery.filling import filled
from tests.fixtures.builders import randomise
from tests.fixtures.tiers import told_by

unit, integration = pytest.mark.unit, pytest.mark.integration

NAN = float("nan")
WORDS = 9
GRID = FeatureSpec(audio=6, visual=5, steps=2, places=9)
TOKEN = FeatureSpec(audio=6, visual=5, steps=2, places=4, frame_token=True)
SPECS = {"grid": GRID, "frame token": TOKEN}
RMM_SIZES: dict[str, Any] = {"slots": 4, "question": 8}
AVR_SIZES: dict[str, Any] = {"channels": 8, "width": 8, "timesteps": 6}
BOTH: dict[str, Any] = {"rmm": RMM_SIZES, "avr": AVR_SIZES}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero": ("zero", {}),
    "rmm": ("rmm", RMM_SIZES),
    "rmm, paper": ("rmm", RMM_SIZES | {"addressing": "paper"}),
    "rmm, released": ("rmm", RMM_SIZES | {"addressing": "released"}),
    "rmm, temperature": ("rmm", RMM_SIZES | {"temperature": True}),
    "avr": ("avr", AVR_SIZES),
    "avr, as printed": ("avr", AVR_SIZES | {"linear": False}),
    "avr, v, ancestral, three steps": (
        "avr",
        AVR_SIZES | {"prediction": "v", "eta": 1.0, "start": 5, "steps": 3},
    ),
    "avr, released U-Net": ("avr", AVR_SIZES | {"unet": "released", "multipliers": (1,)}),
    "avr_released": ("avr_released", AVR_SIZES | {"timesteps": 3, "multipliers": (1,)}),
    "rmm + avr": ("rmm_avr", BOTH),
    "dropout": ("dropout", {}),
    "masking": ("masking", {}),
    "retrieval": ("retrieval", {"samples": 7, "neighbours": 3}),
    "shaspec": ("shaspec", {"dim": 8}),
    "actionmae": ("actionmae", {"dim": 8, "heads": 2, "memory": 2}),
    "rmm + avr, short gradient": ("rmm_avr", {"rmm": RMM_SIZES, "avr": AVR_SIZES | {"gradient_steps": 1}}),
}
LOSSES = {  # of the methods that have any
    "rmm": {"rmmr"},
    "avr": {"ave"},
    "avr_released": {"ave"},
    "rmm_avr": {"rmmr", "ave"},
    "shaspec": {"shared_l1", "modality_ce"},
    "actionmae": {"reconstruction"},
}
OF_ALL = {"modality_ce"}  # losses of incomplete samples, too
MIXED = [[1, 1], [0, 1], [1, 0], [1, 1], [1, 0], [0, 1]]
PATTERNS = {"mixed": MIXED, "no audio": [[0, 1]] * 6, "no visual": [[1, 0]] * 6}
PRESENT = torch.tensor(MIXED, dtype=torch.bool)
WHOLE = torch.ones(6, 2, dtype=torch.bool)


def fresh(name: str, spec: FeatureSpec = GRID) -> Any:
    """A method with every parameter drawn at random, in evaluation mode."""
    kind, sizes = METHODS[name]
    return randomise(RECOVERIES[kind](spec, WORDS, **sizes), 1).eval()


method = lru_cache(fresh)  # for forward passes alone


def features(spec: FeatureSpec = GRID, n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    audio = torch.randn(n, spec.steps, spec.audio, generator=rng)
    visual = torch.randn(n, spec.steps, spec.rows, spec.visual, generator=rng)
    question = torch.randint(1, WORDS, (n, 5), generator=rng)
    question[::2, 3:] = 0
    return audio, visual, question


def without(audio: Tensor, visual: Tensor, present: Tensor, filling: str = "NaN") -> tuple[Tensor, Tensor]:
    """The features with something else where `present` says absent."""
    of = {
        "NaN": lambda x: NAN,
        "other samples": lambda x: x.roll(1, dims=0),
        "their own content": lambda x: x,
        "huge values": lambda x: 1e30,
        "infinity": lambda x: float("inf"),
    }[filling]
    a = torch.where(present[:, 0].view(-1, 1, 1), audio, of(audio))
    return a, torch.where(present[:, 1].view(-1, 1, 1, 1), visual, of(visual))


def seen(out: Recovered) -> Recovered:
    """What a network may read: 0 in place of what is absent."""
    audio = torch.where(out.present[:, 0].view(-1, 1, 1), out.audio, 0.0)
    return Recovered(audio, torch.where(out.present[:, 1].view(-1, 1, 1, 1), out.visual, 0.0), out.present)


def same(one: Recovered, other: Recovered) -> bool:
    return all(torch.equal(getattr(one, x), getattr(other, x)) for x in ("audio", "visual", "present"))


def assert_blind(model: nn.Module, spec: FeatureSpec, present: Tensor) -> None:
    audio, visual, question = features(spec)
    reference = seen(model(*without(audio, visual, present), present, question))
    for x in (reference.audio, reference.visual):
        assert x.isfinite().all(), "NaN reached the output"
    for filling in ("other samples", "their own content", "huge values", "infinity"):
        again = seen(model(*without(audio, visual, present, filling), present, question))
        assert same(again, reference), f"{filling} in place of NaN changed the output"


@pytest.mark.parametrize(
    ("name", "pattern"),
    told_by(lambda case: case[1] == "mixed" or case[0] in RECOVERIES, itertools.product(METHODS, PATTERNS)),
)
@torch.no_grad()
def test_absent_content_reaches_no_output(name, pattern):
    assert_blind(method(name), GRID, torch.tensor(PATTERNS[pattern], dtype=torch.bool))


@unit
@pytest.mark.parametrize("name", RECOVERIES)
@torch.no_grad()
def test_absent_frame_tokens_reach_no_output(name):
    assert_blind(method({"rmm_avr": "rmm + avr"}.get(name, name), TOKEN), TOKEN, PRESENT)


class Peeking(nn.Module):
    """Leaks on purpose: fills after multiplying by the mask, or by what the batch holds on average."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        whole = torch.ones_like(present)
        if self.how == "mask":
            return Recovered(audio * present[:, 0].view(-1, 1, 1), visual.nan_to_num(), whole)
        clean = audio.nan_to_num().clamp(-9, 9)
        return Recovered(clean, filled(visual, (~present[:, 1]).nonzero().squeeze(1), clean.mean()), whole)


@unit
@pytest.mark.parametrize("how", ["mask", "mean"])
@torch.no_grad()
def test_the_test_catches_a_method_that_peeks(how):
    with pytest.raises(AssertionError, match=r"(changed|reached) the output"):
        assert_blind(Peeking(how), GRID, PRESENT)


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_complete_samples_pass_unchanged_and_a_recalled_counterpart_too(name):
    audio, visual, question = features()
    out = seen(method(name)(*without(audio, visual, PRESENT), PRESENT, question))
    complete = PRESENT.all(dim=1)
    if name == "shaspec":  # changes everything: the fused features stand in for what is present, too
        assert not torch.isclose(out.audio[complete], audio[complete]).any()
        return
    assert torch.equal(out.audio[complete], audio[complete])
    assert torch.equal(out.visual[complete], visual[complete])
    enhances = "avr" in name and name != "avr_released"  # both modalities of an incomplete sample, Eq. 8
    assert torch.equal(out.audio[PRESENT[:, 0]], audio[PRESENT[:, 0]]) != enhances
    assert torch.equal(out.visual[PRESENT[:, 1]], visual[PRESENT[:, 1]]) != enhances


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_permuting_the_batch_permutes_outputs_and_losses(name):
    model, (audio, visual, question) = method(name), features()
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    a, v = without(audio, visual, PRESENT)
    out = seen(model(a, v, PRESENT, question))
    moved = seen(model(a[order], v[order], PRESENT[order], question[order]))
    torch.testing.assert_close(moved.audio, out.audio[order], atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(moved.visual, out.visual[order], atol=5e-6, rtol=1e-5)
    losses = model(audio, visual, WHOLE, question).losses()
    of_moved = model(audio[order], visual[order], WHOLE, question[order]).losses()
    assert of_moved.keys() == losses.keys()
    for loss, value in of_moved.items():
        assert value.shape == (6,)
        torch.testing.assert_close(value, losses[loss][order], atol=5e-6, rtol=1e-5)


@integration
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours(name):
    """Bit for bit at its place, whatever the others are; and alone, but for rounding."""
    model, (audio, visual, question) = method(name), features()
    other_audio, other_visual, other_question = features(seed=9)
    out = seen(model(*without(audio, visual, PRESENT), PRESENT, question))
    for row in (1, 2):
        one = [x.clone() for x in (other_audio, other_visual, other_question)]
        for mine, theirs in zip((audio, visual, question), one, strict=True):
            theirs[row] = mine[row]
        beside = seen(model(*without(one[0], one[1], PRESENT), PRESENT, one[2]))
        assert torch.equal(beside.audio[row], out.audio[row])
        assert torch.equal(beside.visual[row], out.visual[row])
        at = slice(row, row + 1)
        alone = seen(model(*without(audio[at], visual[at], PRESENT[at]), PRESENT[at], question[at]))
        torch.testing.assert_close(alone.audio[0], out.audio[row], atol=5e-6, rtol=1e-5)
        torch.testing.assert_close(alone.visual[0], out.visual[row], atol=5e-6, rtol=1e-5)


@integration
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_results_repeat_to_the_bit_across_calls_modes_and_models(name):
    model, (audio, visual, question) = fresh(name), features()
    inputs = (*without(audio, visual, PRESENT), PRESENT, question)
    first = seen(model(*inputs))
    torch.manual_seed(99)
    torch.rand(7)
    assert same(seen(model(*inputs)), first)
    assert same(seen(model.train()(*inputs)), first)  # nothing drops out, nothing is drawn
    twin = method(name)
    twin.load_state_dict(model.state_dict())
    assert same(seen(twin(*inputs)), first)


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_padding_after_a_question_changes_nothing(name):
    model, (audio, visual, question) = method(name), features()
    longer = torch.cat([question, torch.zeros(6, 4, dtype=torch.int64)], dim=1)
    inputs = (*without(audio, visual, PRESENT), PRESENT)
    one, other = seen(model(*inputs, question)), seen(model(*inputs, longer))
    torch.testing.assert_close(one.audio, other.audio, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.visual, other.visual, atol=1e-6, rtol=0)


@unit
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_and_reach_every_parameter(name):
    model, (audio, visual, question) = fresh(name), features()
    a, v = without(audio, visual, PRESENT)
    a.requires_grad_()
    v.requires_grad_()
    out = seen(model(a, v, PRESENT, question))
    own = model(a, v, PRESENT, question).losses() if name == "shaspec" else {}  # a head that serves a loss alone
    (out.audio.square().sum() + out.visual.square().sum() + sum(x.sum() for x in own.values())).backward()
    for p_name, p in ((n, p) for n, p in model.named_parameters() if p.requires_grad):
        assert p.grad is not None, p_name
        assert p.grad.isfinite().all(), p_name
        assert p.grad.any(), p_name
    for x, there in zip((a, v), PRESENT.T, strict=True):
        assert x.grad.isfinite().all()
        assert x.grad[there].any()
        assert not x.grad[~there].any()  # neither NaN nor anything else


@unit
@pytest.mark.parametrize("name", [name for name in METHODS if name != "masking"])  # there the network refuses
@torch.no_grad()
def test_a_sample_with_neither_modality_is_refused(name):
    with pytest.raises(ValueError, match="neither"):
        method(name)(*features()[:2], torch.tensor([[1, 1], [0, 0]] * 3).bool(), features()[2])


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_losses_are_those_declared_and_of_complete_samples(name):
    kind = METHODS[name][0]
    names = LOSSES.get(kind, set())
    assert set(RECOVERIES[kind].loss_names) == names
    audio, visual, question = features()
    found = method(name)(*without(audio, visual, PRESENT), PRESENT, question).losses()
    rows = PRESENT.all(dim=1)
    alone = method(name)(audio[rows], visual[rows], WHOLE[rows], question[rows]).losses()
    assert set(found) == names
    same = {"atol": 0.0, "rtol": 0.0}
    if kind == "shaspec":  # its projections are of batches of other sizes
        same = {"atol": 1e-6, "rtol": 1e-5}
    for n in names:
        of_them = found[n][rows] if n in OF_ALL else found[n]
        assert len(found[n]) == (6 if n in OF_ALL else 2)
        torch.testing.assert_close(of_them, alone[n], **same)
    lacking = torch.tensor(PATTERNS["no audio"], dtype=torch.bool)
    assert method(name)(*without(audio, visual, lacking), lacking, question).losses().keys() == names & OF_ALL


@unit
@torch.no_grad()
def test_zero_fill_is_zero_where_absent():
    audio, visual, question = features()
    out = method("zero")(*without(audio, visual, PRESENT), PRESENT, question)
    assert not out.audio[~PRESENT[:, 0]].any()
    assert not out.visual[~PRESENT[:, 1]].any()


@unit
@torch.no_grad()
def test_the_two_stages_are_rmm_then_avr():
    model, (audio, visual, question) = method("rmm + avr"), features()
    out = model(*without(audio, visual, PRESENT), PRESENT, question)
    row = 1  # lacks its sound
    recalled = model.rmm.recall("audio", visual[row : row + 1], question[row : row + 1])
    better = model.avr.enhance(recalled, visual[row : row + 1])
    torch.testing.assert_close(out.audio[row], better.audio[0], atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(out.visual[row], better.visual[0], atol=5e-6, rtol=1e-5)
    assert isinstance(model.avr, AVR)
