"""The log-mel filter bank against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from models.fbank import log_mel

pytestmark = pytest.mark.unit


def test_equals_cav_maes_recipe():
    sound = (np.random.default_rng(0).normal(size=16000) * 3000 + 500).astype(np.int16)
    wave = torch.tensor(sound)[None].float() / 32768
    wave = wave - wave.mean()
    expected = kaldi.fbank(
        wave, htk_compat=True, sample_frequency=16000, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    bank = log_mel(sound)
    assert bank.dtype == np.float16
    assert bank.shape == (98, 128)
    np.testing.assert_allclose(bank.astype(np.float32), expected.numpy(), atol=0.01)


def test_a_tone_is_where_it_should_be():
    times = np.arange(16000) / 16000
    peaks = [log_mel((np.sin(2 * np.pi * f * times) * 9000).astype(np.int16)).mean(0).argmax() for f in (300, 3000)]
    mel = lambda f: 1127 * np.log(1 + f / 700)  # noqa: E731
    expected = [(mel(f) - mel(20)) / (mel(8000) - mel(20)) * 129 - 1 for f in (300, 3000)]
    np.testing.assert_allclose(peaks, expected, atol=1.5)


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (559, 1), (560, 2)])
def test_frames(samples, frames):
    assert log_mel(np.ones(samples, np.int16)).shape == (frames, 128)


def test_less_than_a_window_and_other_types_are_errors():
    with pytest.raises(ValueError, match="400"):
        log_mel(np.zeros(399, np.int16))
    with pytest.raises(ValueError, match="int16"):
        log_mel(np.zeros(800, np.float32))
