"""Kaldi log-mel filter bank, exactly as CAV-MAE's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

SAMPLE_RATE = 16000  # Hz
WINDOW = 400  # samples: 25 ms
MEL_BINS = 128
FRAME_RATE = 100.0  # frames per second: 10 ms


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Log-mel filter bank of 16 kHz mono sound: mean removed, htk_compat, hanning, no energy, no dither.

    Neither normalised nor padded: both belong to the loader (which has the corpus' statistics).

    Args:
        waveform: int16 [samples].

    Returns:
        float16 [frames, 128], frames = 1 + (samples - 400) // 160.

    Raises:
        ValueError: the sound is shorter than one window of 25 ms, or not int16 [samples].

    Source: CAV-MAE (Gong et al., ICLR 2023), section 3 and its released data loader.
    """
    if waveform.dtype != np.int16 or waveform.ndim != 1:
        raise ValueError(f"int16 [samples] is needed, not {waveform.dtype} {waveform.shape}")
    if len(waveform) < WINDOW:
        raise ValueError(f"{len(waveform)} samples of sound; one window of 25 ms takes {WINDOW}")
    return filter_bank(torch.from_numpy(waveform.astype(np.float32) / 32768.0)).numpy().astype(np.float16)


def filter_bank(sound: Tensor) -> Tensor:
    """`log_mel` of a waveform of -1..1, float32 [samples] -> float32 [frames, 128]."""
    sound = sound - sound.mean()
    return kaldi.fbank(
        sound[None],
        htk_compat=True,
        sample_frequency=SAMPLE_RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=MEL_BINS,
        dither=0.0,
        frame_length=25.0,
        frame_shift=10.0,
    )
