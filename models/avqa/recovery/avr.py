"""AVR, the Audio-Visual Relation-aware diffusion: both modalities enhanced together.

*Learning Trimodal Relation for AVQA with Missing Modality* (Park, Lee, Kim, ECCV 2024), section 3.2. Sound,
tiled over the grid, and picture enter one latent by a 1x1 convolution, are noised, and a U-Net takes the
noise away again; a second 1x1 convolution gives both modalities back, the sound pooled over the grid. A frame
token is tiled and pooled like the sound. Where the paper is silent or can't work as printed, this is ours:

- What trains what. AVE (Eq. 7) trains the denoiser alone: trained by it too, the entrance would shrink its
  output until only the noise is left, which is easy to predict. Entrance and exit learn from the answers
  (Eq. 8), and so does the denoiser, through every step of the reverse process or its last `gradient_steps`.
- Entrance and exit start as an orthogonal matrix and its transpose, and features get the *change* of their
  latent: enhanced = features + exit(x_0 after - x_0 before). Of Da + Dv channels the 512 of the latent are
  enhanced, the rest passes; what the diffusion leaves alone comes back as it was.
- A sample's latent is divided by its root mean square before the diffusion and multiplied by it afterwards.
  Nothing is cut to a range (the released code cuts to +-1 and returns [0, 1]).
- The reverse process starts from the pair *noised to timestep `start`* (SDEdit, Meng et al. 2022), 0.3 T by
  default: a_t is 0.80 there, for the real modality goes the same way. From T nothing of the pair would be
  left (a_T is 4e-5 at T = 10), and an error in eps would grow 159-fold; the released code starts at T - 1
  from the pair without noise. The noise is one fixed draw for all samples, so results repeat and places in a
  batch do not matter.
- `linear`: a 1x1 convolution beside the U-Net. The U-Net squeezes 512 channels through 64, while the noise in
  all 512 is to be predicted: as printed it can't know more than an eighth of it, and AVE stays near 0.875.

Shapes: B samples, T time steps, P places (grid w x w), Da, Dv widths, C latent channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.diffusion import Diffusion, Prediction
from models.avqa.recovery.filling import filled
from models.avqa.recovery.released_unet import ReleasedUNet
from models.avqa.recovery.unet import UNet
from models.avqa.recovery.zero import zero_filled
from models.host import index, on_host, take
from models.modality import all_present, complete, lacking
from models.noise import generator

UNets = Literal["ours", "released"]
START = 0.3  # of T: there a_t is 0.80
SMALLEST_SCALE = 1e-6


class Pair(NamedTuple):
    """Features of both modalities without NaN: `audio` [B, T, Da], `visual` [B, T, rows, Dv]."""

    audio: Tensor
    visual: Tensor


class Denoiser(nn.Module):
    """Noise (or velocity) in a latent [N, C, w, w] at timesteps [N]: U-Net plus, with `linear`, a linear map.

    The linear map guesses x_0 as sqrt(a_t) W x_t; W starts as 1, the best guess for independent channels of
    unit variance, so an untrained denoiser keeps the scale. It is turned into a guess of the target.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        diffusion: Diffusion,
        prediction: Prediction,
        linear: bool,
        stem: int,
        unet: UNets = "ours",
    ):
        super().__init__()
        self.diffusion, self.prediction = diffusion, prediction
        self.unet = (ReleasedUNet if unet == "released" else UNet)(channels, width, multipliers, stem)
        self.linear = nn.Conv2d(channels, channels, 1, bias=False) if linear else None
        if self.linear is not None:
            nn.init.dirac_(self.linear.weight)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """What is predicted (the noise, or the clean features) of noisy features at a time step; same shape as `x`."""
        predicted = self.unet(x, timestep)
        if self.linear is None:
            return predicted
        signal, spread = self.diffusion.roots(timestep, x)
        guess = signal * self.linear(x)
        if self.prediction == "eps":
            return predicted + (x - signal * guess) / spread
        return predicted + (signal * x - guess) / spread

    def clean(self, x: Tensor, timestep: Tensor) -> Tensor:
        """x_0 as this network sees it."""
        return self.diffusion.clean(self.prediction, x, timestep, self(x, timestep))


class AVR(nn.Module):
    """Enhances both modalities of the samples that lack one, the missing one as it was recalled.

    By itself it fills with zeros (the mean) first. Complete samples pass unchanged, as Eq. 8's first term has
    them.

    Args:
        spec: sizes of the features; `places` is a square grid.
        words: size of the vocabulary, not used.
        channels: C.
        width, multipliers, stem: the U-Net's.
        timesteps: T of the diffusion; the paper tries 5, 10, 20.
        start: timestep to which a pair is noised before the reverse process; 0.3 T unless given.
        steps: of the reverse process, at most `start`; as many unless given. Also an attribute to set later.
        eta: 0: DDIM; 1: ancestral sampling. Either from one fixed noise.
        prediction: what the U-Net predicts.
        linear: see above; False: as printed.
        gradient_steps: how many of the last steps carry gradient in training; all unless given.
        seed: of the noise that is fixed: that of the reverse process, and of the loss in evaluation.
        unet: `ours`, or the `released` one (`released_unet`), for grids whose side it can halve.

    Its loss `ave` (Eq. 7) has the paper's weight 1.

    Raises:
        ValueError: a size, a start or a number of steps that can't be.
    """

    loss_names: ClassVar[Mapping[str, float]] = {"ave": 1.0}
    noise: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        channels: int = 512,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        timesteps: int = 10,
        start: int | None = None,
        steps: int | None = None,
        eta: float = 0.0,
        prediction: Prediction = "eps",
        linear: bool = True,
        gradient_steps: int | None = None,
        stem: int = 7,
        seed: int = 0,
        unet: UNets = "ours",
    ):
        super().__init__()
        if unet not in get_args(UNets):
            raise ValueError(f"unet {unet!r}: one of {', '.join(get_args(UNets))}")
        if unet == "released" and spec.side % 2 ** (len(multipliers) - 1):
            raise ValueError(
                f"unet 'released': a grid of side {spec.side} can't be halved {len(multipliers) - 1} times"
            )
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction {prediction!r}: one of {', '.join(get_args(Prediction))}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta {eta}: from 0 (DDIM) to 1 (ancestral)")
        self.spec, self.eta, self.gradient_steps = spec, eta, gradient_steps
        self.diffusion = Diffusion(timesteps)
        self.start = max(1, round(START * timesteps)) if start is None else start
        self.steps = self.start if steps is None else steps
        self.diffusion.path(self.start, self.steps)
        self.denoiser = Denoiser(channels, width, multipliers, self.diffusion, prediction, linear, stem, unet)
        pair = spec.audio + spec.visual * (1 + spec.frame_token)
        self.entrance = nn.Conv2d(pair, channels, 1, bias=False)
        self.exit = nn.Conv2d(channels, pair, 1, bias=False)
        nn.init.orthogonal_(self.entrance.weight.flatten(1))
        with torch.no_grad():
            self.exit.weight.copy_(self.entrance.weight.transpose(0, 1))
        shape = (1 + (self.start if eta else 0), spec.steps, channels, spec.side, spec.side)
        draw = generator("avr", seed).standard_normal(shape, dtype="float32")
        self.register_buffer("noise", torch.from_numpy(draw), persistent=False)

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities, with what is absent enhanced from the other one; losses are those of complete samples."""
        pair = Pair(*zero_filled(audio, visual, present))
        enhanced = self.enhance_rows(pair, list(lacking(present).values()))
        whole = all_present(len(present), present.device)
        return Recovered(*enhanced, whole, lambda: self.complete_losses(audio, visual, present))

    def enhance_rows(self, pair: Pair, rows: Sequence[Tensor]) -> Pair:
        """Both modalities enhanced in `rows`, groups of positions; the others' unchanged."""
        if not rows:
            return pair
        chosen = index(np.sort(np.concatenate([on_host(r) for r in rows])), pair.audio.device)
        better = self.enhance(pair.audio[chosen], pair.visual[chosen])
        return Pair(filled(pair.audio, chosen, better.audio), filled(pair.visual, chosen, better.visual))

    def enhance(self, audio: Tensor, visual: Tensor) -> Pair:
        """Every pair noised to `start` and through the reverse process, no NaN in it."""
        latent = self.entrance(self._joined(audio, visual))
        scale = self._scale(latent, len(audio))
        before = latent / scale
        change = self.exit((self._reverse(before, len(audio)) - before) * scale)
        return self._parted(audio, visual, change)

    def complete_losses(self, audio: Tensor, visual: Tensor, present: Tensor) -> Losses:
        """`losses` of the complete ones among samples."""
        rows = complete(present)
        return self.losses(take(audio, rows), take(visual, rows)) if len(rows) else {}

    def losses(self, audio: Tensor, visual: Tensor) -> Losses:
        """AVE (Eq. 7) of complete samples, [B]: mean squared error of the predicted noise.

        The time steps of a sample share out the timesteps 1..T evenly. In training noise is drawn by torch's
        generator, as dropout is; in evaluation it is the same for all samples and calls.
        """
        with torch.no_grad():
            latent = self.entrance(self._joined(audio, visual))
            clean = latent / self._scale(latent, len(audio))
            timestep, noise = self._draw(len(audio), clean)
            noised = self.diffusion.noised(clean, timestep, noise)
            target = self.diffusion.target(self.denoiser.prediction, clean, timestep, noise)
        error = (self.denoiser(noised, timestep) - target).square()
        return {"ave": error.unflatten(0, (len(audio), -1)).flatten(1).mean(dim=1)}

    def _draw(self, samples: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps [B T] and noise for the loss."""
        count = self.spec.steps
        levels = torch.arange(count, device=like.device) % self.diffusion.timesteps + 1
        if not self.training:
            return levels.repeat(samples), self.noise[0].repeat(samples, 1, 1, 1).to(like.dtype)
        order = torch.rand(samples, count, device=like.device).argsort(dim=1)
        offset = torch.randint(self.diffusion.timesteps, (samples, 1), device=like.device)
        timestep = (levels[order] - 1 + offset) % self.diffusion.timesteps + 1
        return timestep.flatten(), torch.randn_like(like)

    def _joined(self, audio: Tensor, visual: Tensor) -> Tensor:
        """[B, T, Da] and [B, T, rows, Dv] -> [B T, Da (+ Dv) + Dv, w, w]."""
        side = self.spec.side
        whole = [audio, visual[:, :, 0]] if self.spec.frame_token else [audio]
        tiled = torch.cat(whole, dim=-1).flatten(0, 1)[:, :, None, None].expand(-1, -1, side, side)
        places = visual[:, :, self.spec.frame_token :].flatten(0, 1).transpose(1, 2)
        return torch.cat([tiled, places.unflatten(-1, (side, side))], dim=1)

    def _parted(self, audio: Tensor, visual: Tensor, change: Tensor) -> Pair:
        """Features plus their change [B T, pair, w, w]: pooled for the sound and the frame token."""
        *whole, places = change.split([audio.shape[-1], *[visual.shape[-1]] * (1 + self.spec.frame_token)], 1)
        found = self._rows([x.mean(dim=(2, 3)) for x in whole], places, len(audio))
        return Pair(audio + found.audio, visual + found.visual)

    def _rows(self, whole: Sequence[Tensor], places: Tensor, samples: int) -> Pair:
        """Maps back as features: of the sound (and the frame token) one vector [B T, D], of the places a grid."""
        steps = (samples, -1)
        rows = places.flatten(2).transpose(1, 2).unflatten(0, steps)
        single = [x.unflatten(0, steps) for x in whole]
        if self.spec.frame_token:
            rows = torch.cat([single[1][:, :, None], rows], dim=2)
        return Pair(single[0], rows)

    def _scale(self, latent: Tensor, samples: int) -> Tensor:
        """Root mean square of each sample's latent, [B T, 1, 1, 1]."""
        square = latent.unflatten(0, (samples, -1)).square().mean(dim=(1, 2, 3, 4))
        scale = square.clamp_min(SMALLEST_SCALE**2).sqrt()
        return scale.repeat_interleave(len(latent) // samples)[:, None, None, None]

    def _reverse(self, clean: Tensor, samples: int) -> Tensor:
        path = self.diffusion.path(self.start, self.steps)
        first, *fresh = (n.repeat(samples, 1, 1, 1).to(clean.dtype) for n in self.noise)
        timestep = torch.full((len(clean),), self.start, device=clean.device)
        x = self.diffusion.noised(clean, timestep, first)
        blind = 0 if self.gradient_steps is None else max(0, self.steps - self.gradient_steps)
        if blind:
            with torch.no_grad():
                x = self.diffusion.reverse(x, path[: blind + 1], self.denoiser.clean, self.eta, fresh)
        return self.diffusion.reverse(x, path[blind:], self.denoiser.clean, self.eta, fresh[blind:])
