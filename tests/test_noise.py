"""Noise: what each kind does at each severity, and that (seed, sample, draw) alone decide it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from models.conditions import CASES, CONDITIONS, case_of, variant, variant_names
from models.inputs import Normalisation
from models.noise import generator, ruin
from models.settings import KINDS, RELEASED, SEVERITIES, NoiseConfig

pytestmark = pytest.mark.unit

FLOOR = Normalisation().black
EVERY = [(m, kind) for m in KINDS for kind in KINDS[m] if not kind.startswith(RELEASED)]


def sample(modality: str, seed: int = 0) -> Tensor:
    """Something with structure: smooth in time or space, with an edge, of unit scale."""
    rng = np.random.default_rng([seed, 1])
    if modality == "audio":
        t = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
        x = np.cos(t + rng.uniform(0, 6)) * rng.normal(1, 0.3, 128) + rng.normal(0, 0.5, 128)
    else:
        y, x = np.mgrid[:128, :128] / 128
        x = np.stack([np.sin(9 * x * rng.uniform(0.5, 1) + c) + (y > rng.uniform(0.3, 0.7)) for c in range(3)])
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def one(modality: str, kind: str, severity: int, x: Tensor, seed=0, key="clip", draw=0) -> Tensor:
    config = NoiseConfig(**{modality: (kind,)})
    out, drawn = ruin(x, modality, severity, config, seed, key, draw, floor=FLOOR)
    assert drawn == kind
    return out


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("modality", "kind"), EVERY)
def test_shape_and_input_are_kept_and_the_draw_repeats(modality, kind, severity):
    x = sample(modality)
    kept = x.clone()
    out = one(modality, kind, severity, x)
    torch.manual_seed(severity)
    np.random.seed(severity)
    one("audio", "gaussian", 3, sample("audio"), key="something in between")
    assert torch.equal(one(modality, kind, severity, x), out)
    assert torch.equal(x, kept)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.isfinite().all()


@pytest.mark.parametrize(("modality", "kind"), EVERY)
def test_the_global_state_is_left_alone(modality, kind):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    one(modality, kind, 3, sample(modality))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]


@pytest.mark.parametrize("kind", ["gaussian", "time_mask", "time_shift"])
def test_seed_sample_and_draw_each_change_the_noise(kind):
    x = sample("audio")
    outs = [one("audio", kind, 4, x, seed=s, key=k, draw=d) for s in (0, 1) for k in ("a", "b") for d in range(3)]
    different = {out.numpy().tobytes() for out in outs}
    assert len(different) > len(outs) // 2  # two masks or shifts may fall alike, noise never
    assert kind != "gaussian" or len(different) == len(outs)


def test_keys_are_told_apart_however_they_are_cut():
    assert generator("a", "bc").random() != generator("ab", "c").random()
    assert generator("noise", 0, 1).random() == generator("noise", 0, 1).random()


@pytest.mark.parametrize(("modality", "kind"), EVERY)
def test_a_higher_severity_ruins_more(modality, kind):
    """Mean distance from the clean input over 20 samples."""
    distance = []
    for severity in SEVERITIES:
        inputs = [sample(modality, seed) for seed in range(20)]
        ruined = [one(modality, kind, severity, x, key=str(i)) for i, x in enumerate(inputs)]
        distance.append(float(np.mean([(r - x).norm() for r, x in zip(ruined, inputs, strict=True)])))
    assert all(b > 1.02 * a for a, b in itertools.pairwise(distance)), distance
    assert distance[0] > 0


@pytest.mark.parametrize(("share", "severity"), [(0.2, 1), (0.35, 2), (0.5, 3), (0.7, 4), (0.9, 5)])
def test_time_mask_silences_one_run_of_whole_frames(share, severity):
    x = sample("audio") + 10  # no zero in it
    for draw in range(20):
        out = one("audio", "time_mask", severity, x, draw=draw)
        masked = (out == 0).all(dim=1)
        assert torch.equal(out[~masked], x[~masked])
        at = masked.nonzero().squeeze(1)
        assert len(at) == round(share * 64)
        assert int(at[-1] - at[0]) == len(at) - 1


def test_time_shift_rolls_frames_within_its_reach():
    x = sample("audio")
    offsets = set()
    for draw in range(80):
        out = one("audio", "time_shift", 2, x, draw=draw)
        found = [k for k in range(-32, 32) if torch.equal(x.roll(k, dims=0), out)]
        assert len(found) == 1
        offsets.add(found[0])
    assert max(map(abs, offsets)) <= round(0.2 * 64)
    assert min(offsets) < 0 < max(offsets)


def test_audio_noise_acts_on_time_and_not_on_mel():
    """A spectrum that never changes can't be shifted in time, and a mask takes all of its bins."""
    x = torch.arange(1.0, 129).repeat(64, 1)
    assert torch.equal(one("audio", "time_shift", 5, x), x)
    masked = one("audio", "time_mask", 3, x) == 0
    assert torch.equal(masked.any(dim=1), masked.all(dim=1))


def test_black_ends_at_the_floor():
    x = sample("visual")
    assert torch.equal(one("visual", "black", 5, x), FLOOR.expand_as(x))
    torch.testing.assert_close(one("visual", "black", 1, x), (x + FLOOR) / 2)
    norm = Normalisation(visual_mean=(0.1, 0.2, 0.3), visual_std=(0.5, 0.6, 0.7))
    torch.testing.assert_close(norm.picture(np.zeros((1, 8, 8, 3), np.uint8), 0, 8), norm.black.expand(3, 8, 8))


@pytest.mark.parametrize("modality", KINDS)
def test_gaussian_noise_has_the_stated_spread(modality):
    sigmas = {"audio": (0.5, 1, 2, 5, 10), "visual": (0.25, 0.5, 1, 2.5, 5)}[modality]
    x = sample(modality)
    for severity, sigma in zip(SEVERITIES, sigmas, strict=True):
        noise = one(modality, "gaussian", severity, x) - x
        assert float(noise.std()) == pytest.approx(sigma, rel=0.04)
        assert abs(float(noise.mean())) < 0.05 * sigma


@pytest.mark.parametrize("side", [64, 96, 224])
def test_every_severity_of_blur_differs_in_small_pictures_too(side):
    x = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    blurred = [one("visual", "blur", severity, x) for severity in SEVERITIES]
    rough = [float(b.diff(dim=2).std()) for b in blurred]
    assert all(later < 0.95 * before for before, later in itertools.pairwise([float(x.diff(dim=2).std()), *rough]))


@pytest.mark.parametrize(("severity", "half"), [(1, 1), (3, 7), (5, 25)])
def test_blur_is_a_gaussian_convolution(severity, half):
    """At 224 pixels, against a direct 2-D sum with mirrored borders, at some places."""
    x = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    out = one("visual", "blur", severity, x)
    sigma = 0.3 * (half - 1) + 0.8
    at = np.arange(-half, half + 1)
    kernel = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    wide = np.pad(x.numpy().astype(np.float64), ((0, 0), (half, half), (half, half)), mode="reflect")
    for row, column in ((0, 0), (223, 1), (100, 117), (40, 223)):
        patch = wide[:, row : row + 2 * half + 1, column : column + 2 * half + 1]
        expected = (patch * kernel).sum(axis=(1, 2))
        np.testing.assert_allclose(out[:, row, column].numpy(), expected, atol=1e-5)


def test_pixelate_leaves_flat_squares_of_the_mean():
    x = sample("visual")
    out = one("visual", "pixelate", 4, x)  # 13 x 13 pixels
    assert len(out[0].unique()) <= 169
    torch.testing.assert_close(out.mean(), x.mean(), atol=0.05, rtol=0)


def test_every_kind_is_drawn_about_equally_often():
    config = NoiseConfig()
    for modality in KINDS:
        kinds = [ruin(sample(modality), modality, 1, config, 0, str(i), 0)[1] for i in range(240)]
        for kind in getattr(config, modality):
            assert kinds.count(kind) > 0.6 * 240 / len(getattr(config, modality))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"audio": ("hiss",)}, "noise.audio: .*hiss.*choose from gaussian, time_mask"),
        ({"visual": ("time_mask",)}, "noise.visual"),
        ({"visual": ()}, "noise.visual: empty"),
        ({"alone": 6}, "noise.alone: severity 6"),
        ({"both": 0}, "noise.both: severity 0"),
    ],
)
def test_a_wrong_config_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        NoiseConfig(**wrong)


@pytest.mark.parametrize("severity", [0, -1, 6])
def test_a_severity_that_is_none_is_refused(severity):
    with pytest.raises(ValueError, match=f"severity {severity}"):
        ruin(sample("audio"), "audio", severity, NoiseConfig(), 0, "clip", 0)


def test_conditions_name_what_they_ruin():
    noise = dataclasses.replace(NoiseConfig(), alone=4, both=1)
    assert [CONDITIONS[c].severity(noise) for c in CASES] == [4, 4, 4, 1]
    for name in CASES:
        noisy = CONDITIONS[name].noisy
        assert case_of("audio" in noisy, "visual" in noisy) == name == CONDITIONS[name].case
    assert [variant(CONDITIONS[c], "audio", 1) for c in CASES] == ["clean", "alone-1", "clean", "both-1"]
    assert [variant(CONDITIONS[c], "visual", 0) for c in CASES] == ["clean", "clean", "alone-0", "both-0"]
    assert variant_names(2) == ["clean", "alone-0", "alone-1", "both-0", "both-1"]
