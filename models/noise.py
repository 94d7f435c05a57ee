"""Seeded noise for spectrograms and pictures: seven kinds, severity 1 to 5.

Kinds, and two of the severities (5 where one modality is ruined, 2 where both are), are after *Prompt the Missing*:
audio gaussian noise on the normalised filter bank, time mask, time shift; visual black, gaussian, blur, pixelate. The
sigmas, the blur's size and the pixels' share at these two are its code's, what is done with them is ours: mask and
shift act on time, black is black, blur is Gaussian, pixelate averages. What the code does instead is in
`models.released_noise`.

Every draw comes from (seed, sample id, draw), never from global state, so every method sees the same ruined
input.

Shapes: F fbank frames; H, W picture sides.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.settings import KINDS, SEVERITIES, Modality, NoiseConfig

_REFERENCE_SIZE = 224  # pixels for which the blur kernels are given; they scale with the picture


def generator(*key: object) -> np.random.Generator:
    """A random generator that depends on `key` alone (its parts' text), on every machine alike."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def _normal(rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.from_numpy(rng.standard_normal(tuple(like.shape), dtype=np.float32))


def gaussian_audio(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Add N(0, sigma) to the normalised fbank [F, 128]; sigma 0.5, 1, 2, 5, 10."""
    return x + (0.5, 1.0, 2.0, 5.0, 10.0)[severity - 1] * _normal(rng, x)


def time_mask(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Set 20, 35, 50, 70 or 90 % of the frames, one run, to the mean (0)."""
    length = round((0.2, 0.35, 0.5, 0.7, 0.9)[severity - 1] * len(x))
    start = int(rng.integers(0, len(x) - length + 1))
    out = x.clone()
    out[start : start + length] = 0.0
    return out


def time_shift(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Move the sound by up to 10, 20, 30, 40 or 50 % of its length either way; what leaves one end enters at
    the other."""
    reach = max(1, round(severity / 10 * len(x)))
    return x.roll(int(rng.integers(-reach, reach + 1)), dims=0)


def black(x: Tensor, severity: int, rng: np.random.Generator, floor: Tensor | None = None) -> Tensor:
    """Dim the picture [3, H, W] to 50, 25, 10, 5 or 0 % of its light; `floor` [3, 1, 1] is black after
    normalisation."""
    level = (0.5, 0.25, 0.1, 0.05, 0.0)[severity - 1]
    floor = torch.zeros(3, 1, 1) if floor is None else floor
    return floor + level * (x - floor)


def gaussian_visual(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Add N(0, sigma) to the normalised picture [3, H, W]; sigma 0.25, 0.5, 1, 2.5, 5."""
    return x + (0.25, 0.5, 1.0, 2.5, 5.0)[severity - 1] * _normal(rng, x)


def blur(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Gaussian blur, kernel 3, 7, 15, 31 or 51 pixels at 224 (scaled with the picture)."""
    size = (3, 7, 15, 31, 51)[severity - 1] * x.shape[-1] / _REFERENCE_SIZE
    half = max(1, round((size - 1) / 2))
    reach = min(half, (size - 1) / 2) if severity == 1 else half  # in a small picture milder than severity 2
    sigma = 0.3 * (reach - 1) + 0.8
    at = torch.arange(-half, half + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = F.pad(x[:, None], (half, half, half, half), mode="reflect")
    return F.conv2d(F.conv2d(planes, kernel), kernel.transpose(2, 3))[:, 0]


def pixelate(x: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    """Shrink to 50, 30, 20, 10 or 5 % of the side and enlarge by nearest pixel."""
    side = max(1, round((0.5, 0.3, 0.2, 0.1, 0.05)[severity - 1] * x.shape[-1]))
    small = F.interpolate(x[None], size=(side, side), mode="area")
    return F.interpolate(small, size=x.shape[-2:], mode="nearest")[0]


def ruin(
    x: Tensor,
    modality: Modality,
    severity: int,
    config: NoiseConfig,
    seed: int,
    sample: str,
    draw: int,
    floor: Tensor | None = None,
) -> tuple[Tensor, str]:
    """One noisy draw of one sample's normalised input.

    Args:
        x: fbank [F, 128] or picture [3, H, W], normalised.
        seed, sample, draw: all that the noise depends on besides `x`.
        floor: [3, 1, 1], what black is after normalisation (pictures).

    Returns:
        the ruined input (same shape) and the name of the kind drawn.

    Raises:
        ValueError: no such severity.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} is not one of 1..5")
    rng = _generator(modality, severity, seed, sample, draw)
    kind = _kind(rng, modality, config)
    apply = KINDS[modality][kind]
    return black(x, severity, rng, floor) if apply is black else apply(x, severity, rng), kind


def drawn_kind(modality: Modality, severity: int, config: NoiseConfig, seed: int, sample: str, draw: int) -> str:
    """The kind that `ruin` draws, without the work."""
    return _kind(_generator(modality, severity, seed, sample, draw), modality, config)


def _generator(modality: str, severity: int, seed: int, sample: str, draw: int) -> np.random.Generator:
    return generator("noise", seed, modality, severity, draw, sample)


def _kind(rng: np.random.Generator, modality: str, config: NoiseConfig) -> str:
    kinds: tuple[str, ...] = getattr(config, modality)
    return kinds[int(rng.integers(len(kinds)))]
