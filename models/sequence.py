"""What a CAV-MAE's encoders make of the time steps of a clip: a row of sound per step, a grid of places per picture.

Shapes: N steps, F fbank frames, P places, D width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.cavmae import CAVMAE
from models.settings import MEL_BINS, PATCH, BackboneConfig

Sound = Literal["mean", "bands", "levels"]
BANDS = MEL_BINS // PATCH


def sound_width(config: BackboneConfig, sound: Sound) -> int:
    """Width of a step's row."""
    return {"mean": config.dim, "bands": BANDS * config.dim, "levels": config.dim + BANDS}[sound]


def sound_rows(net: CAVMAE, fbank: Tensor, sound: Sound = "mean") -> Tensor:
    """Windows of normalised fbank [N, F, 128] to rows [N, width]."""
    tokens = net.encode("audio", net.embed("audio", fbank))
    if sound == "bands":
        return tokens.unflatten(1, (BANDS, -1)).mean(dim=2).flatten(1)
    if sound == "levels":
        return torch.cat([tokens.mean(dim=1), fbank.unflatten(2, (BANDS, -1)).mean(dim=(1, 3))], dim=1)
    return tokens.mean(dim=1)


def picture_rows(net: CAVMAE, pictures: Tensor) -> Tensor:
    """Normalised pictures [N, 3, H, W] to tokens [N, P, D]."""
    return net.encode("visual", net.embed("visual", pictures))


def pooled(rows: Tensor, side: int, frame_token: bool = False) -> Tensor:
    """Places of [T, rows, D], row by row, averaged to a grid of `side`; a frame token stays as it is."""
    places = rows[:, int(frame_token) :]
    own = math.isqrt(places.shape[1])
    if own == side:
        return rows
    grid = places.transpose(1, 2).unflatten(2, (own, own))
    places = F.adaptive_avg_pool2d(grid, side).flatten(2).transpose(1, 2)
    return torch.cat([rows[:, : int(frame_token)], places], dim=1)
