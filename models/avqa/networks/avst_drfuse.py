"""DrFuse on AVST: what both modalities share apart from what each alone has, fused answer by answer.

Yao et al., *DrFuse: Learning Disentangled Representation for Clinical Multi-Modal Fusion with Missing Modality and
Modal Inconsistency*, AAAI 2024 (dorothy-yao/drfuse). The paper: each modality has a shared and a distinct part,
d = 256, 4 heads; the shared parts of both are fused as the logit of their mean sigmoid, of one modality its own
stands alone; every class attends to the parts that there are (distinct, shared, distinct). Losses, all of weight 1:
the prediction's and those of the three parts; Jensen-Shannon divergence of the shared parts; |cos| between the shared
and the distinct part of a modality; a ranking of the attention, by which a part that predicts a class better is
attended to more (margin 0, on detached losses, complete samples, divided by the number of violations).

Released: one projection of three layers makes both shared parts; every class has a key, the query is the mean of the
parts' queries; Adam 1e-4, batch 16, patience 10, dropout 0.3. The first modality is always there: of a missing second
one a picture of zeros is computed (BatchNorm sees it) and masked out afterwards. It does not run as it is; the
divergence leaves out half of each Bernoulli variable, so that it can be below 0, and is summed over incomplete
samples, too; the last epoch is tested, not the best.

Ours, since a question decides what is looked for: a part is what the question finds in AVST's sequence of sound or of
frames (a `TemporalAttention` with 4 heads each, in place of a transformer or ResNet), times the question as in AVST's
head. The fusion takes the place of AVST's, so this is a network, behind a method that leaves absent what is absent
(`recovery=masking`). Either modality can be missing and nothing of it is computed; a sample without one has two
branches and one |cos|. One answer is right, so cross-entropy in place of binary ones; the ranking compares, class by
class, how right the softmax of a part is about it. The divergence is that of Bernoulli variables, both outcomes,
summed over d. A sample's losses depend on it alone, so violations are counted in a sample, not in the batch. A bias of
the keys would be the same for all parts, so there is none.

Shapes: B questions, T steps, D width of the network, d of the parts, K parts that there are, A answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import NO_ANSWER, FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.avst import AVST, TemporalAttention
from models.avqa.networks.common import places
from models.settings import MODALITIES

SHARED = "shared"
Parts = dict[str, Tensor]  # by "shared" or modality, [B, d] each


class DrFuseAVST(AVST):
    """AVST that answers from shared and distinct parts of what is there.

    Args:
        spec, words, answers: as of AVST.
        dim, heads, dropout: AVST's, and of the attentions that find the parts.
        width: d of the parts (paper: 256). The keys have A d^2 weights.

    Its losses: `match` (0.5, AVST's) and, each with the paper's weight 1, `branches`, cross-entropy of the answer
    from each part that there is, added; `divergence` of the shared parts; `orthogonality`; `ranking` of the
    attention. Without the answers (in use) there are no branches and no ranking.
    """

    loss_names: ClassVar[Mapping[str, float]] = {
        **AVST.loss_names,
        "branches": 1.0,
        "divergence": 1.0,
        "orthogonality": 1.0,
        "ranking": 1.0,
    }
    takes_answers: ClassVar[bool] = True
    incomplete_losses: ClassVar[frozenset[str]] = frozenset({"branches", "orthogonality"})

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 512,
        heads: int = 4,
        dropout: float = 0.1,
        width: int = 256,
    ):
        super().__init__(spec, words, answers, dim=dim, heads=heads, dropout=dropout)
        del self.fuse  # and AVST's attentions find the distinct parts
        self.look_shared = nn.ModuleDict({m: TemporalAttention(dim, heads, dropout) for m in MODALITIES})
        self.distinct, self.shared = (nn.ModuleDict({m: _Part(dim, width) for m in MODALITIES}) for _ in range(2))
        self.project = nn.Sequential(
            *(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        )
        self.query, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.keys = nn.Linear(width, answers * width, bias=False)
        self.answer = nn.Linear(width, answers)
        self.branch = nn.ModuleDict({part: nn.Linear(width, answers) for part in (SHARED, *MODALITIES)})

    def respond(
        self,
        audio: Tensor | None,
        visual: Tensor | None,
        question: Tensor,
        negative: Tensor | None,
        answer: Tensor | None = None,
    ) -> tuple[Tensor, Losses]:
        """Logits, and the losses that samples with these modalities have."""
        asked, _, _ = self.question(question)
        sound = None if audio is None else self.audio(audio)
        frame = None if visual is None else self._grounded(sound, places(visual, self.spec))
        distinct, shared = self._parts(asked, sound, frame)
        parts = {SHARED: pooled(list(shared.values())), **distinct}
        logits, attention = self._fused(torch.stack(list(parts.values()), dim=1))
        losses = {"orthogonality": sum(F.cosine_similarity(distinct[m], x).abs() for m, x in shared.items())}
        if answer is not None:
            losses |= self._answered(parts, attention, answer)
        if len(shared) == len(MODALITIES):
            losses["divergence"] = divergence(*shared.values())
        if sound is not None and frame is not None and negative is not None:
            other = self._grounded(sound, places(negative, self.spec))
            losses["match"] = self._match_loss(sound, frame, other)
        return logits, losses  # type: ignore[return-value]

    def _parts(self, asked: Tensor, sound: Tensor | None, frame: Tensor | None) -> tuple[Parts, Parts]:
        """Distinct and shared parts of the modalities that there are."""
        distinct: Parts = {}
        shared: Parts = {}
        for m, sequence in zip(MODALITIES, (sound, frame), strict=True):
            if sequence is not None:
                found = getattr(self, f"attend_{m}")(asked, sequence)
                distinct[m] = self.distinct[m](found, asked)
                shared[m] = self.project(self.shared[m](self.look_shared[m](asked, sequence), asked))
        return distinct, shared

    def _fused(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Parts [B, K, d], attended to by every answer: logits [B, A] and the attention [B, A, K]."""
        keys = self.keys(parts).unflatten(-1, (-1, parts.shape[-1]))  # [B, K, A, d]
        scores = torch.einsum("bd,bkad->bak", self.query(parts).mean(dim=1), keys)
        attention = (scores / parts.shape[-1] ** 0.5).softmax(dim=-1)
        found = attention @ self.value(parts)  # [B, A, d]
        return (found * self.answer.weight).sum(dim=-1) + self.answer.bias, attention

    def _answered(self, parts: Parts, attention: Tensor, answer: Tensor) -> Losses:
        """`branches`, and where all three parts are there `ranking`, [B] each."""
        logits = [self.branch[name](part).float() for name, part in parts.items()]
        each = [F.cross_entropy(x, answer, ignore_index=NO_ANSWER, reduction="none") for x in logits]
        losses = {"branches": torch.stack(each).sum(dim=0)}
        if len(parts) == 1 + len(MODALITIES):
            losses["ranking"] = ranking(torch.stack(logits, dim=-1).detach(), attention, answer)
        return losses


class _Part(nn.Module):
    """What the question found [B, D], times the question as in AVST's head, at the parts' width [B, d]."""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.fuse, self.exit = nn.Linear(dim, dim), nn.Linear(dim, width)

    def forward(self, found: Tensor, asked: Tensor) -> Tensor:
        """Found and asked, [B, D] each, to a part [B, d]."""
        return self.exit((self.fuse(found.tanh()) * asked).tanh())


def pooled(shared: list[Tensor]) -> Tensor:
    """The logit of the mean of the sigmoids of one or two [B, d]; of one it is that one."""
    if len(shared) == 1:
        return shared[0]
    one, other = (x.float() for x in shared)
    log_odds = torch.logaddexp(F.logsigmoid(one), F.logsigmoid(other))
    return (log_odds - torch.logaddexp(F.logsigmoid(-one), F.logsigmoid(-other))).to(shared[0].dtype)


def divergence(one: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon divergence of Bernoulli variables with these logits [B, d], in nats, summed over d: [B]."""
    total = torch.zeros_like(one, dtype=torch.float32)
    for sign in (1, -1):  # of the outcome 1 and of the outcome 0
        logs = [F.logsigmoid(sign * x.float()) for x in (one, other)]
        mean = torch.logaddexp(*logs) - math.log(2)
        total = total + sum(0.5 * log.exp() * (log - mean) for log in logs)
    return total.sum(dim=-1)


def ranking(logits: Tensor, attention: Tensor, answer: Tensor) -> Tensor:
    """How far the attention prefers parts that are less right about a class.

    Args:
        logits: of every part, [B, A, K], detached.
        attention: [B, A, K].
        answer: int64 [B]; -1 is not known, and such a sample's loss is 0.

    Returns:
        the mean over pairs of parts of the violation, its sum over the classes over how many violate, [B].
    """
    right = F.one_hot(answer.clamp_min(0), logits.shape[1]).bool()[..., None]
    probability = logits.softmax(dim=1)
    rightness = torch.where(right, probability, -probability)
    pairs = []
    for i, j in combinations(range(logits.shape[-1]), 2):
        better = torch.where(rightness[..., i] > rightness[..., j], 1.0, -1.0)
        violation = (-better * (attention[..., i] - attention[..., j]).float()).relu()  # [B, A]
        pairs.append(violation.sum(dim=1) / (violation.detach() > 0).sum(dim=1).clamp_min(1))
    return torch.stack(pairs).mean(dim=0) * (answer != NO_ANSWER)
