"""What the question-answering networks share: the question's LSTM, attention, rows of the picture.

A question's padding never reaches a result: the LSTM is packed, attention and means are masked. A question
without any word is read as one padding word. (`padding`, for published weights, has the LSTM read so many
positions at least: a number that does not depend on the batch either.)

Shapes: B questions, L words, T steps, P places, N tokens, D width of a network.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.avqa.batch import FeatureSpec
from models.host import index, on_host


def places(visual: Tensor, spec: FeatureSpec) -> Tensor:
    """The places alone, without the frame token: [B, T, rows, Dv] -> [B, T, P, Dv]."""
    return visual[:, :, 1:] if spec.frame_token else visual


def frames(visual: Tensor, spec: FeatureSpec) -> Tensor:
    """One row per step: the frame token, or the mean of the places where there is none. [B, T, Dv]."""
    return visual[:, :, 0] if spec.frame_token else visual.mean(dim=2)


def word_mask(question: Tensor) -> Tensor:
    """Which positions are words, bool [B, L]: up to the last id that isn't 0, the first one always."""
    later = question.ne(0).flip(1).cummax(dim=1).values.flip(1)
    first = torch.arange(question.shape[1], device=question.device) == 0
    return later | first


def word_counts(question: Tensor) -> np.ndarray:
    """How many positions of each question `word_mask` keeps, int64 [B] on the host."""
    words = on_host(question) != 0
    return np.where(words, np.arange(1, words.shape[1] + 1), 1).max(axis=1)


def last_word(mask: Tensor) -> Tensor:
    """The last position of `mask` [B, L], bool [B, L]."""
    return mask & ~F.pad(mask[:, 1:], (0, 1), value=False)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that `mask` [B, N] keeps: [B, N, D] -> [B, D]."""
    kept = mask.to(tokens.dtype)
    return torch.einsum("bn,bnd->bd", kept / kept.sum(dim=1, keepdim=True), tokens)


def attention(dim: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    """Batch-first multi-head attention; ValueError where `heads` don't divide `dim`."""
    if dim % heads:
        raise ValueError(f"width {dim} is not divisible by heads {heads}")
    return nn.MultiheadAttention(dim, heads, dropout, batch_first=True)


class FeedForward(nn.Module):
    """LayerNorm(x + W2 act(W1 x)), post-norm as in all four networks.

    Args:
        inner: dropout after the activation; `dropout` where None.
        eps: of the LayerNorm.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        dropout: float,
        inner: float | None = None,
        activation: type[nn.Module] = nn.ReLU,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden),
            activation(),
            nn.Dropout(dropout if inner is None else inner),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:  # [..., D]
        """[..., D] to [..., D]."""
        return self.norm(x + self.layers(x))


class WordLSTM(nn.Module):
    """Embedding and LSTM over a question's words, packed.

    Args:
        words: vocabulary size.
        dim: width of embedding and LSTM.
        squash: tanh on the embedding (AVST, PSTP-Net).
        padding: the LSTM reads at least so many positions, padding words (id 0, whose embedding is learnt then)
            after the last word. The released AVST and PSTP-Net read 14; 0: it stops at the last word.
    """

    def __init__(self, words: int, dim: int, squash: bool, padding: int = 0):
        super().__init__()
        self.embed = nn.Embedding(words, dim, padding_idx=None if padding else 0)
        self.squash, self.padding = squash, padding
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(self, question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """int64 [B, L] -> states at each word [B, L, D] (0 at padding), their mask [B, L], last hidden and
        cell state [B, 2 D]."""
        mask, length = word_mask(question), question.shape[1]
        counts = np.maximum(word_counts(question), self.padding)
        question = F.pad(question, (0, max(0, self.padding - length)))
        embedded = self.embed(question)
        embedded = embedded.tanh() if self.squash else embedded
        lengths, order = torch.sort(torch.from_numpy(counts), descending=True)
        longest_first = index(order.numpy(), question.device)  # sorted here: `pack` would wait for the device
        as_given = index(order.argsort().numpy(), question.device)
        packed = pack_padded_sequence(embedded.index_select(0, longest_first), lengths, batch_first=True)
        states, (hidden, cell) = self.lstm(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=question.shape[1])
        states = states[:, :length]
        last = torch.cat([hidden[0], cell[0]], dim=1)
        return states.index_select(0, as_given), mask, last.index_select(0, as_given)


class QuestionEncoder(nn.Module):
    """AVST's question: embedding, tanh, LSTM, [hidden ; cell], tanh, linear. `padding` as of `WordLSTM`."""

    def __init__(self, words: int, dim: int, padding: int = 0):
        super().__init__()
        self.words = WordLSTM(words, dim, squash=True, padding=padding)
        self.out = nn.Linear(2 * dim, dim)

    def forward(self, question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """int64 [B, L] -> the question [B, D], states at each word [B, L, D], their mask [B, L]."""
        states, mask, last = self.words(question)
        return self.out(last.tanh()), states, mask
