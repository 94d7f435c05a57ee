"""DrFuse: shared and distinct parts of either modality, and an attention of every class over those that there are.

Yao et al., *DrFuse: Learning Disentangled Representation for Clinical Multi-Modal Fusion with Missing Modality and
Modal Inconsistency*, AAAI 2024. Each modality has a shared part h_m^s and a distinct one h_m^d (d = 256, 4 heads). The
shared parts are one, the logit of the mean of their sigmoids; where a modality is missing, the other's. Every class
attends to the parts that there are: distinct audio, shared, distinct visual. Losses, all weights 1: the task's of the
answer and of each part alone, Jensen-Shannon divergence between the shared parts, |cos| between a modality's shared
and distinct part, and a ranking of attention: a part that alone does better gets no less of it (margin 0, on detached
losses, of complete samples, over the number of pairs that are ranked wrong).

*Released*: only one of the modalities can be missing, as a zero picture that is computed (and touches BatchNorm) and
masked out; the divergence's numerator is not masked; it does not run as published, and tests the last epoch, not the
best. Ours: symmetric in the modalities, nothing is computed of what is missing, losses are those of what is present,
no dropout. Their task has a loss per class; a clip with one label has one, so what is ranked is the attention's mean
over classes and heads. Parts are means over a modality's tokens.

Shapes: B samples, R of them, N tokens of one modality, D width of tokens, d of the method, C classes, P parts (3, or 2
where a modality is missing), H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.contract import Losses
from models.avqa.networks.avst_drfuse import SHARED, divergence, pooled
from models.fusion.contract import Fused, TaskLoss
from models.host import on_host, take
from models.modality import groups
from models.settings import MODALITIES, BackboneConfig, Modality


@dataclass(frozen=True)
class _Group:
    """What is computed of the samples that have the same modalities.

    Attributes:
        rows: int64 [R] of the batch, on the host.
        own: each modality's shared part before they are one, [R, d].
        parts: by name, in the order in which classes attend to them, [R, d].
        attention: [R, C, P], the mean over heads.
        logits: [R, C].
    """

    rows: np.ndarray
    own: Mapping[Modality, Tensor]
    parts: Mapping[str, Tensor]
    attention: Tensor
    logits: Tensor


class ClassAttention(nn.Module):
    """Every class looks at the parts by a query of its own.

    Raises:
        ValueError: heads that don't divide the width.
    """

    def __init__(self, classes: int, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by heads {heads}")
        self.heads = heads
        self.query = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Parts [R, P, d] to what each class found, [R, C, d], and its attention, [R, C, P], the mean over heads."""
        r, p, d = parts.shape
        q = self.query.view(-1, self.heads, d // self.heads)  # [C, H, d / H]
        k, v = (layer(parts).view(r, p, self.heads, -1) for layer in (self.key, self.value))
        weights = (torch.einsum("chd,rphd->rchp", q, k) / (d // self.heads) ** 0.5).softmax(dim=-1)
        return torch.einsum("rchp,rphd->rchd", weights, v).flatten(2), weights.mean(dim=2)


class DrFuse(nn.Module):
    """Answers from shared and distinct parts, in place of the joint block.

    Args:
        config: the backbone's sizes.
        classes: C.
        dim, heads: d and H (published: 256 and 4).

    Its losses: those of the parts alone (`branch_audio`, `branch_visual`, `branch_shared`), `shared_jsd`,
    `orthogonality` and `ranking`, each with the weight 1.
    """

    loss_names: ClassVar[Mapping[str, float]] = {
        "branch_audio": 1.0,
        "branch_visual": 1.0,
        "branch_shared": 1.0,
        "shared_jsd": 1.0,
        "orthogonality": 1.0,
        "ranking": 1.0,
    }

    def __init__(self, config: BackboneConfig, classes: int, *, dim: int = 128, heads: int = 4):
        super().__init__()
        self.entrance = nn.ModuleDict({m: _entrance(config.dim, dim) for m in MODALITIES})
        self.distinct = nn.ModuleDict({m: _projection(dim) for m in MODALITIES})
        self.shared = _projection(dim)
        self.attention = ClassAttention(classes, dim, heads)
        self.weight, self.bias = nn.Parameter(torch.randn(classes, dim) / dim**0.5), nn.Parameter(torch.zeros(classes))
        self.branches = nn.ModuleDict({name: nn.Linear(dim, classes) for name in (*MODALITIES, SHARED)})

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Fused:
        """Logits [B, C] of what is there."""
        values: dict[Modality, Tensor] = {"audio": audio, "visual": visual}
        found = [self._group({m: take(values[m], rows) for m in there}, rows) for there, rows in groups(present)]
        if len(found) == 1:
            return Fused(found[0].logits, lambda task: self._losses(found, task))
        logits = audio.new_zeros(len(present), len(self.bias))
        for (_, rows), group in zip(groups(present), found, strict=True):
            logits = logits.index_copy(0, rows, group.logits.to(logits.dtype))
        return Fused(logits, lambda task: self._losses(found, task))

    def _group(self, tokens: Mapping[Modality, Tensor], rows: Tensor) -> _Group:
        means = {m: self.entrance[m](x).mean(dim=1) for m, x in tokens.items()}  # [R, d]
        own = {m: self.shared(x) for m, x in means.items()}
        parts: dict[str, Tensor] = {m: self.distinct[m](x) for m, x in means.items()} | {
            SHARED: pooled(list(own.values()))
        }
        looked, attention = self.attention(torch.stack([*parts.values()], dim=1))
        return _Group(on_host(rows), own, parts, attention, (looked * self.weight).sum(dim=-1) + self.bias)

    def _losses(self, found: list[_Group], task: TaskLoss) -> Losses:
        """Each over the samples that have it, group by group."""
        out: dict[str, list[Tensor]] = {}
        for group in found:
            alone = {name: task(self.branches[name](x), group.rows) for name, x in group.parts.items()}
            for name, loss in alone.items():
                out.setdefault(f"branch_{name}", []).append(loss)
            cosines = [F.cosine_similarity(group.own[m], group.parts[m], dim=1).abs() for m in group.own]
            out.setdefault("orthogonality", []).append(torch.stack(cosines).mean(dim=0))
            if len(group.own) == 2:
                out["shared_jsd"] = [divergence(*group.own.values())]
                out["ranking"] = [ranking(group.attention.mean(dim=1), torch.stack([*alone.values()], dim=1).detach())]
        return {name: torch.cat(losses) for name, losses in out.items()}


def ranking(attention: Tensor, losses: Tensor) -> Tensor:
    """How much more attention a part gets than one that does better alone, over the pairs of which that is so: [R].

    Args:
        attention, losses: [R, P], of each part.
    """
    total = count = attention.new_zeros(len(attention))
    for i, j in combinations(range(attention.shape[1]), 2):
        better = (losses[:, j] - losses[:, i]).sign()  # 1: part i does better alone
        excess = (better * (attention[:, j] - attention[:, i])).clamp(min=0)
        total, count = total + excess, count + (excess > 0)
    return total / count.clamp(min=1)


def _entrance(width: int, dim: int) -> nn.Sequential:
    """Each token by itself, to width d."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.GELU())


def _projection(dim: int) -> nn.Sequential:
    """Three layers (the released shared projection has three)."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
