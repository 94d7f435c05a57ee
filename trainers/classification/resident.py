"""A small corpus of features kept whole on one device: batches are gathered there, nothing is read again.

Shapes: B samples of a batch, S samples, V stored variants (clean, noisy draws), N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.host import placed, remember
from models.settings import MODALITIES
from shards.reader import ShardDataset


class ResidentTokens:
    """All tokens of a split on a device: float16 [S, V, N, D] per modality, B gathered at a time.

    Args:
        data: feature shards.
        shapes: [N, D] of each modality's tokens.
        device: of memory (``cpu``) or a GPU; too little memory raises torch's own error.

    Attributes:
        stored: variants that each sample has of each modality, int32 [S, 2]; 0: it lacks it.
    """

    def __init__(self, data: ShardDataset, shapes: Mapping[str, tuple[int, ...]], device: torch.device):
        assert data.info.backbone is not None
        variants = len(data.info.backbone.variants)
        self.device = device
        self.tokens: dict[str, Tensor] = {
            m: torch.zeros(len(data), variants, *shapes[m], dtype=torch.float16, device=device) for m in MODALITIES
        }
        self.stored = np.zeros((len(data), len(MODALITIES)), np.int32)
        for i in range(len(data)):
            for modality, array in data[i].arrays.items():
                self.stored[i, MODALITIES.index(modality)] = len(array)
                self.tokens[modality][i, : len(array)] = torch.from_numpy(array)

    def gather(self, positions: Sequence[int], rows: Sequence[Mapping[str, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of both modalities, float32 [B, N, D], NaN where absent, and present [B, 2].

        Args:
            rows: per sample the variant of each modality; one that has none is absent.
        """
        index, columns = placed(np.array(positions, dtype=np.int64), self.device), []
        chosen = np.array([[own.get(m, -1) for m in MODALITIES] for own in rows])
        rows_of = placed(chosen, self.device)  # [B, 2]
        for column, modality in enumerate(MODALITIES):
            row = rows_of[:, column]
            values = self.tokens[modality][index, row.clamp(min=0)].float()
            columns.append(values.masked_fill((row < 0)[:, None, None], float("nan")))
        return columns[0], columns[1], remember(rows_of >= 0, chosen >= 0)
