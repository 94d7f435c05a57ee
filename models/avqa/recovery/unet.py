"""A U-Net for small grids: what a step of the diffusion is predicted with.

Sizes of the AVQA paper (width 64, multipliers 1 and 2; 4.68 M parameters at 512 channels, it says 4.69).
Heads of the attention are W / 2 wide, the authors' 32 at that size, so that a narrow network stays cheap.
Own code: neither the U-Net of denoising-diffusion-pytorch, which the authors used, nor the unconditional one
of diffusers takes grids of odd side (CLIP's 7 x 7), and each brings many packages for a hundred lines. Norms
are per sample (GroupNorm): no sample sees its neighbours.

Shapes: N pictures, C channels, W width of the first level, H x H grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS, HEADS = 8, 4


class UNet(nn.Module):
    """Pictures [N, C, H, H] and diffusion timesteps [N] -> [N, C, H, H]; zeros before any training.

    Args:
        channels: C.
        width: W.
        multipliers: width of each level, in W; the grid's side halves (rounded up) between levels.
        stem: side of the first convolution's kernel, odd; at C of 96 and a small W most of the work is here.

    Raises:
        ValueError: an even stem, or an odd width.
    """

    def __init__(self, channels: int, width: int = 64, multipliers: Sequence[int] = (1, 2), stem: int = 7):
        super().__init__()
        if stem % 2 == 0 or width % 2:
            raise ValueError(f"stem {stem}, width {width}: the stem is odd, the width even")
        widths = [width, *(width * m for m in multipliers)]
        steps = list(pairwise(widths))
        self.width = width
        self.stem = nn.Conv2d(channels, width, stem, padding=stem // 2)
        time, head = 4 * width, width // 2
        self.time = nn.Sequential(nn.Linear(width, time), nn.GELU(), nn.Linear(time, time))
        leave = [nn.Conv2d(i, o, 2, stride=2) for i, o in steps[:-1]]
        leave += [nn.Conv2d(i, o, 3, padding=1) for i, o in steps[-1:]]
        self.downs = nn.ModuleList(Level(i, i, time, head, change) for (i, _), change in zip(steps, leave, strict=True))
        self.middle = nn.ModuleList([Residual(widths[-1], widths[-1], time) for _ in range(2)])
        self.attention = Attention(widths[-1], head)
        self.ups = nn.ModuleList(Level(i + o, o, time, head, nn.Conv2d(o, i, 3, padding=1)) for i, o in reversed(steps))
        self.last = Residual(2 * width, width, time)
        self.out = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Noisy maps [N, C, H, W] at time steps [N] to a prediction of the same shape."""
        time = self.time(sinusoids(timestep, self.width))
        x = stem = self.stem(x)
        seen: list[Tensor] = []
        down: Level
        up: Level
        for down in self.downs:  # type: ignore[assignment]
            first, second = down(x, time)
            seen += [first, second]
            x = down.leave(second)
        x = self.middle[0](x, time)
        x = self.middle[1](self.attention(x), time)
        for up in self.ups:  # type: ignore[assignment]
            skips = (seen.pop(), seen.pop())
            if x.shape[-1] != skips[0].shape[-1]:
                x = F.interpolate(x, size=skips[0].shape[-2:], mode="nearest")
            x = up.leave(up(x, time, skips)[1])
        return self.out(self.last(torch.cat([x, stem], dim=1), time))


class Level(nn.Module):
    """Two residual blocks and attention at one side of the grid; `leave` goes on to the next.

    Args:
        inside, width: channels that come into either block (what is joined to them included), and leave it.
    """

    def __init__(self, inside: int, width: int, time: int, head: int, change: nn.Conv2d):
        super().__init__()
        self.blocks = nn.ModuleList([Residual(inside, width, time) for _ in range(2)])
        self.attention = Attention(width, head)
        self.change = change

    def forward(self, x: Tensor, time: Tensor, skips: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """What leaves the first block, and what leaves the attention."""
        first = self.blocks[0](torch.cat([x, *skips[:1]], dim=1), time)
        return first, self.attention(self.blocks[1](torch.cat([first, *skips[1:]], dim=1), time))

    def leave(self, x: Tensor) -> Tensor:
        """The level's last convolution; before a halving, an odd side gets its last row and column twice."""
        odd = x.shape[-1] % self.change.stride[0]
        return self.change(F.pad(x, (0, odd, 0, odd), mode="replicate") if odd else x)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; the timestep scales and shifts what is between them."""

    def __init__(self, inside: int, outside: int, time: int):
        super().__init__()
        self.time = nn.Linear(time, 2 * outside)
        self.first, self.second = (nn.Conv2d(i, outside, 3, padding=1) for i in (inside, outside))
        self.norms = nn.ModuleList([nn.GroupNorm(math.gcd(GROUPS, outside), outside) for _ in range(2)])
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Maps [N, C, H, W], modulated by the time's embedding, to maps of the block's channels."""
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norms[0](self.first(x)) * (scale + 1) + shift)
        return self.shortcut(x) + F.silu(self.norms[1](self.second(h)))


class Attention(nn.Module):
    """Self-attention over the places of a grid, added to what came in; `head`: width of a head."""

    def __init__(self, width: int, head: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * HEADS * head, 1, bias=False)
        self.out = nn.Conv2d(HEADS * head, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Each place attends to all places: [N, C, H, W] to the same."""
        parts = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, HEADS, -1))
        q, k, v = parts.transpose(-1, -2).unbind(dim=1)  # [N, heads, places, head width]
        found = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return x + self.out(found.flatten(1, 2).unflatten(-1, x.shape[-2:]))


def sinusoids(timestep: Tensor, width: int) -> Tensor:
    """Timesteps [N] -> [N, width]: sines and cosines of geometrically falling frequency."""
    half = width // 2
    steps = torch.arange(half, device=timestep.device)
    angles = timestep[:, None] * torch.exp(-math.log(10_000) * steps / max(half - 1, 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)
