"""The diffusion itself: schedule, forward process, and the reverse one in any number of steps.

Timesteps run from 0 (clean) to T. Signal a_t (the product of 1 - beta up to t) and noise 1 - a_t; a noised
latent is x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, velocity v = sqrt(a_t) eps - sqrt(1 - a_t) x_0.

Shapes: N latents of any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Prediction = Literal["eps", "v"]
BETA_LIMIT = 0.999
Denoiser = Callable[[Tensor, Tensor], Tensor]  # x_t [N, ...], timesteps [N] -> x_0 [N, ...]


def sigmoid_betas(timesteps: int, reach: float = 3.0) -> Tensor:
    """beta of timesteps 1..T, float64: a_t falls as a sigmoid from 1 to 0 (Jabri et al. 2022, figure 8).

    The last would be 1; it is cut at 0.999, so that a little signal is left at T.
    """
    at = torch.linspace(reach, -reach, timesteps + 1, dtype=torch.float64).sigmoid()
    signal = (at - at[-1]) / (at[0] - at[-1])
    return (1 - signal[1:] / signal[:-1]).clamp(0, BETA_LIMIT)


class Diffusion(nn.Module):
    """A sigmoid schedule of T timesteps (the paper: 10) and what is computed with it; no parameters.

    Raises:
        ValueError: no timesteps.
    """

    signal: Tensor  # [T + 1], a_t

    def __init__(self, timesteps: int = 10):
        super().__init__()
        if timesteps < 1:
            raise ValueError(f"{timesteps} diffusion timesteps: at least one")
        self.timesteps = timesteps
        signal = torch.cat([torch.ones(1).double(), (1 - sigmoid_betas(timesteps)).cumprod(0)])
        self.register_buffer("signal", signal.float(), persistent=False)

    def roots(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t) of timesteps [N], shaped to multiply `like` [N, ...], rounded last."""
        signal = self.signal[timestep].view(-1, *[1] * (like.dim() - 1))
        return signal.sqrt().to(like.dtype), (1 - signal).sqrt().to(like.dtype)

    def noised(self, clean: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """x_t: the forward process (Eq. 5) to timesteps [N] in one go."""
        signal, spread = self.roots(timestep, clean)
        return signal * clean + spread * noise

    def target(self, prediction: Prediction, clean: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """What is to be predicted: the noise (the paper) or the velocity (the released code)."""
        signal, spread = self.roots(timestep, clean)
        return noise if prediction == "eps" else signal * noise - spread * clean

    def clean(self, prediction: Prediction, noised: Tensor, timestep: Tensor, predicted: Tensor) -> Tensor:
        """x_0 from a prediction, without cutting it to any range."""
        signal, spread = self.roots(timestep, noised)
        if prediction == "eps":
            return (noised - spread * predicted) / signal
        return signal * noised - spread * predicted

    def path(self, start: int, steps: int) -> list[int]:
        """Timesteps visited from `start` down to 0 in so many steps, evenly spaced.

        Raises:
            ValueError: no such start, or more steps than there are timesteps below it.
        """
        if not 1 <= start <= self.timesteps:
            raise ValueError(f"start {start}: the diffusion has timesteps 1..{self.timesteps}")
        if not 1 <= steps <= start:
            raise ValueError(f"{steps} sampling steps from timestep {start}: 1 to {start}")
        return [round(start * (steps - i) / steps) for i in range(steps + 1)]

    def reverse(
        self,
        x: Tensor,
        path: Sequence[int],
        denoise: Denoiser,
        eta: float = 0.0,
        noise: Sequence[Tensor] = (),
    ) -> Tensor:
        """x at path[0] -> x_0 along the path (Song et al. 2021, eq. 12).

        Args:
            denoise: x_t and timesteps [N] -> x_0 as predicted.
            eta: 0: DDIM, no noise; 1: ancestral sampling (Eq. 6 with DDPM's variance).
            noise: one tensor like `x` for each step but the last; read where eta > 0.
        """
        for step, (now, then) in enumerate(pairwise(path)):
            timestep = torch.full((len(x),), now, device=x.device)
            clean = denoise(x, timestep)
            if then == 0:
                return clean
            x = self._step(x, clean, now, then, eta, noise[step] if eta else None)
        return x

    def _step(self, x: Tensor, clean: Tensor, now: int, then: int, eta: float, noise: Tensor | None) -> Tensor:
        """From x at `now` to x at `then`, given what is believed clean."""
        a, b = self.signal[now], self.signal[then]
        eps = (x - a.sqrt() * clean) / (1 - a).sqrt()
        fresh = eta**2 * (1 - b) / (1 - a) * (1 - a / b)  # variance of what is drawn anew
        x = b.sqrt() * clean + (1 - b - fresh).clamp_min(0).sqrt() * eps
        return x if noise is None else x + fresh.sqrt() * noise
