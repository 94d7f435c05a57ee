"""ActionMAE: tokens of a missing modality reconstructed by a masked autoencoder over modalities.

Woo et al., *Towards Good Practices for Missing Modality Robust Action Recognition*, AAAI 2023
(sangminwoo/ActionMAE). The paper: one token per modality and some memory tokens; K of N modalities are dropped at
random, a transformer encoder (depth 2, 8 heads, width 512) sees the rest, a decoder of the same size reconstructs
the dropped tokens; loss: the task's (label smoothing 0.1) + MSE on the dropped tokens, 1 : 1.

The released code normalises the targets and does not detach them, draws K once per batch (with two modalities
half of the batches drop nothing), puts the decoder's output in place of *all* tokens, ignores positions and the
padding mask, and hands on the memory tokens in place of the modalities' where nothing was dropped; it does not
start as published (an import that does not exist).

Ours: a token per modality and time step, since the networks here look at steps; the picture's is the mean of its
rows. Positions and modalities are added to the tokens. Complete samples keep their own features, and of an
incomplete one what is present. Targets are the features as they are, detached. With two modalities "drop at
random" has two outcomes, each is computed for every complete sample; that the network meets them in the task's
loss is Eq. 8's part. A reconstructed step of the picture is its vector plus a learned one per row.

Shapes: B questions, T time steps, R rows of a visual step, M memory tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.filling import filled
from models.cavmae import Attention, Mlp
from models.host import take
from models.modality import OTHER, all_present, complete, lacking
from models.settings import MODALITIES, Modality

SCALE = 0.02  # standard deviation of the tokens that are learned, at first


class ActionMAE(nn.Module):
    """Reconstructs what is missing; what is present stays as it is.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary, not used.
        dim, heads, depth: of encoder and decoder.
        memory: M (4 in the released script, 1 and 10 elsewhere).

    Its loss `reconstruction`, of complete samples, is the mean squared error of each modality when
    reconstructed from the other, added, with the weight 1.

    Raises:
        ValueError: heads that don't divide the width.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"reconstruction": 1.0}

    def __init__(
        self, spec: FeatureSpec, words: int, *, dim: int = 512, heads: int = 8, depth: int = 2, memory: int = 4
    ):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by heads {heads}")
        self.spec, self.memory_tokens = spec, memory
        widths: dict[str, int] = {"audio": spec.audio, "visual": spec.visual}

        def learned(*shape: int) -> nn.Parameter:
            return nn.Parameter(SCALE * torch.randn(*shape, dim))

        self.entrance = nn.ModuleDict({m: nn.Linear(w, dim) for m, w in widths.items()})
        self.modality = nn.ParameterDict({m: learned() for m in widths})
        self.position, self.memory, self.missing = learned(spec.steps), learned(memory), learned()
        self.encoder, self.decoder = (transformer(dim, heads, depth) for _ in range(2))
        self.exit = nn.ModuleDict({m: nn.Linear(dim, w) for m, w in widths.items()})
        self.places = nn.Parameter(SCALE * torch.randn(spec.rows, spec.visual))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities, what is absent predicted from the other one; losses are those of complete samples."""
        values: dict[str, Tensor] = {"audio": audio, "visual": visual}
        out = dict(values)
        for m, rows in lacking(present).items():
            out[m] = filled(values[m], rows, self.reconstruct(m, values[OTHER[m]][rows]))

        def losses() -> Losses:
            rows = complete(present)
            if not len(rows):
                return {}
            real = {m: take(values[m], rows) for m in MODALITIES}
            errors = [(self.reconstruct(m, real[OTHER[m]]) - real[m]).square().flatten(1).mean(dim=1) for m in real]
            return {"reconstruction": errors[0] + errors[1]}

        return Recovered(out["audio"], out["visual"], all_present(len(present), present.device), losses)

    def reconstruct(self, modality: Modality, other: Tensor) -> Tensor:
        """`modality` [B, T, ...] from the other one's features."""
        steps = other if other.dim() == 3 else other.mean(dim=2)
        there = self.entrance[OTHER[modality]](steps) + self.position + self.modality[OTHER[modality]]
        memory = self.memory.expand(len(other), -1, -1)
        encoded = self.encoder(torch.cat([there, memory], dim=1))
        asked = (self.missing + self.position + self.modality[modality]).expand(len(other), -1, -1)
        decoded = self.decoder(torch.cat([asked, encoded], dim=1))[:, : self.spec.steps]
        found = self.exit[modality](decoded)
        return found if modality == "audio" else found[:, :, None] + self.places


class PlainBlock(nn.Module):
    """Pre-norm transformer block without dropout, so that a reconstruction is the same in training."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.attention, self.mlp = Attention(dim, heads), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, d]
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


def transformer(dim: int, heads: int, depth: int) -> nn.Sequential:
    """`depth` such blocks and a norm."""
    return nn.Sequential(*(PlainBlock(dim, heads) for _ in range(depth)), nn.LayerNorm(dim))
