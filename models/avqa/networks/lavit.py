"""LAViT, the network of Pano-AVQA: language, audio and visual transformers, then layers that cross them.

Yun et al., *Pano-AVQA: Grounded Audio-Visual Question Answering on 360° Videos*, ICCV 2021
(HS-YN/PanoAVQA). Post-norm (BERT) layers. In a cross layer language looks at audio, audio at visual, visual
at language, all at the same time; then each attends to itself and has its feed-forward layer. Defaults are
the paper's: width 768, 12 heads, 9 language, 5 visual, 5 audio, 5 cross layers.

Different from the paper, for want of its inputs:
- Its 36 detected regions are, here, cells of the grid of every step, averaged to `grid` x `grid` where the
  features have more (4 x 4 x 10 steps = 160 regions), with the coordinates centre x, centre y, width,
  height and time, all in [0, 1]. A frame token is one more region, which covers the frame.
- Its 18 sounds per channel are the T audio steps, with start and end in [0, 1].
- Words are embedded here, not by a pretrained BERT; a learned summary token stands before them, in the
  place of its [CLS]. That token is pooled; of audio and visual the mean, where the released code takes the
  first row, which would be a grid's corner.
- The four heads of its pretraining, and their losses, are left out.

For published weights, settings bring its own back: `coordinates=features` (regions and sounds with their own
coordinates, the last channels of their features), `stereo`, `pool=first`, `eps`.

In a cross layer each stream looks at the next of the ring language, audio, visual; an absent modality is left
out of the ring, so without sound the language looks at the picture, and without a picture the sound looks at
the language. Its pooled vector adds nothing to the head.

Shapes: B questions, L words, T steps, R regions, D width, A answers.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses
from models.avqa.networks.common import FeedForward, attention, places, word_mask
from models.avqa.networks.grouped import GroupedNetwork

Pool = Literal["mean", "first"]
Coordinates = Literal["grid", "features"]
SOUND_AT, REGION_AT = 3, 6  # start, duration, harmonics; time and quaternion box: released coordinates
_SCALE = 0.02  # standard deviation of BERT's initial embeddings


class Attend(nn.Module):
    """LayerNorm(x + attention of x to a context)."""

    def __init__(self, dim: int, heads: int, dropout: float, eps: float = 1e-5):
        super().__init__()
        self.attention = attention(dim, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor, context: Tensor, padding: Tensor | None) -> Tensor:
        """[B, N, D], [B, M, D], bool [B, M] True at padding -> [B, N, D]."""
        found, _ = self.attention(x, context, context, key_padding_mask=padding, need_weights=False)
        return self.norm(x + self.dropout(found))


class Layer(nn.Module):
    """Self-attention and feed-forward layer."""

    def __init__(self, dim: int, heads: int, dropout: float, eps: float = 1e-5):
        super().__init__()
        self.attend = Attend(dim, heads, dropout, eps)
        self.feed_forward = FeedForward(dim, 4 * dim, dropout, inner=0.0, activation=nn.GELU, eps=eps)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:  # [B, N, D], bool [B, N]
        """Tokens [B, N, D] to [B, N, D]; `padding`, bool [B, N], is not attended to."""
        return self.feed_forward(self.attend(x, x, padding))


class CrossLayer(nn.Module):
    """Language looks at audio, audio at visual, visual at language; then a layer of each one's own."""

    def __init__(self, dim: int, heads: int, dropout: float, eps: float = 1e-5):
        super().__init__()
        names = ("language", "audio", "visual")
        self.look = nn.ModuleDict({name: Attend(dim, heads, dropout, eps) for name in names})
        self.own = nn.ModuleDict({name: Layer(dim, heads, dropout, eps) for name in names})

    def forward(self, streams: dict[str, Tensor], padding: Tensor) -> dict[str, Tensor]:
        """Streams [B, N, D] in the order of the ring, language first, whose padding [B, 1 + L] is True -> the
        same again."""
        names = list(streams)
        masks = {"language": padding}
        looked = {
            name: self.look[name](streams[name], streams[other], masks.get(other))
            for name, other in zip(names, [*names[1:], names[0]], strict=True)
        }
        return {name: self.own[name](x, masks.get(name)) for name, x in looked.items()}


class Located(nn.Module):
    """Features with coordinates: mean of both, each through a linear layer and a LayerNorm.

    Args:
        channels: of the features (left and right), each with layers of its own.
    """

    def __init__(self, width: int, coordinates: int, dim: int, dropout: float, eps: float = 1e-5, channels: int = 1):
        super().__init__()
        self.feature = nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim, eps=eps))
        self.coordinate = nn.Sequential(nn.Linear(coordinates, dim), nn.LayerNorm(dim, eps=eps))
        self.others = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim, eps=eps)) for _ in range(channels - 1)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, at: Tensor) -> Tensor:  # [B, N, width], [N, coordinates] -> [B, N, D]
        """Features [B, N, channels x width] at coordinates [N, coordinates] (or [B, N, coordinates]) to tokens
        [B, N, D]."""
        first, *others = x.chunk(1 + len(self.others), dim=-1)
        parts = [self.feature(first), *(layer(y) for layer, y in zip(self.others, others, strict=True))]
        return self.dropout((sum(parts[1:], parts[0]) + self.coordinate(at)) / (1 + len(parts)))


class Language(nn.Module):
    """Word and position embeddings after a learned summary token.

    Args:
        text: the most words that a question may be padded to.
    """

    def __init__(self, words: int, text: int, dim: int, dropout: float, eps: float = 1e-5):
        super().__init__()
        self.summary = nn.Parameter(_SCALE * torch.randn(dim))
        self.word = nn.Embedding(words, dim, padding_idx=0)
        self.position = nn.Parameter(_SCALE * torch.randn(text, dim))
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.word.weight.mul_(_SCALE)

    def forward(self, question: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B, L] -> tokens [B, 1 + L, D] and bool [B, 1 + L], True at padding.

        Raises:
            ValueError: a question longer than there are positions for.
        """
        batch, length = question.shape
        if length > len(self.position):
            raise ValueError(f"questions of {length} words; there are positions for {len(self.position)}")
        words = self.word(question) + self.position[:length]
        tokens = torch.cat([self.summary.expand(batch, 1, -1), words], dim=1)
        padding = F.pad(~word_mask(question), (1, 0), value=False)
        return self.dropout(self.norm(tokens)), padding


class LAViT(GroupedNetwork):
    """Language-audio-visual transformer.

    Args:
        spec: sizes of the features.
        words, answers: vocabulary sizes.
        dim, heads, dropout: of every layer.
        language, visual, audio, cross: numbers of layers.
        grid: most regions along either side of a step's picture.
        text: the most words that a question may be padded to (paper: 60 word pieces).
        eps: of every LayerNorm; 1e-12 in the released code.
        pool: what of sounds and regions is pooled: their `mean`, or the `first` row, as released, which its
            features keep for the mean of the others.
        coordinates: `grid`: of the grid's cells and the steps. `features`: the last channels of the features are
            their coordinates (3 of a sound, 6 of a region, as released), and each row is a region.
        stereo: the sound's features are those of left and right, one after the other, with layers each.

    Raises:
        ValueError: no such pool or coordinates; features too narrow to hold coordinates.
    """

    sounds_at: Tensor  # [T, 2]
    regions_at: Tensor  # [R, 5]
    cells: Tensor  # [grid^2, P]

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        answers: int,
        *,
        dim: int = 768,
        heads: int = 12,
        language: int = 9,
        visual: int = 5,
        audio: int = 5,
        cross: int = 5,
        grid: int = 4,
        text: int = 60,
        dropout: float = 0.1,
        eps: float = 1e-5,
        pool: Pool = "mean",
        coordinates: Coordinates = "grid",
        stereo: bool = False,
    ):
        super().__init__()
        for name, value, known in (("pool", pool, Pool), ("coordinates", coordinates, Coordinates)):
            if value not in get_args(known):
                raise ValueError(f"{name} {value!r}: one of {', '.join(get_args(known))}")
        self.spec, self.first, self.located = spec, pool == "first", coordinates == "features"
        self.embed = Language(words, text, dim, dropout, eps)
        channels = 1 + stereo
        sound, region = (spec.audio - SOUND_AT * self.located) // channels, spec.visual - REGION_AT * self.located
        if min(sound, region) < 1:
            raise ValueError(f"features of widths {spec.audio} and {spec.visual} hold no coordinates beside them")
        self.audio_in = Located(sound, SOUND_AT if self.located else 2, dim, dropout, eps, channels)
        self.visual_in = Located(region, REGION_AT if self.located else 5, dim, dropout, eps)
        if not self.located:
            grid = min(grid, spec.side)
            self.register_buffer("sounds_at", sound_coordinates(spec), persistent=False)
            self.register_buffer("regions_at", region_coordinates(spec, grid), persistent=False)
            self.register_buffer("cells", cell_weights(spec.side, grid), persistent=False)

        def layers(count: int, kind: type[nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(kind(dim, heads, dropout, eps) for _ in range(count))

        self.language, self.visual, self.audio = (layers(n, Layer) for n in (language, visual, audio))
        self.cross = layers(cross, CrossLayer)
        self.pool = nn.ModuleList(nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) for _ in range(3))
        self.head = nn.Sequential(
            nn.Linear(3 * dim, 6 * dim), nn.GELU(), nn.LayerNorm(6 * dim, eps=eps), nn.Linear(6 * dim, answers)
        )

    def respond(
        self, audio: Tensor | None, visual: Tensor | None, question: Tensor, negative: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """Logits; no losses of its own, and no use for `negative`. Raises ValueError: a question longer than `text`."""
        words, padding = self.embed(question)
        streams = {"language": words}
        if audio is not None:
            streams["audio"] = self.audio_in(*self._heard(audio))
        if visual is not None:
            streams["visual"] = self.visual_in(*self._seen(visual))
        for layer in self.language:
            streams["language"] = layer(streams["language"], padding)
        for name, layers in (("visual", self.visual), ("audio", self.audio)):
            for layer in layers if name in streams else ():
                streams[name] = layer(streams[name])
        for layer in self.cross:
            streams = layer(streams, padding)
        return self.head(self._pooled(streams)), {}

    def _pooled(self, streams: dict[str, Tensor]) -> Tensor:
        """The summary token and the means (or first rows) of sounds and regions, each pooled, [B, 3 D]; zeros for
        what is absent."""
        rows = {name: x[:, 0] if self.first else x.mean(dim=1) for name, x in streams.items()}
        rows["language"] = streams["language"][:, 0]
        parts = [
            pool(rows[name]) if name in rows else torch.zeros_like(rows["language"])
            for name, pool in zip(("language", "audio", "visual"), self.pool, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def _heard(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Sounds [B, T, Da], and where they are, [T, 2] or [B, T, 3]."""
        if self.located:
            return audio[..., :-SOUND_AT], audio[..., -SOUND_AT:]
        return audio, self.sounds_at

    def _seen(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Regions [B, R, Dv], and where they are, [R, 5] or [B, R, 6]."""
        if self.located:
            rows = visual.flatten(1, 2)
            return rows[..., :-REGION_AT], rows[..., -REGION_AT:]
        return self._regions(visual), self.regions_at

    def _regions(self, visual: Tensor) -> Tensor:
        """Grids averaged to at most `grid` x `grid` cells, the frame token before them:
        [B, T, rows, Dv] -> [B, R, Dv]."""
        cells = torch.einsum("rp,btpd->btrd", self.cells, places(visual, self.spec))
        if self.spec.frame_token:
            cells = torch.cat([visual[:, :, :1], cells], dim=2)
        return cells.flatten(1, 2)


def cell_weights(side: int, grid: int) -> Tensor:
    """Means of cells as one product, [grid^2, side^2], rows summing to 1.

    The places that lie in a cell, partly at least, weigh the same: adaptive average pooling, whose own
    gradient is not the same to the bit from run to run on a GPU.
    """
    line = torch.zeros(grid, side)
    for i in range(grid):
        start, end = i * side // grid, -(-(i + 1) * side // grid)
        line[i, start:end] = 1 / (end - start)
    return torch.kron(line, line)


def sound_coordinates(spec: FeatureSpec) -> Tensor:
    """Start and end of each audio step as parts of the clip, [T, 2]."""
    edges = torch.arange(spec.steps + 1) / spec.steps
    return torch.stack([edges[:-1], edges[1:]], dim=1)


def region_coordinates(spec: FeatureSpec, grid: int) -> Tensor:
    """Centre x, centre y, width, height, time of each region as parts of picture and clip, [R, 5]: step by
    step, row by row, the frame token's whole picture first."""
    centre = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    size = torch.full_like(x, 1 / grid)
    cells = torch.stack([x, y, size, size], dim=-1).flatten(0, 1)  # [grid^2, 4]
    if spec.frame_token:
        cells = torch.cat([torch.tensor([[0.5, 0.5, 1.0, 1.0]]), cells])
    time = ((torch.arange(spec.steps) + 0.5) / spec.steps).repeat_interleave(len(cells))
    return torch.cat([cells.repeat(spec.steps, 1), time[:, None]], dim=1)
