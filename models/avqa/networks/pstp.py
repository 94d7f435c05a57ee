"""PSTP-Net: keep the segments, then the patches, that the question is about.

Li et al., *Progressive Spatio-temporal Perception for Audio-Visual Question Answering*, ACM MM 2023
(GeWu-Lab/PSTP-Net). Two modes:

- `paper` (default): segments chosen by the question, in them patches chosen by the question, the sound's
  attention to those patches, global perception of both streams; all of these, the steps themselves and the
  words are tokens of one self-attention, whose mean, times the question, is classified.
- `released`: what the released forward computes. It runs its selection modules and then leaves their result
  out: steps and words alone go through the self-attention. (That result would mix samples: one list of
  patches, that of the batch's first sample and frame, serves everyone, and each is written over the one
  before, so that M copies of one patch are left. `paper` chooses per sample and frame and keeps M patches.)
  Modules without effect on the answer are not built.

Different from both: the choice of the best is no function with a gradient, so the released selection never
learns; here what was chosen is multiplied by its attention weight relative to a uniform one (1 where the
question makes no difference). By default the paper's CLIP question and words are, here, the question LSTM's;
`text` has CLIP's own. Padding words are masked (in `released` mode CLIP's 77 rows count, padding too). Global
perception returns what it computed (the released one its input), both streams at the same time. Stacked layers
follow each other (in the released code each of them gets the same input and the last one's output is used, so that
one layer is the same network).

An absent modality has no tokens: segments are chosen by what is there, without a picture there are no patches,
without sound nothing attends to them, and in global perception the other stream looks at itself alone.

Defaults are the paper's: width 512, 12 segments of which 2 are kept, 25 patches. Of T steps there are
min(12, T) segments of equal length, ceil(T / segments); where that doesn't divide T they overlap a little.
The frame feature is the frame token, or the mean of the places where there is none.

Shapes: B questions, T steps, P places, S segments, N candidates, L words, M patches, D width, A answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.common import (
    FeedForward,
    QuestionEncoder,
    attention,
    frames,
    masked_mean,
    places,
)
from models.avqa.networks.grouped import GroupedNetwork
from models.clip import TEXT_LENGTH, encode_text_ids, end_of_text, text_tower

Text = Literal["lstm", "clip", "lstm+clip"]


def segment_steps(steps: int, segments: int) -> Tensor:
    """Which steps each segment holds, int64 [S, ceil(T / S)] with S = min(segments, T).

    Evenly spread from the first to the last step; every step is in one at least.
    """
    count = min(segments, steps)
    length = math.ceil(steps / count)
    starts = [i * (steps - length) // max(1, count - 1) for i in range(count)]
    return torch.tensor(starts)[:, None] + torch.arange(length)


def best(weights: Tensor, count: int) -> Tensor:
    """Positions of the `count` greatest, in ascending order; of equal ones the first come first.

    [..., N] -> [..., count].
    """
    order = weights.detach().sort(dim=-1, descending=True, stable=True).indices
    return order[..., :count].sort(dim=-1).values


def pick(rows: Tensor, chosen: Tensor) -> Tensor:
    """Each sample's own rows: [B, N, ...] and int64 [B, K] -> [B, K, ...]."""
    return rows[torch.arange(len(rows), device=rows.device)[:, None], chosen]


class Relevance(nn.Module):
    """The question's attention weights over candidates, relative to uniform ones (their mean is 1)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by heads {heads}")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # softmax takes no notice of a bias

    def forward(self, question: Tensor, candidates: Tensor) -> Tensor:  # [B, D], [B, N, D] -> [B, N]
        """Weights [B, N], of mean 1, of the candidates [B, N, D] for a question [B, D]."""
        query = self.query(question).unflatten(-1, (self.heads, -1))
        key = self.key(candidates).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("bhd,bnhd->bhn", query, key) / query.shape[-1] ** 0.5
        return scores.softmax(dim=-1).mean(dim=1) * candidates.shape[1]


class Perception(nn.Module):
    """A stream attends to itself and, where there is one, to the other; then its feed-forward layer."""

    def __init__(self, dim: int, dropout: float, cross: bool):
        super().__init__()
        self.own = attention(dim, 1, dropout)
        self.other = attention(dim, 1, dropout) if cross else None
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, dim, dropout)

    def forward(self, x: Tensor, other: Tensor | None = None, padding: Tensor | None = None) -> Tensor:
        """[B, N, D], [B, M, D], bool [B, N] True at padding -> [B, N, D]."""
        found = self.dropout(self.own(x, x, x, key_padding_mask=padding, need_weights=False)[0])
        if self.other is not None and other is not None:
            found = found + self.dropout(self.other(x, other, other, need_weights=False)[0])
        return self.feed_forward(self.norm(x + found))


class Selection(nn.Module):
    """The three steps of `paper` between features and fusion.

    Args:
        top_segments, top_patches: how many are kept (all, where there are fewer).
    """

    steps: Tensor  # int64 [S, length]

    def __init__(
        self,
        spec: FeatureSpec,
        dim: int,
        heads: int,
        segments: int,
        top_segments: int,
        top_patches: int,
        dropout: float,
    ):
        super().__init__()
        self.spec, self.top_segments, self.top_patches = spec, top_segments, top_patches
        self.register_buffer("steps", segment_steps(spec.steps, segments), persistent=False)
        self.segment = nn.Linear(2 * dim, dim, bias=False)  # as in `Relevance`, nothing would notice one
        self.which_segment = Relevance(dim, heads)
        self.patch = nn.Linear(spec.visual, dim)
        self.which_patch = Relevance(dim, heads)
        self.guide = attention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, dim, dropout)

    def forward(
        self, audio: Tensor | None, frame: Tensor | None, visual: Tensor | None, question: Tensor
    ) -> list[Tensor]:
        """What the question is about.

        Args:
            audio, frame: [B, T, D]; None: absent.
            visual: features [B, T, rows, Dv]; None: absent.
            question: [B, D].

        Returns:
            of what there is: audio and frames of the chosen K steps [B, K, D], their chosen patches
            [B, K M, D], and, with both, what the sound of each step finds in its own [B, K, D].
        """
        chosen, gate = self.chosen_steps(audio, frame, question)
        audio, frame = (None if x is None else gate[..., None] * pick(x, chosen) for x in (audio, frame))
        found = [x for x in (audio, frame) if x is not None]
        if visual is None:
            return found
        patches = self.chosen_patches(pick(places(visual, self.spec), chosen), question)  # [B, K, M, D]
        found.append(patches.flatten(1, 2))
        if audio is not None:
            flat = patches.flatten(0, 1)
            heard, _ = self.guide(audio.flatten(0, 1)[:, None], flat, flat, need_weights=False)
            found.append(self.feed_forward(heard[:, 0]).unflatten(0, chosen.shape))
        return found

    def chosen_steps(self, audio: Tensor | None, frame: Tensor | None, question: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of the segments that the question is about, int64 [B, K], and their relevance [B, K]."""
        means = [None if x is None else x[:, self.steps].mean(dim=2) for x in (audio, frame)]  # [B, S, D]
        nothing = torch.zeros_like(next(x for x in means if x is not None))
        both = torch.cat([nothing if x is None else x for x in means], dim=-1)
        relevance = self.which_segment(question, self.segment(both.tanh()))
        kept = best(relevance, min(self.top_segments, len(self.steps)))
        gate = relevance.gather(1, kept).repeat_interleave(self.steps.shape[1], dim=1)
        return self.steps[kept].flatten(1), gate

    def chosen_patches(self, visual: Tensor, question: Tensor) -> Tensor:
        """Of each step the patches that the question is about, times their relevance:
        [B, K, P, Dv] -> [B, K, M, D]."""
        patches = self.patch(visual).flatten(0, 1)  # [B K, P, D]
        relevance = self.which_patch(question.repeat_interleave(visual.shape[1], dim=0), patches)
        kept = best(relevance, min(self.top_patches, patches.shape[1]))
        chosen = relevance.gather(1, kept)[..., None] * pick(patches, kept)
        return chosen.unflatten(0, visual.shape[:2])


class ClipText(nn.Module):
    """CLIP's own question and 77 words, through a linear layer each; the tower is frozen.

    Args:
        words: vocabulary size of the LSTM.
        dim: D.
        lstm: the question is the LSTM's, the words alone are CLIP's.
        padding: of the LSTM.
        masked: padding rows are no words.
        sizes: of the tower (`models.clip.text_tower`).
    """

    def __init__(self, words: int, dim: int, lstm: bool, padding: int, masked: bool, sizes: Mapping[str, int]):
        super().__init__()
        self.tower, self.masked = text_tower(**sizes), masked
        width = self.tower.text_projection.shape[1]
        self.question = QuestionEncoder(words, dim, padding) if lstm else nn.Linear(width, dim)
        self.width = width

    def forward(self, question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """CLIP's ids [B, 77], after the LSTM's [B, L] where that reads the question -> the question [B, D], CLIP's
        words [B, 77, width], their mask [B, 77].

        Raises:
            ValueError: fewer ids than CLIP's.
        """
        if question.shape[1] < TEXT_LENGTH:
            raise ValueError(f"a question of {question.shape[1]} ids: CLIP's are {TEXT_LENGTH}")
        ids = question[:, -TEXT_LENGTH:]
        with torch.no_grad():
            words, whole = encode_text_ids(self.tower, ids)
        if isinstance(self.question, QuestionEncoder):
            asked = self.question(question[:, :-TEXT_LENGTH])[0]
        else:
            asked = self.question(whole)
        last = end_of_text(ids)[:, None]
        mask = torch.arange(TEXT_LENGTH, device=ids.device) <= last if self.masked else torch.ones_like(ids).bool()
        return asked, words, mask


class PSTPNet(GroupedNetwork):
    """Progressive spatio-temporal perception network.

    Args:
        spec: sizes of the features.
        words, answers: vocabulary sizes.
        dim, heads, dropout: width, heads of the question's and the sound's attentions (perception has one).
        segments, top_segments, top_patches: see the head of this file.
        layers: of global perception and of the last self-attention.
        mode: `paper` or `released`.
        text: `lstm`: question and words of the question LSTM. `clip`: of CLIP's frozen text tower, whose ids the
            question is (vocabulary rule `clip`). `lstm+clip`: the LSTM's question, CLIP's words (`released+clip`).
            CLIP's weights come with an imported network alone.
        lstm_words: the LSTM's vocabulary size, where CLIP's ids come beside its own; `words` unless given.
        clip: sizes of the tower, over those of ViT-B/32's: width, heads, layers, dim.
        padding: the question's LSTM reads at least so many positions, padding words, too: 14 in the released code.

    Raises:
        ValueError: no such mode or text.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 512,
        heads: int = 4,
        segments: int = 12,
        top_segments: int = 2,
        top_patches: int = 25,
        layers: int = 1,
        dropout: float = 0.1,
        mode: Literal["paper", "released"] = "paper",
        text: Text = "lstm",
        clip: Mapping[str, int] | None = None,
        lstm_words: int | None = None,
        padding: int = 0,
    ):
        super().__init__()
        if text not in get_args(Text):
            raise ValueError(f"text {text!r}: one of {', '.join(get_args(Text))}")
        if mode not in ("paper", "released"):
            raise ValueError(f"mode {mode!r} is not paper or released")
        self.spec = spec
        self.question: nn.Module
        if text == "lstm":
            self.question, width = QuestionEncoder(words, dim, padding), dim
        else:
            self.question = ClipText(
                lstm_words or words, dim, text == "lstm+clip", padding, mode == "paper", clip or {}
            )
            width = self.question.width
        self.audio, self.frame = nn.Linear(spec.audio, dim), nn.Linear(spec.visual, dim)
        self.word = nn.Linear(width, dim)
        self.select, self.perceive = None, nn.ModuleList()
        if mode == "paper":
            self.select = Selection(spec, dim, heads, segments, top_segments, top_patches, dropout)
            self.perceive = nn.ModuleList(Perception(dim, dropout, cross=True) for _ in range(layers))
        self.fuse = nn.ModuleList(Perception(dim, dropout, cross=False) for _ in range(layers))
        self.answer = nn.Linear(dim, answers)

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits; no losses of its own, and no use for `negative`."""
        asked, words, mask = self.question(question)
        sound = None if audio is None else self.audio(audio)
        frame = None if visual is None else self.frame(frames(visual, self.spec))
        tokens = [x for x in (sound, frame) if x is not None]
        if self.select is not None:
            tokens += self.select(sound, frame, visual, asked)
            tokens += self._perceived(sound, frame)
        fused = torch.cat([*tokens, self.word(words)], dim=1)
        kept = torch.cat([mask.new_ones(len(mask), fused.shape[1] - mask.shape[1]), mask], dim=1)
        for layer in self.fuse:
            fused = layer(fused, padding=~kept)
        return self.answer((masked_mean(fused, kept) * asked).tanh()), {}

    def _perceived(self, sound: Tensor | None, frame: Tensor | None) -> list[Tensor]:
        """The streams that there are after looking at themselves and at each other; one layer serves both."""
        for layer in self.perceive:
            sound, frame = (None if x is None else layer(x, other) for x, other in ((sound, frame), (frame, sound)))
        return [x for x in (sound, frame) if x is not None]
