"""Networks attend around an absent modality: nothing of it is read, in values or gradients, and the rest counts.

Every network with a method that fills in and with one that bypasses (nothing in front of the network).
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from models.avqa.contract import Recovered
from models.avqa.recovery import RECOVERIES
from tests.fixtures.tiers import told_by
from tests.test_networks import ANSWERS, BATCH, GRID, TOKEN, WORDS, built, every_network, inputs

unit = pytest.mark.unit
NAN = float("nan")
PRESENT = torch.tensor([[1, 1], [0, 1], [1, 0]], dtype=torch.bool)
PATTERNS = {"mixed": PRESENT, "no audio": PRESENT[[1, 1, 1]], "no visual": PRESENT[[2, 2, 2]]}
FILLINGS = (NAN, float("inf"), 1e30, 0.0)
SPECS = {"grid": GRID, "frame token": TOKEN}
CASES = [(pattern, filled, rows) for pattern in PATTERNS for filled in (True, False) for rows in SPECS]
TELLING = [("mixed", True, "grid"), ("mixed", False, "frame token"), *((name, False, "grid") for name in PATTERNS)]
every_case = pytest.mark.parametrize(("pattern", "filled", "rows"), told_by(TELLING.__contains__, CASES))


def replaced(x: Tensor, there: Tensor, filling: float) -> Tensor:
    return torch.where(there.view(-1, *[1] * (x.dim() - 1)), x, filling).requires_grad_()


def answered(net: nn.Module, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor, filled: bool) -> Tensor:
    seen = Recovered(audio, visual, present)
    if filled:
        seen = RECOVERIES["zero"](GRID, WORDS)(audio, visual, present, question)
    return net(seen.audio, seen.visual, seen.present, question)[0]


@every_network
@every_case
def test_nothing_absent_reaches_output_or_gradients(name, pattern, filled, rows):
    spec, present = SPECS[rows], PATTERNS[pattern]
    net, (audio, visual, question, _) = built(name, spec), inputs(spec)
    outcomes = []
    for filling in FILLINGS:
        net.zero_grad()
        a, v = replaced(audio, present[:, 0], filling), replaced(visual, present[:, 1], filling)
        logits = answered(net, a, v, present, question, filled)
        logits.square().sum().backward()
        for x, there in ((a, present[:, 0]), (v, present[:, 1])):
            if x.grad is not None:
                assert x.grad.isfinite().all()
                assert not x.grad[~there].any()
                assert not there.any() or x.grad[there].any()
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        assert all(x.isfinite().all() for x in (logits, *grads))
        outcomes.append([logits, *grads])
    for one, other in pairwise(outcomes):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@unit
@torch.no_grad()
@every_network
def test_a_sample_s_answer_does_not_depend_on_what_its_neighbours_lack(name):
    net, (audio, visual, question, _) = built(name), inputs()
    a, v = replaced(audio, PRESENT[:, 0], NAN), replaced(visual, PRESENT[:, 1], NAN)
    logits = net(a, v, PRESENT, question)[0]
    order = torch.tensor([2, 0, 1])
    moved = net(a[order], v[order], PRESENT[order], question[order])[0]
    torch.testing.assert_close(moved, logits[order], atol=2e-6, rtol=1e-5)
    for i in range(BATCH):
        at = slice(i, i + 1)
        alone = net(a[at], v[at], PRESENT[at], question[at])[0]
        torch.testing.assert_close(alone, logits[at], atol=2e-6, rtol=1e-5)
    assert torch.equal(net(a, v, PRESENT, question)[0], logits)


@unit
@torch.no_grad()
@every_network
def test_attending_around_is_not_zero_fill_and_the_rest_is_attended_to(name):
    net, (audio, visual, question, _) = built(name), inputs()
    for pattern in ("no audio", "no visual"):
        present = PATTERNS[pattern]
        around = answered(net, audio, visual, present, question, filled=False)
        assert not torch.allclose(around, answered(net, audio, visual, present, question, filled=True), atol=1e-4)
        other = answered(net, audio.roll(1, 0), visual.roll(1, 0), present, question, filled=False)
        assert not torch.allclose(around, other, atol=1e-5)
        reworded = answered(net, audio, visual, present, question.roll(1, 0), filled=False)
        assert not torch.allclose(around, reworded, atol=1e-5)


@unit
@torch.no_grad()
@every_network
def test_a_sample_with_neither_modality_is_refused(name):
    net, (audio, visual, question, _) = built(name), inputs()
    with pytest.raises(ValueError, match="neither"):
        net(audio, visual, torch.tensor([[1, 1], [0, 0], [1, 0]]).bool(), question)


@unit
@torch.no_grad()
def test_avst_without_a_modality_by_hand():
    """The branch of what is absent adds nothing to the fusion; without sound all places weigh the same."""
    net, (audio, visual, question, _) = built("avst"), inputs()
    asked, _, _ = net.question(question)
    nothing = torch.zeros_like(asked)

    def fused(heard: Tensor, seen: Tensor) -> Tensor:
        return net.answer((net.fuse(torch.cat([heard, seen], dim=1).tanh()) * asked).tanh())

    grid = net.visual(visual)
    scaled = grid / grid.norm(dim=-1, keepdim=True)
    frame = net.frame(torch.cat([grid.mean(dim=2), scaled.mean(dim=2)], dim=-1).tanh())
    deaf = net(audio, visual, PATTERNS["no audio"], question)[0]
    torch.testing.assert_close(deaf, fused(nothing, net.attend_visual(asked, frame)))
    blind = net(audio, visual, PATTERNS["no visual"], question)[0]
    torch.testing.assert_close(blind, fused(net.attend_audio(asked, net.audio(audio)), nothing))


@unit
def test_the_match_loss_is_that_of_samples_with_both():
    net, (audio, visual, question, negative) = built("avst"), inputs()
    whole = net(audio, visual, torch.ones_like(PRESENT), question, negative)[1]["match"]
    part = net(replaced(audio, PRESENT[:, 0], NAN), visual, PRESENT, question, negative)
    torch.testing.assert_close(part[1]["match"], torch.where(PRESENT.all(dim=1), whole, 0.0))
    assert part[0].shape == (BATCH, ANSWERS)
