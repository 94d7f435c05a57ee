"""ActionMAE on the encoders' tokens: a missing modality reconstructed by a masked autoencoder over modalities.

Woo et al., *Towards Good Practices for Missing Modality Robust Action Recognition*, AAAI 2023: one token per modality
and some memory tokens; K of N modalities are dropped at random, an encoder (depth 2, 8 heads, width 512) sees the
rest, a decoder of the same size reconstructs what was dropped; loss: the task's + MSE on it, 1 : 1. What their code
does otherwise is told in `models.avqa.recovery.actionmae`.

Ours: a modality's token is the mean of its encoder's tokens, normed. Complete samples keep their own tokens, and of an
incomplete one what is present. Targets are these means, detached. With two modalities "drop at random" has two
outcomes: each is computed for every complete sample, and the recipe shows the network both in the task's loss. What is
missing is the reconstructed token, brought to the tokens' width, plus a learnt vector per token; both begin at zero.

Shapes: B samples, R of them, N tokens of one modality, D width of tokens, M memory tokens, d of the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.actionmae import SCALE, transformer
from models.avqa.recovery.filling import filled
from models.fusion.standing_in import StandingIn
from models.host import take
from models.modality import OTHER, all_present, complete, lacking
from models.settings import MODALITIES, BackboneConfig, Modality


class ActionMAE(nn.Module):
    """Reconstructs what is missing; what is present stays as it is.

    Args:
        config: the backbone's sizes.
        classes: C, not used.
        dim, heads, depth: of encoder and decoder (published: 512, 8, 2).
        memory: M (4 in the released script, 1 and 10 elsewhere).

    Its loss `reconstruction`, of complete samples, is the mean squared error of each modality's token when
    reconstructed from the other one, added, with the weight 1.

    Raises:
        ValueError: heads that don't divide the width.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"reconstruction": 1.0}

    def __init__(
        self, config: BackboneConfig, classes: int, *, dim: int = 128, heads: int = 8, depth: int = 2, memory: int = 4
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by heads {heads}")

        def learnt(*shape: int) -> nn.Parameter:
            return nn.Parameter(SCALE * torch.randn(*shape, dim))

        self.norm = nn.ModuleDict({m: nn.LayerNorm(config.dim, elementwise_affine=False) for m in MODALITIES})
        self.entrance = nn.ModuleDict({m: nn.Linear(config.dim, dim) for m in MODALITIES})
        self.modality = nn.ParameterDict({m: learnt() for m in MODALITIES})
        self.memory, self.missing = learnt(memory), learnt()
        self.encoder, self.decoder = (transformer(dim, heads, depth) for _ in range(2))
        self.exit = nn.ModuleDict({m: nn.Linear(dim, config.dim) for m in MODALITIES})
        self.standing_in = StandingIn(config, config.dim)

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered:
        """Both modalities, what is absent predicted from the other one; losses are those of complete samples."""
        values: dict[Modality, Tensor] = {"audio": audio, "visual": visual}
        out = dict(values)
        for m, rows in lacking(present).items():
            found = self.reconstruct(m, self.token(OTHER[m], take(values[OTHER[m]], rows)))
            out[m] = filled(values[m], rows, self.standing_in(m, found))

        def losses() -> Losses:
            rows = complete(present)
            if not len(rows):
                return {}
            real = {m: self.token(m, take(values[m], rows)) for m in MODALITIES}
            errors = [(self.reconstruct(m, real[OTHER[m]]) - real[m].detach()).square().mean(dim=1) for m in real]
            return {"reconstruction": errors[0] + errors[1]}

        return Recovered(out["audio"], out["visual"], all_present(len(present), present.device), losses)

    def token(self, modality: Modality, tokens: Tensor) -> Tensor:
        """A modality's tokens [R, N, D] as one, [R, D]."""
        return self.norm[modality](tokens.mean(dim=1))

    def reconstruct(self, modality: Modality, other: Tensor) -> Tensor:
        """`modality`'s token [R, D] from the other one's, [R, D]."""
        there = self.entrance[OTHER[modality]](other) + self.modality[OTHER[modality]]
        memory = self.memory.expand(len(other), -1, -1)
        encoded = self.encoder(torch.cat([there[:, None], memory], dim=1))
        wanted = (self.missing + self.modality[modality]).expand(len(other), 1, -1)
        return self.exit[modality](self.decoder(torch.cat([wanted, encoded], dim=1))[:, 0])
