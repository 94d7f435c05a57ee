"""Clean-data augmentation of fine-tuning, on whole batches; each sample's own random numbers decide.

Shapes: B samples, F fbank frames, H and W picture sides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from models.batch import AVBatch
from models.host import placed
from trainers.classification.config import Augment
from trainers.draws import Uniform


def augment(batch: AVBatch, config: Augment, uniform: Uniform) -> AVBatch:
    """SpecAugment and time roll of the sound, a random similarity transform of the picture; absent rows stay
    NaN."""
    draws = uniform(9)
    audio = spec_augment(batch.audio, config, draws[:, :5])
    return replace(batch, audio=audio, visual=move_picture(batch.visual, config, draws[:, 5:]))


def _runs(length: int, widest: int, width: np.ndarray, start: np.ndarray) -> np.ndarray:
    """One run per sample as a bool mask [B, length], 0 to `widest` long, by two uniform numbers [B]."""
    width = np.minimum((width * (widest + 1)).astype(int), length)
    start = (start * (length - width + 1)).astype(int)
    at = np.arange(length)
    return (at >= start[:, None]) & (at < (start + width)[:, None])


def spec_augment(x: Tensor, config: Augment, draws: np.ndarray) -> Tensor:
    """One frequency and one time mask (set to 0, the mean) and a roll in time; fbank [B, F, 128]. Park et al.
    2019.

    Args:
        draws: uniform in [0, 1), [B, 5].
    """
    _, frames, bins = x.shape
    reach = config.time_shift
    offset = np.floor(draws[:, :1] * (2 * reach + 1)).astype(int) - reach
    at = placed((np.arange(frames) - offset) % frames, x.device)
    x = x.gather(1, at[:, :, None].expand(-1, -1, bins))
    frequency = _runs(bins, config.frequency_mask, draws[:, 1], draws[:, 2])[:, None, :]
    masked = placed(frequency | _runs(frames, config.time_mask, draws[:, 3], draws[:, 4])[:, :, None], x.device)
    return x.masked_fill(masked & ~x.isnan(), 0.0)


def move_picture(x: Tensor, config: Augment, draws: np.ndarray) -> Tensor:
    """Turn, scale and shift pictures [B, 3, H, W]; what comes in from outside repeats the border.

    Args:
        draws: uniform in [0, 1), [B, 4].
    """
    signed = 2 * draws - 1
    angle, scale = signed[:, 0] * config.rotate, 1 + signed[:, 1] * config.scale
    theta = np.zeros((len(x), 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * np.cos(angle)
    theta[:, 1, 0] = scale * np.sin(angle)
    theta[:, 0, 1] = -theta[:, 1, 0]
    theta[:, :, 2] = signed[:, 2:] * config.shift
    grid = F.affine_grid(placed(theta, x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
