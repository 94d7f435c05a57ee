"""AVST: spatial grounding of the sound in each frame, then temporal grounding by the question.

Li et al., *Learning to Answer Questions in Dynamic Audio-Visual Scenarios*, CVPR 2022 (GeWu-Lab/MUSIC-AVQA,
`net_grd_avst`). What the released network holds and never uses (a second audio MLP, a ResNet) is left out;
its visual features come from shards. Defaults are the paper's sizes: 512 everywhere, 4 heads.

Where the features' width Dv is not the network's, a linear layer brings it there first; at the paper's
sizes there is none. A frame token is dropped.

Without sound nothing points at a place, so a frame is the mean of its places beside the mean of the same
places scaled to length 1 (what equal weights give), and the question's attention to the sound adds nothing to
the fusion. Without a picture its attention to the frames adds nothing. The match loss needs both.

Shapes: B questions, T steps, P places, D width of the network, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.common import FeedForward, QuestionEncoder, attention, places
from models.avqa.networks.grouped import GroupedNetwork


def ground(audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sound comes from: softmax over the places of their cosine similarity to the sound.

    Args:
        audio: [B, T, D].
        visual: [B, T, P, D].

    Returns:
        the weighted sum of the places, each scaled to length 1 [B, T, D], and the weights [B, T, P].
    """
    visual = F.normalize(visual, dim=-1)
    weights = torch.einsum("btd,btpd->btp", F.normalize(audio, dim=-1), visual).softmax(dim=-1)
    return torch.einsum("btp,btpd->btd", weights, visual), weights


class TemporalAttention(nn.Module):
    """The question looks at a sequence; what it finds goes through a feed-forward layer and joins the
    sequence's mean."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.attend = attention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, dim, dropout)

    def forward(self, question: Tensor, sequence: Tensor) -> Tensor:  # [B, D], [B, T, D] -> [B, D]
        """Question [B, D] and sequence [B, T, D] to [B, D]."""
        found, _ = self.attend(question[:, None], sequence, sequence, need_weights=False)
        return self.feed_forward(found[:, 0]) + sequence.mean(dim=1)


class AVST(GroupedNetwork):
    """Spatio-temporal grounding network.

    Args:
        spec: sizes of the features.
        words, answers: vocabulary sizes.
        dim: D (paper: 512).
        heads: of the question's two attentions.
        dropout: in those and their feed-forward layers.
        padding: the question's LSTM reads at least so many positions, padding words, too: 14 in the released code;
            0: it stops at the last word.

    Its loss `match`, whether sound and picture belong together, has the weight 0.5 of the released code.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"match": 0.5}
    takes_negatives = True

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 512,
        heads: int = 4,
        dropout: float = 0.1,
        padding: int = 0,
    ):
        super().__init__()
        self.spec = spec
        self.question = QuestionEncoder(words, dim, padding)
        self.audio = nn.Sequential(nn.Linear(spec.audio, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.visual = nn.Identity() if spec.visual == dim else nn.Linear(spec.visual, dim)
        self.frame = nn.Linear(2 * dim, dim)
        self.match = _match_head(dim)
        self.attend_audio = TemporalAttention(dim, heads, dropout)
        self.attend_visual = TemporalAttention(dim, heads, dropout)
        self.fuse = nn.Linear(2 * dim, dim)
        self.answer = nn.Linear(dim, answers)

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits; with both modalities and `negative` frames of other clips also the loss "match"."""
        asked, _, _ = self.question(question)
        sound = None if audio is None else self.audio(audio)
        frame = None if visual is None else self._grounded(sound, places(visual, self.spec))
        logits = self.answered(asked, sound, frame)
        if sound is None or frame is None or negative is None:
            return logits, {}
        other = self._grounded(sound, places(negative, self.spec))
        return logits, {"match": self._match_loss(sound, frame, other)}

    def answered(self, asked: Tensor, sound: Tensor | None, frame: Tensor | None) -> Tensor:
        """Logits [B, A] of the question [B, D] about sound and frames [B, T, D] each."""
        fused = self.fuse(torch.cat(self.found(asked, sound, frame), dim=1).tanh())
        return self.answer((fused * asked).tanh())

    def found(self, asked: Tensor, sound: Tensor | None, frame: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the question [B, D] finds in the sound and in the frames [B, T, D], [B, D] each; zeros where there is
        none."""
        heard = seen = torch.zeros_like(asked)
        if sound is not None:
            heard = self.attend_audio(asked, sound)
        if frame is not None:
            seen = self.attend_visual(asked, frame)
        return heard, seen

    def _grounded(self, sound: Tensor | None, visual: Tensor) -> Tensor:
        """Places [B, T, P, Dv] as frames, [mean of the places ; what the sound points at]: [B, T, D]."""
        grid = self.visual(visual)
        grounded = F.normalize(grid, dim=-1).mean(dim=2) if sound is None else ground(sound, grid)[0]
        return self.frame(torch.cat([grid.mean(dim=2), grounded], dim=-1).tanh())

    def _match_loss(self, sound: Tensor, frame: Tensor, other: Tensor) -> Tensor:
        """Cross-entropy of "this sound belongs to this frame", own frames (1) and others (0): [B]."""
        pairs = torch.cat([torch.cat([sound, x], dim=-1) for x in (frame, other)], dim=1)  # [B, 2 T, 2 D]
        own = torch.zeros(pairs.shape[:2], dtype=torch.long, device=pairs.device)
        own[:, : frame.shape[1]] = 1
        return F.cross_entropy(self.match(pairs).transpose(1, 2), own, reduction="none").mean(dim=1)


def _match_head(dim: int) -> nn.Sequential:
    """2 D -> D -> D / 2 -> D / 4 -> 2."""
    widths = [2 * dim, dim, dim // 2, dim // 4]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2))
