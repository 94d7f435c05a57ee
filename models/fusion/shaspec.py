"""ShaSpec on the encoders' tokens: what the modalities share stands in for the one that is missing.

Wang et al., *Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling*, CVPR 2023: a shared
encoder gives r_m, a specific one s_m; the fused feature is f_m = r_m + W [r_m ; s_m]; a missing modality's is the mean
of the r that there are. Loss: the task's + 0.1 L1 between the modalities' r + 0.02 cross-entropy of naming the modality
from s_m. Their code is for segmentation alone; what it does otherwise is told in `models.avqa.recovery.shaspec`.

Ours: the losses are those of what is present, and nothing is computed of what is absent. Every token is encoded by
itself; what both modalities have is compared as means over tokens. f_m is added to the tokens, and its last layer
begins at zero, so that a trained backbone begins as it was. A missing modality's tokens are the other one's mean r
plus a learnt vector per token.

Shapes: B samples, R of them, N tokens of one modality, D width of tokens, d of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.filling import filled
from models.fusion.standing_in import StandingIn, at_rows
from models.host import take
from models.modality import OTHER, all_present, complete, having, lacking
from models.settings import MODALITIES, BackboneConfig, Modality


class ShaSpec(nn.Module):
    """Fuses shared and specific features of what is present, and fills in from the shared ones.

    Args:
        config: the backbone's sizes.
        classes: C, not used.
        dim: d.

    Its losses: `shared_l1`, between both modalities' shared features (weight 0.1), of complete samples, and
    `modality_ce`, of naming a modality from its specific features (0.02), the mean over those that a sample has.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"shared_l1": 0.1, "modality_ce": 0.02}

    def __init__(self, config: BackboneConfig, classes: int, *, dim: int = 128):
        super().__init__()
        self.entrance = nn.ModuleDict(
            {m: nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, dim)) for m in MODALITIES}
        )
        self.shared = _encoder(dim)
        self.specific = nn.ModuleDict({m: _encoder(dim) for m in MODALITIES})
        self.fuse = nn.Linear(2 * dim, dim)
        self.standing_in = StandingIn(config, dim)
        self.which = nn.Linear(dim, len(MODALITIES))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered:
        """Both modalities from shared and specific features; what is absent is made of the other one's shared ones."""
        values: dict[Modality, Tensor] = {"audio": audio, "visual": visual}
        rows = {m: having(present, i) for i, m in enumerate(MODALITIES)}
        own = {m: take(values[m], rows[m]) for m in MODALITIES}  # [R, N, D]
        inputs = {m: self.entrance[m](own[m]) for m in MODALITIES}  # [R, N, d]
        shared = {m: self.shared(inputs[m]) for m in MODALITIES}
        specific = {m: self.specific[m](inputs[m]) for m in MODALITIES}
        means = {m: shared[m].mean(dim=1) for m in MODALITIES}  # [R, d]
        out = {m: filled(values[m], rows[m], own[m] + self._fused(m, shared[m], specific[m])) for m in MODALITIES}
        for m, absent in lacking(present).items():
            mean = at_rows(means[OTHER[m]], rows[OTHER[m]], absent)
            out[m] = filled(out[m], absent, self.standing_in(m, mean))

        def losses() -> Losses:
            found = {"modality_ce": self._naming(specific, rows, len(present))} if len(present) else {}
            if len(both := complete(present)):
                heard, seen = (at_rows(means[m], rows[m], both) for m in MODALITIES)
                found["shared_l1"] = (heard - seen).abs().mean(dim=1)
            return found

        return Recovered(out["audio"], out["visual"], all_present(len(present), present.device), losses)

    def _fused(self, modality: Modality, shared: Tensor, specific: Tensor) -> Tensor:
        """f_m as a change of the modality's tokens, [R, N, D]."""
        return self.standing_in.exit[modality](shared + self.fuse(torch.cat([shared, specific], dim=-1)))

    def _naming(self, specific: Mapping[Modality, Tensor], rows: Mapping[Modality, Tensor], samples: int) -> Tensor:
        """Cross-entropy of which modality a specific feature is, the mean over those that a sample has, [B]."""
        total = count = specific["audio"].new_zeros(samples, dtype=torch.float32)
        for i, m in enumerate(MODALITIES):
            logits = self.which(specific[m].mean(dim=1)).float()
            right = torch.full((len(logits),), i, dtype=torch.int64, device=logits.device)
            loss = F.cross_entropy(logits, right, reduction="none")
            total, count = total.index_add(0, rows[m], loss), count.index_add(0, rows[m], torch.ones_like(loss))
        return total / count


def _encoder(dim: int) -> nn.Sequential:
    """Two layers, each token by itself."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
