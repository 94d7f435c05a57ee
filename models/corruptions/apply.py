"""A corruption applied to one sample as media shards hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from models.corruptions.pictures import stored
from models.corruptions.record import Corrupting, Corruption
from models.fbank import log_mel
from models.noise import generator

FULL_SCALE = 32768.0


class Files(Protocol):
    """The user's recordings and overlays: one of a name, drawn by the generator."""

    def recording(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """Float32 [samples] within -1..1 at 16 kHz."""
        ...

    def overlay(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """RGBA, uint8 [H, W, 4]."""
        ...


def corrupt(
    arrays: Mapping[str, np.ndarray], corruption: Corruption, severity: int, files: Files, *key: object
) -> dict[str, np.ndarray]:
    """A sample under a corruption: its picture, and its waveform with the log-mel made from it as ingestion makes it.

    What the sample does not have stays absent, and what the corruption leaves alone is the very same array. A sound is
    rounded to int16 in between, as a file would hold it. Draws come from `key` alone, not from the severity, so that
    severities differ in strength.

    Args:
        arrays: ``wave`` int16 [samples] and ``audio`` float16 [frames, 128]; ``frames`` one picture, uint8 [S, S, 3].
        files: asked for what the corruption names.
        key: seed, sample id and draw.
    """
    out = dict(arrays)
    if corruption.sound is not None and "wave" in arrays:
        rng = generator("corruption", corruption.protocol, corruption.kind, "audio", *key)
        file = (files.recording(corruption.recording, rng),) if corruption.recording else ()
        out["wave"] = _sound(arrays["wave"], corruption.sound, severity, rng, file)
        out["audio"] = log_mel(out["wave"])
    if corruption.picture is not None and "frames" in arrays:
        rng = generator("corruption", corruption.protocol, corruption.kind, "visual", *key)
        file = (files.overlay(corruption.overlay, rng),) if corruption.overlay else ()
        picture = corruption.picture(arrays["frames"], severity, rng, *file)
        out["frames"] = picture if corruption.jpeg is None else stored(picture, corruption.jpeg)
    return out


def _sound(
    wave: np.ndarray, apply: Corrupting, severity: int, rng: np.random.Generator, file: tuple[Any, ...]
) -> np.ndarray:
    ruined = apply(wave.astype(np.float32) / np.float32(FULL_SCALE), severity, rng, *file)
    return np.clip(np.round(ruined * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
