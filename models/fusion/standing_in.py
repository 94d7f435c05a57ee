"""What methods that fill in share: tokens of a missing modality made of one vector, and rows found among rows.

Shapes: R samples, N tokens of one modality, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.host import index, on_host, rows_of
from models.settings import MODALITIES, BackboneConfig, Modality


class StandingIn(nn.Module):
    """Tokens of a missing modality: one vector, brought to width D, plus a learnt one per token.

    Both begin at zero, so that a trained backbone begins with zeros in their place.

    Args:
        dim: width of the vector.
    """

    def __init__(self, config: BackboneConfig, dim: int):
        super().__init__()
        self.places = nn.ParameterDict({m: torch.zeros(n, config.dim) for m, n in config.tokens.items()})
        self.exit = nn.ModuleDict({m: zeroed(nn.Linear(dim, config.dim)) for m in MODALITIES})

    def forward(self, modality: Modality, vector: Tensor) -> Tensor:
        """[R, dim] to [R, N, D]."""
        return self.exit[modality](vector)[:, None] + self.places[modality]


def zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer, its weight and bias zero."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def at_rows(x: Tensor, rows: Tensor, wanted: Tensor | np.ndarray) -> Tensor:
    """The wanted samples of `x` [R, ...], which holds those of `rows`, ascending, that `wanted` is among."""
    positions = on_host(rows).searchsorted(rows_of(wanted))
    return x[index(positions, x.device)]
