"""Mixtures of two clips: waveforms and pictures by one share, as the released fine-tuning of CAV-MAE has them.

Its fault, both pictures looked for under the first clip's path, is not repeated: the second is the other clip's.
Shapes: T samples of sound at 16 kHz, F fbank frames.
"""

from __future__ import annotations

import numpy as np
import torch

from models.fbank import filter_bank
from models.noise import generator

ALPHA = 10.0  # of the Beta distribution that shares are drawn from


def partner(seed: int, epoch: int, key: str, rate: float, count: int) -> tuple[int, float] | None:
    """Which of `count` clips, in the order of their ids' hashes, one is mixed with in an epoch, and its own share;
    None: it stays alone."""
    rng = generator("mixup", seed, epoch, key)
    if rng.random() >= rate:
        return None
    return int(rng.integers(count)), float(rng.beta(ALPHA, ALPHA))


def mixed_sound(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Filter bank of a mixture, float32 [F, 128]: `share` of the first's waveform and the rest of the second's, each
    without its mean, the second cut or padded to the first's length.

    Args:
        first, second: int16 [T].
    """
    sounds = [torch.from_numpy(x.astype(np.float32) / 32768.0) for x in (first, second)]
    one, other = (x - x.mean() for x in sounds)
    taken = min(len(one), len(other))
    mixture = share * one
    mixture[:taken] += (1 - share) * other[:taken]
    return filter_bank(mixture).numpy()
