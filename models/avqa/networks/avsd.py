"""AVSD: factor-graph attention over question, four frames and sound.

Schwartz et al., *A Simple Baseline for Audio-Visual Scene-Aware Dialog*, CVPR 2019, and *Factor Graph
Attention*, CVPR 2019 (idansc/simple-avsd). The original's decoder speaks a dialogue; here, as in the AVQA
papers that compare with it, a small MLP names the answer, and there is no dialogue history.

Defaults are the paper's: width 256, four frames. The frames are the middle steps of as many equal parts of
the T steps (all of them where T is smaller), with as many places as the features have (published: 7 x 7); a
frame token is dropped. Different from the released code: its dropout in the unary potential stays on in
evaluation (ours doesn't), and padding words have no potentials.

An absent modality is no utility: it has no potentials, gives none to the others, and is no step of the last
LSTM's sequence.

Shapes: B questions, n elements of one utility (words, places, steps), D width, A answers.
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.common import WordLSTM, last_word, masked_mean, places
from models.avqa.networks.grouped import GroupedNetwork

Utilities = dict[int, Tensor]  # by number: the words 0, frames from 1, the sound last


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

    def forward(self, utilities: Utilities, masks: Utilities, prior: Tensor) -> dict[int, Tensor]:
        """Utilities [B, n, D] by number with masks bool [B, n], the first's prior [B, n] -> attended, [B, D]
        each; those that are left out are absent."""
        weights = self.weights(utilities, masks, prior)
        return {i: torch.einsum("bn,bnd->bd", w, utilities[i]) for i, w in weights.items()}

    def weights(self, utilities: Utilities, masks: Utilities, prior: Tensor) -> dict[int, Tensor]:
        """Attention over each utility's elements, [B, n] each, 0 where masked."""
        potentials = {i: [self.unary[i](u)[..., 0]] for i, u in utilities.items()}
        for name, pair in self.pairs.items():
            i, j = map(int, name.split("-"))
            both = i in utilities and j in utilities
            of_i, of_j = pair(utilities[i], utilities[j], masks[i], masks[j]) if both else (None, None)
            for k, of_k in ((i, of_i), (j, of_j)) if i != j else ((i, of_i),):
                if k in utilities:
                    potentials[k].append(torch.zeros_like(potentials[k][0]) if of_k is None else of_k)
        potentials[0].append(prior)
        scores = {i: self.reduce[i](torch.stack(p, dim=-1))[..., 0] for i, p in potentials.items()}
        return {i: s.masked_fill(~masks[i], -torch.inf).softmax(dim=1) for i, s in scores.items()}


class AVSD(GroupedNetwork):
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

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits; no losses of its own, and no use for `negative`."""
        words, mask, _ = self.question(question)
        utilities = {0: words}
        if visual is not None:
            looked_at = self.visual(places(visual[:, self.chosen], self.spec)).unbind(dim=1)
            utilities |= dict(enumerate(looked_at, 1))
        if audio is not None:
            utilities[len(self.chosen) + 1] = self.audio(audio)
        masks = {i: mask.new_ones(u.shape[:2]) if i else mask for i, u in utilities.items()}
        asked, *seen = self.attend(utilities, masks, last_word(mask).to(words.dtype)).values()
        if audio is not None:
            seen = [seen[-1], *seen[:-1]]  # what is heard comes first
        _, (hidden, _) = self.sequence(torch.stack(seen, dim=1))
        return self.head(torch.cat([asked, hidden[0]], dim=1)), {}
