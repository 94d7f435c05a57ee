"""The released noise against a short formula of each kind, with the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, uniform_filter

from configs import load_config
from models.noise import ruin
from models.settings import KINDS, NOISE_PRESETS, NoiseConfig
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from trainers.classification.config import EvaluateConfig, FinetuneConfig

pytestmark = pytest.mark.unit
BOTH, ALONE = 2, 5  # severities
FBANK = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (40, 128)).astype(np.float32))
PICTURE = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (3, 60, 60)).astype(np.float32)).cumsum(dim=2) / 9


def released(kind: str, modality: str, x: torch.Tensor, severity: int, seed: int = 0) -> np.ndarray:
    return KINDS[modality][f"released_{kind}"](x, severity, np.random.default_rng(seed)).numpy()  # type: ignore[index]


@pytest.mark.parametrize(("severity", "sigma"), [(ALONE, 10.0), (BOTH, 1.0)])
def test_gaussian_on_the_sound(severity, sigma):
    drawn = np.random.default_rng(0).standard_normal((40, 128), dtype=np.float32)
    assert np.allclose(released("gaussian", "audio", FBANK, severity), FBANK.numpy() + sigma * drawn, atol=1e-5)


@pytest.mark.parametrize(("severity", "sigma"), [(ALONE, 5.0), (BOTH, 0.5)])
def test_gaussian_on_the_picture_is_cut_at_three(severity, sigma):
    drawn = np.random.default_rng(0).standard_normal((3, 60, 60), dtype=np.float32)
    expected = np.clip(PICTURE.numpy() + sigma * drawn, -3, 3)
    assert np.allclose(released("gaussian", "visual", PICTURE, severity), expected, atol=1e-5)


def test_shift_rolls_mel_bins_by_up_to_half():
    found, x = set(), FBANK[:3].numpy()
    for seed in range(300):
        out = released("shift", "audio", FBANK[:3], ALONE, seed)
        moved = int(np.flatnonzero(out[0] == x[0, 0])[0])
        assert np.array_equal(np.roll(x, moved, axis=1), out)
        found.add(moved if moved < 64 else moved - 128)
    assert -64 <= min(found) <= -56
    assert 56 <= max(found) <= 63
    assert len(found) > 100
    frames = FBANK[:, :1].expand(40, 128)
    assert torch.equal(torch.from_numpy(released("shift", "audio", frames, ALONE)), frames), "time does not move"


def test_mask_silences_mel_bins_in_every_frame():
    widths, x = [], FBANK.abs() + 1
    for seed in range(200):
        gone = released("time_mask", "audio", x, BOTH, seed) == 0
        assert (gone == gone[0]).all(), "whole bins"
        at = np.flatnonzero(gone[0])
        widths.append(len(at))
        assert len(at) == 0 or at[-1] - at[0] + 1 == len(at)
    assert min(widths) == 0
    assert 28 < max(widths) <= 31


def test_black_is_the_mean():
    assert (released("black", "visual", PICTURE, ALONE) == 0).all()


@pytest.mark.parametrize(("severity", "size"), [(ALONE, 51), (BOTH, 7)])
def test_blur_is_a_box_with_zeros_around(severity, size):
    expected = uniform_filter(PICTURE.numpy(), (1, size, size), mode="constant")
    assert np.allclose(released("blur", "visual", PICTURE, severity), expected, atol=1e-4)


@pytest.mark.parametrize(("severity", "factor", "small"), [(ALONE, 0.05, 3), (BOTH, 0.3, 18)])
def test_pixelate_looks_up_bilinearly_and_enlarges_by_nearest(severity, factor, small):
    at = (np.arange(small) + 0.5) / factor - 0.5
    shrunk = [map_coordinates(plane, np.meshgrid(at, at, indexing="ij"), order=1) for plane in PICTURE.numpy()]
    nearest = np.arange(60) * small // 60
    expected = np.stack(shrunk)[:, nearest][:, :, nearest]
    assert np.allclose(released("pixelate", "visual", PICTURE, severity), expected, atol=1e-4)


def test_as_it_runs_the_picture_is_always_the_mean_and_sounds_are_drawn_alike():
    config = NOISE_PRESETS["released"]
    kinds = [ruin(FBANK, "audio", 5, config, 0, str(i), 0)[1] for i in range(300)]
    assert all(70 < kinds.count(f"released_{kind}") < 130 for kind in ("gaussian", "shift", "time_mask"))
    for i in range(5):
        out, kind = ruin(PICTURE, "visual", 5, config, 0, str(i), 0, floor=torch.full((3, 1, 1), -2.0))
        assert kind == "released_black"
        assert not out.any()


def test_a_name_stands_for_the_settings():
    config = load_config(EvaluateConfig, None, ["noise=released"])
    assert config.noise is not None
    assert config.noise.build() == NOISE_PRESETS["released"]
    assert load_config(EvaluateConfig, None, ["protocol=released"]).noise == config.noise
    assert load_config(FinetuneConfig, None, ["data=x", "noise=released"]).noise == config.noise
    assert load_config(FeatureConfig, None, ["noise=released_kinds"]).noise.visual[0] == "released_gaussian"
    assert NOISE_PRESETS["ours"] == NoiseConfig()
    with pytest.raises(InputError, match="did you mean 'released'"):
        load_config(EvaluateConfig, None, ["noise=release"])
    with pytest.raises(InputError, match="two strengths"):
        load_config(EvaluateConfig, None, ["noise.visual=[released_blur]", "noise.alone=4"])
