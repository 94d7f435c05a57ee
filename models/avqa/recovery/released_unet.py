"""The U-Net of the released AVR: that of denoising-diffusion-pytorch, as VisualAIKHU/Missing-AVQA has it.

Unlike `unet.UNet`: linear attention at every level but the last, in both directions; learned memory keys and
values beside the places' own; RMS norms, one more after linear attention; a level halves by taking 2 x 2 places
as channels, and doubles by nearest neighbour before its convolution, so the side must halve evenly; heads are
32 wide whatever the width. Timesteps count from 1 here, from 0 in the released code, which is what it gets.

Shapes: N pictures, C channels, W width of the first level, H x H grid; h heads, d their width, M memory keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.recovery.unet import Residual, sinusoids

HEADS, HEAD, MEMORY = 4, 32, 4


class ReleasedUNet(nn.Module):
    """Pictures [N, C, H, H] and timesteps [N] from 1 -> [N, C, H, H].

    Args:
        channels: C.
        width: W, a multiple of 8 (groups of the norms).
        multipliers: width of each level, in W; the grid's side halves between levels.
        stem: side of the first convolution's kernel.

    Raises:
        ValueError: a width that is no multiple of 8, an even stem.
    """

    def __init__(self, channels: int, width: int = 64, multipliers: Sequence[int] = (1, 2), stem: int = 7):
        super().__init__()
        if width % 8 or stem % 2 == 0:
            raise ValueError(f"stem {stem}, width {width}: the stem is odd, the width a multiple of 8")
        widths = [width, *(width * m for m in multipliers)]
        steps, last = list(pairwise(widths)), len(multipliers) - 1
        time = 4 * width
        self.width, self.halvings = width, last
        self.stem = nn.Conv2d(channels, width, stem, padding=stem // 2)
        self.time = nn.Sequential(nn.Linear(width, time), nn.GELU(), nn.Linear(time, time))
        self.downs = nn.ModuleList(
            Level(i, i, time, FullAttention(i) if n == last else LinearAttention(i), down(i, o, n == last))
            for n, (i, o) in enumerate(steps)
        )
        self.middle = nn.ModuleList([Residual(widths[-1], widths[-1], time) for _ in range(2)])
        self.attention = FullAttention(widths[-1])
        self.ups = nn.ModuleList(
            Level(i + o, o, time, FullAttention(o) if n == last else LinearAttention(o), up(o, i, n == 0))
            for n, (i, o) in reversed(list(enumerate(steps)))
        )
        self.last = Residual(2 * width, width, time)
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Noisy maps [N, C, H, H] at timesteps [N], 1..T, to a prediction of the same shape.

        Raises:
            ValueError: a side that does not halve evenly.
        """
        if x.shape[-1] % 2**self.halvings:
            raise ValueError(f"a grid of side {x.shape[-1]}: the released U-Net halves it {self.halvings} times")
        time = self.time(sinusoids(timestep - 1, self.width))
        x = stem = self.stem(x)
        seen: list[Tensor] = []
        level: Level
        for level in self.downs:  # type: ignore[assignment]
            first, second = level.blocks_of(x, time, (None, None))
            seen += [first, second]
            x = level.change(second)
        x = self.middle[0](x, time)
        x = self.middle[1](x + self.attention(x), time)
        for level in self.ups:  # type: ignore[assignment]
            _, second = level.blocks_of(x, time, (seen.pop(), seen.pop()))
            x = level.change(second)
        return self.out(self.last(torch.cat([x, stem], dim=1), time))


class Level(nn.Module):
    """Two residual blocks and attention at one side of the grid; `change` leads to the next."""

    def __init__(self, inside: int, width: int, time: int, attention: nn.Module, change: nn.Module):
        super().__init__()
        self.blocks = nn.ModuleList([Residual(inside, width, time) for _ in range(2)])
        self.attention, self.change = attention, change

    def blocks_of(self, x: Tensor, time: Tensor, joined: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """What leaves the first block and what leaves the attention; each block's input may be joined by more."""
        found = []
        for block, other in zip(self.blocks, joined, strict=True):
            x = block(x if other is None else torch.cat([x, other], dim=1), time)
            found.append(x)
        return found[0], x + self.attention(x)


def down(inside: int, outside: int, last: bool) -> nn.Module:
    """2 x 2 places become channels, then a 1 x 1 convolution; of the last level a 3 x 3 one at the same side."""
    if last:
        return nn.Conv2d(inside, outside, 3, padding=1)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * inside, outside, 1))


def up(inside: int, outside: int, last: bool) -> nn.Module:
    """Each place four times, then a 3 x 3 convolution; of the last level at the same side."""
    convolution = nn.Conv2d(inside, outside, 3, padding=1)
    return convolution if last else nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution)


class RMSNorm(nn.Module):
    """Channels of each place scaled to root mean square 1, times a gain."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, W, H, H] to the same."""
        return F.normalize(x, dim=1) * self.gain * x.shape[1] ** 0.5


class FullAttention(nn.Module):
    """Each place attends to all places and to the memory."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.memory = nn.Parameter(torch.randn(2, HEADS, MEMORY, HEAD))
        self.qkv = nn.Conv2d(width, 3 * HEADS * HEAD, 1, bias=False)
        self.out = nn.Conv2d(HEADS * HEAD, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to [N, W, H, H]."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, HEAD)).transpose(-1, -2).unbind(dim=1)
        memory = self.memory.expand(len(x), -1, -1, -1, -1).unbind(dim=1)  # [N, h, M, d] each
        k, v = (torch.cat(pair, dim=-2) for pair in zip(memory, (k, v), strict=True))
        found = F.scaled_dot_product_attention(q, k, v)  # [N, h, places, d]
        return self.out(found.transpose(-1, -2).flatten(1, 2).unflatten(-1, x.shape[-2:]))


class LinearAttention(nn.Module):
    """Attention whose cost grows with the places, not with their square (Shen et al. 2021), with memory.

    Keys are softmaxed over places and memory, queries over their channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.memory = nn.Parameter(torch.randn(2, HEADS, HEAD, MEMORY))
        self.qkv = nn.Conv2d(width, 3 * HEADS * HEAD, 1, bias=False)
        self.out = nn.Sequential(nn.Conv2d(HEADS * HEAD, width, 1), RMSNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """What is to be added to [N, W, H, H]."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, HEAD)).unbind(dim=1)  # [N, h, d, places]
        memory = self.memory.expand(len(x), -1, -1, -1, -1).unbind(dim=1)  # [N, h, d, M] each
        k, v = (torch.cat(pair, dim=-1) for pair in zip(memory, (k, v), strict=True))
        context = torch.einsum("nhdp,nhep->nhde", k.softmax(dim=-1), v)
        found = torch.einsum("nhde,nhdp->nhep", context, q.softmax(dim=-2) * HEAD**-0.5)
        return self.out(found.flatten(1, 2).unflatten(-1, x.shape[-2:]))
