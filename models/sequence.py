"""What a CAV-MAE's encoders make of the time steps of a clip: a row of sound per step, a grid of places per picture.

Shapes: N steps, F fbank frames, P places, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cavmae import CAVMAE
from models.settings import MEL_BINS, PATCH

BANDS = MEL_BINS // PATCH


class SoundRows(nn.Module):
    """Windows of normalised fbank [N, F, 128] to rows [N, D].

    A row is the mean of the audio encoder's tokens; or, of a backbone that learnt densely, a learnt mixture of each mel
    band's mean over time: to average bands away loses who sounds beside whom.

    Args:
        net: the network.
        bands: see `band_mixture`; None: their mean.
    """

    def __init__(self, net: CAVMAE, bands: nn.Linear | None = None):
        super().__init__()
        self.net, self.bands = net, bands

    def forward(self, fbank: Tensor) -> Tensor:
        """[N, F, 128] to [N, D]."""
        tokens = self.net.encode("audio", self.net.embed("audio", fbank))
        if self.bands is None:
            return tokens.mean(dim=1)
        return self.bands(tokens.unflatten(1, (BANDS, -1)).mean(dim=2).flatten(1))


def band_mixture(dim: int) -> nn.Linear:
    """From the means of eight mel bands side by side, [N, 8 D], to rows [N, D]; it begins as their mean."""
    mixture = nn.Linear(BANDS * dim, dim)
    with torch.no_grad():
        mixture.weight.copy_(torch.eye(dim).repeat(1, BANDS) / BANDS)
        mixture.bias.zero_()
    return mixture


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
