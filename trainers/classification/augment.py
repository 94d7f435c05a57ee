"""Clean-data augmentation of fine-tuning, on whole batches; all randomness from the generator given.

Shapes: B samples, F fbank frames, H and W picture sides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from models.batch import AVBatch
from trainers.classification.config import Augment


def augment(batch: AVBatch, config: Augment, rng: torch.Generator) -> AVBatch:
    """SpecAugment and time roll of the sound, a random similarity transform of the picture; absent rows stay
    NaN."""
    audio = spec_augment(batch.audio, config, rng)
    return replace(batch, audio=audio, visual=move_picture(batch.visual, config, rng))


def _uniform(rng: torch.Generator, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


def _runs(length: int, widest: int, n: int, rng: torch.Generator) -> Tensor:
    """One random run per sample as a bool mask [n, length], 0 to `widest` long."""
    width = _uniform(rng, n, 0, widest + 1).long().clamp(max=length)
    start = (torch.rand(n, generator=rng) * (length - width + 1)).long()
    at = torch.arange(length)
    return (at >= start[:, None]) & (at < (start + width)[:, None])


def spec_augment(x: Tensor, config: Augment, rng: torch.Generator) -> Tensor:
    """One frequency and one time mask (set to 0, the mean) and a roll in time; fbank [B, F, 128]. Park et al.
    2019."""
    b, frames, bins = x.shape
    reach = config.time_shift
    offset = torch.randint(-reach, reach + 1, (b, 1), generator=rng)
    at = ((torch.arange(frames) - offset) % frames).to(x.device)
    x = x.gather(1, at[:, :, None].expand(-1, -1, bins))
    masked = (
        _runs(bins, config.frequency_mask, b, rng)[:, None, :] | _runs(frames, config.time_mask, b, rng)[:, :, None]
    )
    masked = masked.to(x.device) & ~x.isnan()
    return x.masked_fill(masked, 0.0)


def move_picture(x: Tensor, config: Augment, rng: torch.Generator) -> Tensor:
    """Turn, scale and shift pictures [B, 3, H, W]; what comes in from outside repeats the border."""
    b = len(x)
    angle = _uniform(rng, b, -config.rotate, config.rotate)
    scale = 1 + _uniform(rng, b, -config.scale, config.scale)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -scale * angle.sin(), scale * angle.sin()
    theta[:, :, 2] = _uniform(rng, 2 * b, -config.shift, config.shift).view(b, 2)
    grid = F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
