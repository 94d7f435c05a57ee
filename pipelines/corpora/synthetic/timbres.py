"""The timbres of ``scenes``: 8 voices of the classes and 4 that classes share, each with its own rhythm.

A note maps the time since its onset (seconds, float [n]), its pitch (Hz) and a random generator to samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TAU = 2 * np.pi
Note = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Timbre:
    """A voice: its note, and the ranges that its nuisances are drawn from.

    Attributes:
        note: one note from its onset on.
        pitch: lowest and highest pitch in Hz, drawn uniformly on a logarithmic scale.
        gap: shortest and longest time between two onsets in seconds.
        length: longest time that a note sounds in seconds.
        melody: the steps (factors of the pitch) that notes may take.
    """

    note: Note
    pitch: tuple[float, float]
    gap: tuple[float, float]
    length: float
    melody: Sequence[float] = (1.0,)


def _rise(t: np.ndarray, attack: float) -> np.ndarray:
    return np.minimum(t / attack, 1)


def _swell(t: np.ndarray, length: float) -> np.ndarray:
    return np.sin(np.pi * np.clip(t / length, 0, 1))


def _harmonics(phase: np.ndarray, amplitudes: Sequence[float] | np.ndarray) -> np.ndarray:
    numbers = np.arange(1, len(amplitudes) + 1)[:, None]
    return (np.asarray(amplitudes)[:, None] * np.sin(numbers * phase)).sum(0)


def bell(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Inharmonic partials that ring for over a second, the high ones shorter."""
    ratios = np.array([0.5, 1, 1.2, 1.5, 2, 2.74, 3.76, 4.07])[:, None]
    strength = np.array([0.5, 1, 0.7, 0.5, 0.8, 0.5, 0.3, 0.2])[:, None]
    return (strength * np.exp(-t * (1 + 1.2 * ratios)) * np.sin(TAU * pitch * ratios * t)).sum(0)


def drum(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A low thump whose pitch falls, with a short slap of noise."""
    phase = TAU * pitch * (t + 1.5 / 30 * (1 - np.exp(-30 * t)))
    return np.sin(phase) * np.exp(-9 * t) + 0.4 * rng.standard_normal(t.size) * np.exp(-60 * t)


def flute(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Almost a pure tone, with vibrato and a little breath."""
    phase = TAU * pitch * t + 0.012 * pitch / 5 * np.sin(TAU * 5 * t)
    tone = _harmonics(phase, (1, 0.25, 0.08))
    return (tone + 0.04 * rng.standard_normal(t.size)) * _rise(t, 0.07) * (t < 0.55) * _rise(0.6 - t, 0.08)


def guitar(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A plucked string: harmonics that die the sooner the higher they are."""
    numbers = np.arange(1, 15)[:, None]
    partials = np.sin(TAU * pitch * numbers * t) * np.exp(-t * (1.5 + 1.1 * numbers)) / numbers**0.7
    return partials.sum(0) * _rise(t, 0.004)


def horn(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Brass: many strong harmonics with a slow attack."""
    amplitudes = 1 / np.arange(1, 19) ** 0.6
    return _harmonics(TAU * pitch * t, amplitudes) * _rise(t, 0.12) * _rise(np.maximum(0.9 - t, 0), 0.1)


def cat(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A meow: pitch and formant rise and fall within 0.7 s."""
    arc = _swell(t, 0.7)
    phase = TAU * pitch * (t + 0.5 * 0.7 / np.pi * (1 - np.cos(np.pi * np.clip(t / 0.7, 0, 1))))
    numbers = np.arange(1, 11)[:, None]
    formant = np.exp(-(((numbers * pitch * (1 + 0.5 * arc) - 900 - 1100 * arc) / 500) ** 2))
    return ((formant + 0.08) * np.sin(numbers * phase)).sum(0) * arc


def bird(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A burst of four quick chirps that sweep down."""
    local = t % 0.11
    phase = TAU * pitch * (1.5 * local - 0.5 * local**2 / 0.08)
    return np.sin(phase) * _swell(local, 0.08) * (t < 0.44)


def frog(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A croak: damped knocks of a low resonance, 30 a second."""
    local = t % (1 / 30)
    pulses = (np.sin(TAU * pitch * local) + 0.5 * np.sin(TAU * 2.6 * pitch * local)) * np.exp(-120 * local)
    return pulses * _swell(t, 0.32)


def knock(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A dry double knock on wood."""
    local = np.where(t < 0.09, t, t - 0.09)
    hit = np.sin(TAU * pitch * local) + 0.6 * np.sin(TAU * 1.83 * pitch * local)
    return (hit + 0.8 * rng.standard_normal(t.size)) * np.exp(-70 * local)


def hum(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A steady low drone that never pauses."""
    return _harmonics(TAU * pitch * t, (1, 0.8, 0.5, 0.4, 0.15)) * _rise(t, 0.03) * (1 + 0.3 * np.sin(TAU * 6 * t))


def hiss(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Noise above ``pitch`` that swells and fades."""
    spectrum = np.fft.rfft(rng.standard_normal(t.size))
    frequency = np.fft.rfftfreq(t.size, t[1] - t[0] if t.size > 1 else 1.0)
    return np.fft.irfft(spectrum / (1 + (pitch / np.maximum(frequency, 1)) ** 6), t.size) * _swell(t, 0.75)


def siren(t: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """A reedy tone that glides up an octave and back, again and again, 0.8 s each time."""
    phase = TAU * pitch * (1.4 * t - 0.4 * 0.8 / TAU * np.sin(TAU * t / 0.8))
    return _harmonics(phase, (1, 0, 0.5, 0, 0.35, 0, 0.2)) * _rise(t, 0.02)


ENDLESS = 1e9  # seconds: the note sounds to the end of the clip, and there is no second one
TIMBRES: dict[str, Timbre] = {
    "bell": Timbre(bell, (420, 900), (0.7, 1.1), 1.6),
    "drum": Timbre(drum, (65, 120), (0.24, 0.36), 0.4),
    "flute": Timbre(flute, (560, 1000), (0.62, 0.75), 0.6, (1, 9 / 8, 5 / 4, 3 / 2)),
    "guitar": Timbre(guitar, (110, 210), (0.3, 0.42), 1.0, (1, 5 / 4, 3 / 2, 2)),
    "horn": Timbre(horn, (190, 330), (0.92, 1.1), 0.9),
    "cat": Timbre(cat, (330, 520), (0.8, 1.0), 0.7),
    "bird": Timbre(bird, (2300, 3600), (0.55, 0.8), 0.44),
    "frog": Timbre(frog, (380, 650), (0.42, 0.6), 0.32),
    "knock": Timbre(knock, (700, 1300), (0.38, 0.55), 0.2),
    "hum": Timbre(hum, (85, 140), (ENDLESS, ENDLESS), ENDLESS),
    "hiss": Timbre(hiss, (2000, 3500), (0.8, 1.0), 0.75),
    "siren": Timbre(siren, (450, 750), (ENDLESS, ENDLESS), ENDLESS),
}
