"""ShaSpec: the fused features and both losses by hand, of what is present only."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.recovery.shaspec import ShaSpec
from tests.fixtures.asking import asking_world, question_stages, settings
from tests.fixtures.builders import randomise
from tests.test_recovery import PRESENT, features, without
from trainers.avqa.config import AVQAConfig

pytestmark = pytest.mark.unit
SPEC = FeatureSpec(audio=6, visual=5, steps=2, places=9)


@pytest.fixture
def method() -> ShaSpec:
    built = randomise(ShaSpec(SPEC, 9, dim=8), 3).eval()
    assert isinstance(built, ShaSpec)
    return built


@torch.no_grad()
def test_features_are_fused_and_shared_ones_stand_in(method):
    audio, visual, question = features(SPEC)
    out = method(*without(audio, visual, PRESENT), PRESENT, question)
    for i, m, x in ((0, "audio", audio[:, :, None]), (1, "visual", visual)):
        shared = method.shared(method.entrance[m](x))
        specific = method.specific[m](method.entrance[m](x))
        fused = x + method.exit[m](shared + method.fuse(torch.cat([shared, specific], dim=-1)))
        found = out.audio[:, :, None] if m == "audio" else out.visual
        there = PRESENT[:, i]
        torch.testing.assert_close(found[there], fused[there], atol=1e-5, rtol=1e-5)
    r_visual = method.shared(method.entrance["visual"](visual)).mean(dim=2)
    r_audio = method.shared(method.entrance["audio"](audio))
    deaf, blind = ~PRESENT[:, 0], ~PRESENT[:, 1]
    torch.testing.assert_close(out.audio[deaf], method.exit["audio"](r_visual)[deaf], atol=1e-5, rtol=1e-5)
    spread = method.exit["visual"](r_audio)[:, :, None].expand(-1, -1, 9, -1)
    torch.testing.assert_close(out.visual[blind], spread[blind], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_losses_by_hand(method):
    """L1 of complete samples; the modality named from every specific feature that there is, and no other."""
    audio, visual, question = features(SPEC)
    losses = method(*without(audio, visual, PRESENT), PRESENT, question).losses()
    both = PRESENT.all(dim=1)
    r_audio = method.shared(method.entrance["audio"](audio))
    r_visual = method.shared(method.entrance["visual"](visual)).mean(dim=2)
    expected = (r_audio - r_visual).abs().mean(dim=(1, 2))[both]
    torch.testing.assert_close(losses["shared_l1"], expected, atol=1e-5, rtol=1e-5)
    named = []
    for i, (m, x) in enumerate((("audio", audio[:, :, None]), ("visual", visual))):
        logits = method.which(method.specific[m](method.entrance[m](x)).mean(dim=(1, 2)))
        named.append(F.cross_entropy(logits, torch.full((6,), i), reduction="none"))
    ce = torch.stack(named, dim=1).masked_fill(~PRESENT, 0).sum(dim=1) / PRESENT.sum(dim=1)
    torch.testing.assert_close(losses["modality_ce"], ce, atol=1e-5, rtol=1e-5)


def test_its_losses_fall_and_train_every_encoder(method):
    audio, visual, question = features(SPEC)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    totals = []
    for _ in range(12):
        losses = method(*without(audio, visual, PRESENT), PRESENT, question).losses()
        loss = sum(method.loss_names[name] * x.mean() for name, x in losses.items())
        totals.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert totals[-1] < 0.5 * totals[0]


def test_no_frames_of_other_clips_beside_changed_ones(tmp_path):
    """AVST's match loss would learn which frames were changed: 0.004 after ten epochs, where the others have 0.5."""
    asking_world(tmp_path, {"train": 9})
    drawn = {
        name: question_stages(AVQAConfig(**settings(tmp_path, "avst", name)))[0].train.batch([0]).negative is not None
        for name in ("shaspec", "actionmae", "masking")
    }
    assert drawn == {"shaspec": False, "actionmae": True, "masking": True}
