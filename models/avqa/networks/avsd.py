"""AVSD: factor-graph attention over question, four frames and sound.

Schwartz et al., *A Simple Baseline for Audio-Visual Scene-Aware Dialog*, CVPR 2019, and *Factor Graph
Attention*, CVPR 2019 (idansc/simple-avsd). The original's decoder speaks a dialogue; here, as in the AVQA
papers that compare with it, a small MLP names the answer, and there is no dialogue history.

Defaults are the paper's: width 256, four frames. The frames are the middle steps of as many equal parts of
the T steps (all of them where T is smaller), with as many places as the features have (published: 7 x 7); a
frame token is dropped. Different from the released code: its dropout in the unary potential stays on in
evaluation (ours doesn't), and padding words have no potentials.

Shapes: B questions, n elements of one utility (words, places, steps), D width, A answers.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.networks.common import WordLSTM, masked_mean, places


class Pairwise(nn.Module):
    """How well an element agrees with all elements of the other utility: its mean cosine similarity to them,
    after a linear layer each."""

    def __init__(self, dim: int):
        super().__init__()
        self.x, self.y = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, D], [B, m, D] with masks -> potentials of x [B, n] and of y [B, m]."""
        x, y = F.normalize(self.x(x), dim=-1), F.normalize(self.y(y), dim=-1)
        x_mean, y_mean = (
            masked_mean(x, x_mask),
            masked_mean(y, y_mask),
        )  # mean of cosines = cosine to the mean
        return torch.einsum("bnd,bd->bn", x, y_mean), torch.einsum("bmd,bd->bm", y, x_mean)


class FactorGraphAttention(nn.Module):
    """Attention over several utilities at once.

    An element's score is a learned weighting (a 1x1 convolution without bias) of its unary potential, its
    agreement with its own utility and with each of the others, and, for the first utility, a given prior.

    Args:
        utilities: how many.
    """

    def __init__(self, dim: int, utilities: int, dropout: float):
        super().__init__()
        self.unary = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, dim),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.Linear(dim, 1, bias=False),  # softmax takes no notice of a bias
            )
            for _ in range(utilities)
        )
        self.pairs = nn.ModuleDict(
            {f"{i}-{j}": Pairwise(dim) for i, j in combinations_with_replacement(range(utilities), 2)}
        )
        self.reduce = nn.ModuleList(nn.Linear(utilities + 1 + (i == 0), 1, bias=False) for i in range(utilities))

    def forward(self, utilities: list[Tensor], masks: list[Tensor], prior: Tensor) -> list[Tensor]:
        """Utilities [B, n, D] with masks bool [B, n], the first's prior [B, n] -> attended, [B, D] each."""
        weights = self.weights(utilities, masks, prior)
        return [torch.einsum("bn,bnd->bd", w, u) for w, u in zip(weights, utilities, strict=True)]

    def weights(self, utilities: list[Tensor], masks: list[Tensor], prior: Tensor) -> list[Tensor]:
        """Attention over each utility's elements, [B, n] each, 0 where masked."""
        potentials: list[list[Tensor]] = [[unary(u)[..., 0]] for unary, u in zip(self.unary, utilities, strict=True)]
        for name, pair in self.pairs.items():
            i, j = map(int, name.split("-"))
            of_i, of_j = pair(utilities[i], utilities[j], masks[i], masks[j])
            potentials[i].append(of_i)
            if i != j:
                potentials[j].append(of_j)
        potentials[0].append(prior)
        scores = [r(torch.stack(p, dim=-1))[..., 0] for r, p in zip(self.reduce, potentials, strict=True)]
        return [s.masked_fill(~m, -torch.inf).softmax(dim=1) for s, m in zip(scores, masks, strict=True)]


class AVSD(nn.Module):
    """Audio-visual scene-aware dialogue network, answering questions.

    Args:
        spec: sizes of the features.
        words, answers: vocabulary sizes.
        dim: D (paper: 256).
        frames: steps that are looked at.
        dropout: in the unary potentials and the head.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 256,
        frames: int = 4,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.spec = spec
        parts = min(frames, spec.steps)
        self.chosen = [(2 * i + 1) * spec.steps // (2 * parts) for i in range(parts)]
        self.question = WordLSTM(words, dim, squash=False)
        self.audio = nn.Linear(spec.audio, dim)
        self.visual = nn.Linear(spec.visual, dim)
        self.attend = FactorGraphAttention(dim, len(self.chosen) + 2, dropout)
        self.sequence = nn.LSTM(dim, dim, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, answers))

    def forward(
        self, audio: Tensor, visual: Tensor, question: Tensor, negative: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, A], and no losses of its own; `negative` is not used.

        Args:
            audio: [B, T, Da].
            visual: [B, T, rows, Dv].
            question: int64 [B, L], 0 pads.
        """
        words, mask, _ = self.question(question)
        looked_at = self.visual(places(visual[:, self.chosen], self.spec)).unbind(dim=1)
        utilities = [words, *looked_at, self.audio(audio)]
        masks = [mask, *(mask.new_ones(u.shape[:2]) for u in utilities[1:])]
        last = F.one_hot(mask.sum(dim=1) - 1, mask.shape[1]).to(words.dtype)  # prior: the last word
        asked, *seen, heard = self.attend(utilities, masks, last)
        _, (hidden, _) = self.sequence(torch.stack([heard, *seen], dim=1))
        return self.head(torch.cat([asked, hidden[0]], dim=1)), {}
