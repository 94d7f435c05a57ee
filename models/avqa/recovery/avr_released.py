"""AVR as released, faults and all: to compare with, and to run weights of the released code.

VisualAIKHU/Missing-AVQA. Unlike `avr.AVR`, which is the paper's made to work: the U-Net is denoising-diffusion-
pytorch's and predicts the velocity; the reverse chain starts at timestep T from the pair that was *not* noised;
x_0 is cut to -1..1 at each step, and the result is mapped to 0..1 whatever the scale of the features; every step
but the last adds noise; the sound is what the exit gives at the first place of the grid; only the missing modality
is replaced; AVE is weighted by a_t and trains entrance and U-Net together.

Not as released: the noise is one fixed draw for all samples, so that results repeat and a sample's result is its
own. The released test never recalls anything: it adds noise to the real modality. Here what is missing is not read.

Shapes: B samples, T time steps, Da, Dv widths, C latent channels, w x w grid.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Losses, Recovered
from models.avqa.recovery.avr import AVR, Pair
from models.avqa.recovery.filling import filled
from models.avqa.recovery.zero import zero_filled
from models.modality import all_present, lacking


class ReleasedAVR(AVR):
    """The released diffusion. By itself it fills with zeros first; complete samples pass unchanged.

    Args:
        spec: sizes of the features; `places` is a square grid whose side the U-Net can halve.
        words: size of the vocabulary, not used.
        channels: C.
        width, multipliers: the U-Net's.
        timesteps: T of the diffusion (released: 5, 10 or 20).
        seed: of the noise that is fixed, as AVR's.

    Raises:
        ValueError: a size that can't be.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        channels: int = 512,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2),
        timesteps: int = 10,
        seed: int = 0,
    ):
        super().__init__(
            spec,
            words,
            channels,
            width,
            multipliers,
            timesteps,
            start=timesteps,
            eta=1.0,
            prediction="v",
            linear=False,
            seed=seed,
            unet="released",
        )
        pair = self.entrance.in_channels
        self.entrance, self.exit = nn.Conv2d(pair, channels, 1), nn.Conv2d(channels, pair, 1)

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities, with what is absent replaced by what comes of it (zeros) and the other one."""
        pair, rows = Pair(*zero_filled(audio, visual, present)), lacking(present)
        better = self.enhance_rows(pair, list(rows.values()))
        values = {
            m: filled(getattr(pair, m), rows[m], getattr(better, m)[rows[m]]) if m in rows else getattr(pair, m)
            for m in pair._fields
        }
        whole = all_present(len(present), present.device)
        return Recovered(**values, present=whole, losses=lambda: self.complete_losses(audio, visual, present))

    def enhance(self, audio: Tensor, visual: Tensor) -> Pair:
        """Every pair through the whole reverse chain, no NaN in it."""
        latent = self.entrance(self._joined(audio, visual))
        noise = [n.repeat(len(audio), 1, 1, 1).to(latent.dtype) for n in self.noise[1:]]
        path = self.diffusion.path(self.start, self.steps)
        clean = self.diffusion.reverse(latent, path, self._clamped, self.eta, noise)
        found = self.exit((clean + 1) / 2)
        *whole, places = found.split([audio.shape[-1], *[visual.shape[-1]] * (1 + self.spec.frame_token)], dim=1)
        return self._rows([x[:, :, 0, 0] for x in whole], places, len(audio))

    def losses(self, audio: Tensor, visual: Tensor) -> Losses:
        """The released AVE of complete samples, [B]: squared error of the velocity, times a_t."""
        latent = self.entrance(self._joined(audio, visual))
        timestep, noise = self._draw(len(audio), latent)
        noised = self.diffusion.noised(latent, timestep, noise)
        target = self.diffusion.target("v", latent, timestep, noise)
        error = (self.denoiser(noised, timestep) - target).square().flatten(1).mean(dim=1)
        weighted = error * self.diffusion.signal[timestep]
        return {"ave": weighted.unflatten(0, (len(audio), -1)).mean(dim=1)}

    def _clamped(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.denoiser.clean(x, timestep).clamp(-1, 1)
