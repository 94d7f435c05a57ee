"""ShaSpec: what the modalities share stands in for the one that is missing.

Wang et al., *Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling*, CVPR 2023
(billhhh/ShaSpec). The paper: a shared encoder gives r_m of every modality, a specific one s_m; the fused feature
is f_m = r_m + W [r_m ; s_m]; a missing modality's is the mean of the r that there are. Loss: the task's + 0.1 L1
between the modalities' r + 0.02 cross-entropy of naming the modality from s_m.

The released code is for segmentation alone (that for classification never came). There the two losses are not
masked to present modalities, a missing input is zeros through all encoders, and the first available r stands for
the mean (with two modalities the same).

Ours: the losses are those of what is present, and an absent modality is not encoded. Each step (and place) is
encoded by itself: a linear layer brings it to width d, then the shared encoder; where the grids differ, r of the
picture is averaged over its places for the sound, and that of the sound serves every place. A linear layer
brings f_m back to the modality's features, added to them where it is present, so that the network keeps what
the bottleneck loses. (AVST then trains without its match loss: frames of other clips do not come through here,
and that they were not changed would give them away.) Where it is missing, r alone goes through that layer.

Shapes: B questions, T time steps, R rows of a visual step (1 for the sound), d width, Da and Dv widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.filling import filled
from models.host import index, on_host, rows_of, take
from models.modality import OTHER, all_present, complete, having, lacking
from models.settings import MODALITIES, Modality


class ShaSpec(nn.Module):
    """Fuses shared and specific features of what is present, and fills in from the shared ones.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary, not used.
        dim: d.

    Its losses: `shared_l1`, between both modalities' shared features (weight 0.1), of complete samples, and
    `modality_ce`, of naming a modality from its specific features (0.02), the mean over those that a sample has.
    """

    changes_complete: ClassVar[bool] = True
    loss_names: ClassVar[Mapping[str, float]] = {"shared_l1": 0.1, "modality_ce": 0.02}

    def __init__(self, spec: FeatureSpec, words: int, *, dim: int = 256):
        super().__init__()
        widths: dict[str, int] = {"audio": spec.audio, "visual": spec.visual}
        self.rows: dict[str, int] = {"audio": 1, "visual": spec.rows}
        self.entrance = nn.ModuleDict({m: nn.Linear(w, dim) for m, w in widths.items()})
        self.shared = _encoder(dim)
        self.specific = nn.ModuleDict({m: _encoder(dim) for m in widths})
        self.fuse = nn.Linear(2 * dim, dim)
        self.exit = nn.ModuleDict({m: nn.Linear(dim, w) for m, w in widths.items()})
        self.which = nn.Linear(dim, len(MODALITIES))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities from shared and specific features; what is absent is made of the other one's shared ones."""
        values: dict[Modality, Tensor] = {"audio": audio[:, :, None], "visual": visual}
        rows = {m: having(present, i) for i, m in enumerate(MODALITIES)}
        inputs = {m: self.entrance[m](take(values[m], rows[m])) for m in MODALITIES}  # [R, T, rows, d]
        shared = {m: self.shared(x) for m, x in inputs.items()}
        specific = {m: self.specific[m](x) for m, x in inputs.items()}
        out = {
            m: filled(values[m], rows[m], take(values[m], rows[m]) + self._fused(m, shared[m], specific[m]))
            for m in MODALITIES
        }
        for m, absent in lacking(present).items():
            at = index(_positions(rows[OTHER[m]], absent), audio.device)
            out[m] = filled(out[m], absent, self.exit[m](self._standing_in(m, shared[OTHER[m]][at])))

        def losses() -> Losses:
            found = {"modality_ce": self._naming(specific, rows, len(present))} if len(present) else {}
            both = complete(present)
            if len(both):
                found["shared_l1"] = self._distance(
                    *(shared[m][index(_positions(rows[m], both), audio.device)] for m in MODALITIES)
                )
            return found

        return Recovered(out["audio"][:, :, 0], out["visual"], all_present(len(present), present.device), losses)

    def _fused(self, modality: Modality, shared: Tensor, specific: Tensor) -> Tensor:
        """f_m as a change of the modality's features."""
        return self.exit[modality](shared + self.fuse(torch.cat([shared, specific], dim=-1)))

    def _standing_in(self, modality: Modality, shared: Tensor) -> Tensor:
        """The other modality's r at this one's rows: [R, T, rows of the other, d] -> [R, T, rows, d]."""
        return shared.mean(dim=2, keepdim=True).expand(-1, -1, self.rows[modality], -1)

    @staticmethod
    def _distance(audio: Tensor, visual: Tensor) -> Tensor:
        """Mean absolute difference of both modalities' r, step by step, [R]."""
        return (audio - visual.mean(dim=2, keepdim=True)).abs().flatten(1).mean(dim=1)

    def _naming(self, specific: Mapping[Modality, Tensor], rows: Mapping[Modality, Tensor], samples: int) -> Tensor:
        """Cross-entropy of which modality a specific feature is, the mean over those that a sample has, [B]."""
        first = specific["audio"]
        total, count = first.new_zeros(samples), first.new_zeros(samples)
        for i, m in enumerate(MODALITIES):
            logits = self.which(specific[m].mean(dim=(1, 2))).float()
            right = torch.full((len(logits),), i, dtype=torch.int64, device=logits.device)
            loss = F.cross_entropy(logits, right, reduction="none").to(total.dtype)
            total = total.index_add(0, rows[m], loss)
            count = count.index_add(0, rows[m], torch.ones_like(loss))
        return total / count


def _encoder(dim: int) -> nn.Sequential:
    """Two layers, each step and place by itself."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))


def _positions(rows: Tensor, wanted: Tensor | np.ndarray) -> np.ndarray:
    """Where the wanted rows stand among `rows`, which are ascending, int64 on the host."""
    return on_host(rows).searchsorted(rows_of(wanted))
