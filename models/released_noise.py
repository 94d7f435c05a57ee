"""The noise of *Prompt the Missing*'s released code, as it is; `models.noise` has ours beside it.

Two strengths: severity 5 where one modality is ruined, 2 where both are. What it does unlike its names: shift and time
mask move and mask mel bins, not frames; a "black" picture is the mean (0 after normalisation); the picture's kind is
fixed to it, so that Gaussian, blur and pixelate, which are written there, are never drawn (`noise=released_kinds` draws
them). Its draws are unseeded; ours come from (seed, sample id), like all noise.

Shapes: F fbank frames; H, W picture sides.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def _strong(severity: int, alone: float, both: float) -> float:
    if severity not in (2, 5):
        raise ValueError(f"released noise has two strengths, severities 2 and 5, not {severity}")
    return alone if severity == 5 else both


def _normal(rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(like.shape), dtype=np.float32))


def gaussian_audio(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Add N(0, 10) (both ruined: 1) to the normalised fbank [F, 128]."""
    return x + _strong(severity, 10.0, 1.0) * _normal(rng, x)


def mel_shift(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Roll the 128 mel bins by -64 to 63."""
    _strong(severity, 0, 0)
    half = x.shape[1] // 2
    return x.roll(int(rng.integers(-half, half)), dims=1)


def mel_mask(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Set a run of 0 to 31 mel bins to the mean, in all frames."""
    _strong(severity, 0, 0)
    width = int(rng.integers(0, x.shape[1] // 4))
    first = int(rng.integers(0, x.shape[1] - width))
    out = x.clone()
    out[:, first : first + width] = 0
    return out


def mean_picture(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """The mean picture: 0 everywhere after normalisation."""
    _strong(severity, 0, 0)
    return torch.zeros_like(x)


def gaussian_visual(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Add N(0, 5) (both ruined: 0.5) to the normalised picture [3, H, W], and cut at -3 and 3."""
    return (x + _strong(severity, 5.0, 0.5) * _normal(rng, x)).clamp(-3, 3)


def box_blur(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """The mean of 51 x 51 (both ruined: 7 x 7) pixels, whatever the picture's size; beyond its edge there are zeros."""
    size = int(_strong(severity, 51, 7))
    return F.avg_pool2d(x[None], size, stride=1, padding=size // 2, count_include_pad=True)[0]


def pixelate(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Shrink to 5 % (both ruined: 30 %) of the sides by bilinear look-up without smoothing, and enlarge by nearest
    pixel; at least one pixel is left."""
    factor = _strong(severity, 0.05, 0.3)
    if int(min(x.shape[-2:]) * factor) < 1:
        small = F.interpolate(x[None], size=(1, 1), mode="bilinear")
    else:
        small = F.interpolate(x[None], scale_factor=factor, mode="bilinear")
    return F.interpolate(small, size=x.shape[-2:], mode="nearest")[0]
