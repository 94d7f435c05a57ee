"""ActionMAE: what is missing is reconstructed from the other modality, step by step in its place."""

from __future__ import annotations

import pytest
import torch

from models.avqa.batch import FeatureSpec
from models.avqa.recovery.actionmae import ActionMAE
from tests.fixtures.builders import randomise
from tests.test_recovery import PRESENT, features, without

unit, integration = pytest.mark.unit, pytest.mark.integration
SPEC = FeatureSpec(audio=6, visual=5, steps=2, places=9)
SIZES = {"dim": 16, "heads": 2, "depth": 1, "memory": 2}


@integration
def test_it_learns_to_reconstruct_each_modality_from_the_other():
    """Both modalities of a clip tell which of three clips it is; the mean of all has the error of their spread."""
    torch.manual_seed(0)
    codes_a, codes_v = torch.randn(3, 2, 6), torch.randn(3, 2, 9, 5)
    method, question = ActionMAE(SPEC, 9, **SIZES), torch.ones(3, 2).long()
    whole = torch.ones(3, 2, dtype=torch.bool)
    spread = sum((x - x.mean(dim=0)).square().mean() for x in (codes_a, codes_v))
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    for _ in range(80):
        loss = method(codes_a, codes_v, whole, question).losses()["reconstruction"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (method.reconstruct("audio", codes_v) - codes_a).square().mean()
        assert error < 0.1 * codes_a.var(dim=0, correction=0).mean()
    assert loss < spread  # the picture's rows differ by more than a vector a step and one a row can say


@unit
@torch.no_grad()
def test_the_loss_is_both_errors_of_complete_samples():
    method = randomise(ActionMAE(SPEC, 9, **SIZES), 3).eval()
    audio, visual, question = features(SPEC)
    both = PRESENT.all(dim=1)
    expected = (method.reconstruct("audio", visual) - audio).square().mean(dim=(1, 2))
    expected += (method.reconstruct("visual", audio) - visual).square().mean(dim=(1, 2, 3))
    found = method(*without(audio, visual, PRESENT), PRESENT, question).losses()["reconstruction"]
    torch.testing.assert_close(found, expected[both], atol=1e-5, rtol=1e-5)


@unit
@torch.no_grad()
def test_positions_count_and_rows_differ():
    """The released code ignores positions: there, turning the steps round would turn the result round."""
    method = randomise(ActionMAE(SPEC, 9, **SIZES), 3).eval()
    audio, _, _ = features(SPEC)
    found, turned = method.reconstruct("visual", audio), method.reconstruct("visual", audio.flip(1)).flip(1)
    assert not torch.allclose(found, turned, atol=1e-3)
    torch.testing.assert_close(found - found[:, :, :1], (method.places - method.places[:1]).expand_as(found))


@unit
def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="width 16 is not divisible by heads 3"):
        ActionMAE(SPEC, 9, dim=16, heads=3)
