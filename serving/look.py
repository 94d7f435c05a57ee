"""How runs look at a clip, the clip ruined as training and evaluation ruin it, and pictures of what they met.

A ruined sample holds float arrays in the units of media shards, so that every network's own normalisation gives the
ruined input back: noise beyond black or white is not clipped. Shapes: F fbank frames, N pictures, S side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.inputs import Normalisation
from models.noise import ruin
from models.settings import Modality, NoiseConfig
from pipelines.thumbnails import heat, picture_url
from serving.model import Model
from serving.request import Ruin
from shards.causes import Cause
from shards.reader import Sample
from shards.schema import StreamInfo
from trainers.classification.items import middle_frame

SEED = 0  # of the noise, which depends on the clip's content besides: the same request gets the same answer
BLACKEST = 5


@dataclass(frozen=True)
class Look:
    """What a run takes of a clip.

    Attributes:
        sound, picture: normalisation of the log-mel and of the frames; `sound` is None where the run hears the
            waveform.
        length: fbank frames, cut or padded; None: all of the clip's.
        size: side of a picture, pixels.
        middle: one frame alone, the middle one.
    """

    sound: Normalisation | None
    picture: Normalisation
    length: int | None
    size: int | None
    middle: bool

    def hears(self, sample: Sample) -> Tensor | None:
        """The normalised log-mel [F, 128]; None where there is none."""
        if "audio" not in sample.arrays:
            return None
        values = sample.arrays["audio"]
        return (self.sound or Normalisation()).fbank(values, self.length or len(values))

    def sees(self, sample: Sample) -> list[Tensor]:
        """The normalised pictures [3, S, S]; empty where there are none."""
        frames = sample.arrays.get("frames")
        if frames is None:
            return []
        chosen = [middle_frame(len(frames))] if self.middle else range(len(frames))
        return [self.picture.picture(frames, i, self.size or frames.shape[1]) for i in chosen]


def look_of(model: Model) -> Look:
    """How a run looks at a clip."""
    if (spec := model.loaded.spec) is not None:
        return Look(spec.normalisation, spec.normalisation, spec.target_length, spec.image_size, middle=True)
    encoders: dict[str, Any] = getattr(model.features.extractor, "encoders", {}) if model.features else {}
    sound, picture = encoders.get("audio"), encoders.get("visual")
    normalisation = getattr(picture, "normalisation", Normalisation())
    size = getattr(picture, "size", None)
    return Look(getattr(sound, "normalisation", None), normalisation, None, size, middle=False)


def ruined(sample: Sample, how: Ruin, look: Look) -> Sample:
    """A clip as a run is to meet it; where nothing is done to it, the sample itself.

    Raises:
        ValueError: noise for a run that hears the waveform.
    """
    arrays, meta = dict(sample.arrays), sample.meta
    for modality in how.without:
        gone = StreamInfo(present=False, cause=Cause.ABSENT)
        meta = meta.model_copy(update={modality: gone}) if getattr(meta, modality).present else meta
        for name in ("audio", "wave") if modality == "audio" else ("frames",):
            arrays.pop(name, None)
    left = Sample(meta, arrays)
    if "audio" in arrays and "audio" in how.noise:
        if look.sound is None:
            raise ValueError("hears the waveform, and noise is of the log-mel")
        arrays["audio"] = _noisy_sound(left, how, look, look.sound)
    if "frames" in arrays and (how.black or "visual" in how.noise):
        arrays["frames"] = np.stack([_spoilt(x, i, left, how, look) for i, x in enumerate(look.sees(left))])
    return Sample(meta, arrays)


def _noisy_sound(sample: Sample, how: Ruin, look: Look, normalisation: Normalisation) -> np.ndarray:
    """The log-mel after noise, float32 [F, 128], before normalisation."""
    x = look.hears(sample)
    assert x is not None
    x = _noise(x, "audio", how.kind("audio"), how.noise["audio"], sample, 0)
    return (x * normalisation.audio_std + normalisation.audio_mean).numpy()


def _spoilt(x: Tensor, number: int, sample: Sample, how: Ruin, look: Look) -> np.ndarray:
    """A picture after what is done to it, float32 [S, S, 3], 0..255 where nothing is beyond black or white."""
    if how.black:
        x = _noise(x, "visual", "black", BLACKEST, sample, number, look)
    if "visual" in how.noise:
        x = _noise(x, "visual", how.kind("visual"), how.noise["visual"], sample, number, look)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (look.picture.visual_mean, look.picture.visual_std))
    return (255 * (x * std + mean)).permute(1, 2, 0).numpy()


def _noise(
    x: Tensor, modality: Modality, kind: str, severity: int, sample: Sample, draw: int, look: Look | None = None
) -> Tensor:
    floor = None if look is None else look.picture.black
    config = NoiseConfig(audio=(kind,)) if modality == "audio" else NoiseConfig(visual=(kind,))
    return ruin(x, modality, severity, config, SEED, sample.meta.source_sha256, draw, floor=floor)[0]


@dataclass(frozen=True)
class View:
    """What runs met, as URLs that hold PNGs: the log-mel, and the pictures in order; None and empty: nothing."""

    spectrogram: str | None
    frames: tuple[str, ...]

    @classmethod
    def of(cls, look: Look, sample: Sample, clean: Sample) -> View:
        """Pictures of the arrays that the run's network gets, in the colours of the clean clip's range.

        Args:
            sample: the clip as it was ruined.
            clean: as it was sent.
        """
        met, before = look.hears(sample), look.hears(clean)
        sound = None
        if met is not None and before is not None:
            sound = heat(met.numpy(), float(before.min()), float(before.max()))
        return cls(sound, tuple(picture_url(look.picture.pixels(x)) for x in look.sees(sample)))
