"""A clip's time steps as a backbone takes them: equal parts of the clip, the frame and the sound around their middles.

Shapes: T steps, F fbank frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.fbank import FRAME_RATE
from models.inputs import Normalisation
from shards.errors import InputError
from shards.reader import Sample
from shards.schema import SampleMeta


def middles(meta: SampleMeta, steps: int) -> np.ndarray:
    """Seconds from the clip's start of the steps' middles, [T]: where `pipelines.frames.uniform` took the
    frames; equal parts of the sound where there is no moving picture."""
    return (np.arange(steps) + 0.5) * (meta.visual.duration or meta.duration) / steps


def pictures(sample: Sample, steps: int, size: int, normalisation: Normalisation) -> Tensor:
    """One normalised frame per step, [T, 3, size, size]; a still picture stands for all.

    Raises:
        InputError: neither one frame nor one per step.
    """
    frames = sample.arrays["frames"]
    if len(frames) not in (1, steps):
        message = f"sample '{sample.meta.id}': {len(frames)} frames, the dataset has {steps} per clip"
        raise InputError(message, field="frames", remedy="ingest the clips again with one setting of frames")
    rows = [normalisation.picture(frames, i, size) for i in range(len(frames))]
    return torch.stack(rows).expand(steps, -1, -1, -1).contiguous()


def sounds(sample: Sample, steps: int, length: int, normalisation: Normalisation) -> Tensor:
    """A window of the fbank around each step's middle, normalised, [T, length, 128]; padded beyond the clip's ends."""
    values = sample.arrays["audio"]
    starts = [round(m * FRAME_RATE) - length // 2 for m in middles(sample.meta, steps)]
    return torch.stack([normalisation.fbank(values, length, start) for start in starts])
