"""From a scene's description to its sound: every source at its loudness, over background noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.corpora.encode import AUDIO_RATE
from pipelines.corpora.synthetic.timbres import TIMBRES

NOISES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # colour -> how amplitude falls with frequency
DAMPING = 0.05  # seconds


def synthesise(scene: Mapping[str, Any]) -> np.ndarray:
    """The sound of a scene (see :mod:`pipelines.corpora.synthetic.scenes`): float64 [n] in [-1, 1], 16 kHz.

    Loudness is in dB relative to full scale, root mean square over the whole clip; a clip whose peaks
    would pass full scale is turned down as a whole, which keeps the levels' differences.
    """
    rng = np.random.default_rng(scene["render_seed"])
    samples = round(scene["seconds"] * AUDIO_RATE)
    noise = scene["noise"]
    total = at_level(coloured_noise(samples, NOISES[noise["colour"]], rng), noise["loudness_db"])
    for source in scene["sounds"]:
        total += at_level(_source(source, samples, rng), source["loudness_db"])
    return total / max(1.0, float(np.abs(total).max()) / 0.99)


def at_level(samples: np.ndarray, decibels: float) -> np.ndarray:
    """``samples`` scaled to a root mean square of ``decibels`` dB re full scale (silence stays silent)."""
    level = float(np.sqrt(np.mean(samples**2)))
    return samples * (10 ** (decibels / 20) / level) if level > 0 else samples


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise whose amplitude falls with frequency to the power of ``-slope``: float64 [samples]."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    return np.fft.irfft(spectrum / np.maximum(np.arange(spectrum.size), 20) ** slope, samples)


def _source(source: Mapping[str, Any], samples: int, rng: np.random.Generator) -> np.ndarray:
    timbre = TIMBRES[source["timbre"]]
    total = np.zeros(samples)
    for onset in source["onsets_s"]:
        first = round(onset * AUDIO_RATE)
        count = min(samples - first, round(min(timbre.length, samples / AUDIO_RATE) * AUDIO_RATE))
        step = rng.choice(timbre.melody)
        total[first : first + count] += timbre.note(np.arange(count) / AUDIO_RATE, source["pitch_hz"] * step, rng)
    if "end_s" in source:  # the last notes are damped
        left = source["end_s"] - np.arange(samples) / AUDIO_RATE
        total *= np.clip(left / DAMPING, 0, 1)
    return total
