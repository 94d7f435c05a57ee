"""From stored media to a backbone's normalised input: pad or cut, choose a frame, resize, normalise.

One definition for feature extraction, training and evaluation. Shapes: F fbank frames, N pictures of a clip,
S picture side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Normalisation:
    """Means and standard deviations of the training data; the defaults are the published ones (AudioSet,
    ImageNet).

    Attributes:
        audio: of the log-mel values.
        visual_mean, visual_std: per RGB channel, of values in 0..1.
    """

    audio_mean: float = -5.081
    audio_std: float = 4.4849
    visual_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    visual_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def as_dict(self) -> dict:
        """As plain values, for a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Normalisation:
        """The normalisation that `as_dict` wrote."""
        own: dict = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**own)

    def _visual(self, name: str) -> Tensor:
        return torch.tensor(getattr(self, f"visual_{name}"), dtype=torch.float32).view(3, 1, 1)

    @property
    def black(self) -> Tensor:
        """A black pixel after normalisation, [3, 1, 1]."""
        return -self._visual("mean") / self._visual("std")

    def fbank(self, values: np.ndarray, target_length: int, start: int = 0) -> Tensor:
        """`target_length` frames of a log-mel [F, 128] from frame `start` on (before its begin and beyond its
        end: zeros before normalising, as published), normalised: [target_length, 128]."""
        begin, end = max(start, 0), max(start + target_length, 0)
        x = torch.from_numpy(values[begin:end].astype(np.float32))
        before = min(begin - start, target_length)
        x = F.pad(x, (0, 0, before, target_length - before - len(x)))
        return (x - self.audio_mean) / self.audio_std

    def picture(self, frames: np.ndarray, index: int, size: int) -> Tensor:
        """Picture `index` of uint8 [N, S, S, 3], resized to `size` if need be, normalised: [3, size,
        size]."""
        x = torch.from_numpy(frames[index].copy()).permute(2, 0, 1).float() / 255
        if x.shape[-2:] != (size, size):
            x = F.interpolate(x[None], size=(size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)
        return (x - self._visual("mean")) / self._visual("std")

    def pixels(self, x: Tensor) -> np.ndarray:
        """A normalised picture [3, S, S] as it is seen: uint8 [S, S, 3]."""
        shown = (x * self._visual("std") + self._visual("mean")).clamp(0, 1)
        return (255 * shown).round().to(torch.uint8).permute(1, 2, 0).numpy()
