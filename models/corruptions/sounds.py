"""Corruptions of a waveform, with their severities: float32 [samples] within -1..1 at 16 kHz, in and out.

Noise is added at a ratio of powers over the whole clip; what is beyond full scale is cut, as a sound file cuts it.
AVROBUSTBENCH unless said.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

RATE = 16000  # Hz
SNR = (40, 30, 20, 10, 0)  # dB, of noise that is made
SNR_RECORDED = (20, 15, 10, 5, 0)  # dB, of noise that was recorded


def at_snr(x: np.ndarray, noise: np.ndarray, decibels: float) -> np.ndarray:
    """The sound with noise [samples] at a signal-to-noise ratio; silence gets none."""
    signal, power = float(np.mean(np.square(x, dtype=np.float64))), float(np.mean(np.square(noise, dtype=np.float64)))
    if not power:
        return x.copy()
    gain = np.sqrt(signal / power) * 10 ** (-decibels / 20)
    return np.clip(x + gain * noise, -1, 1).astype(np.float32)


def gaussian(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """White noise at 40, 30, 20, 10 or 0 dB (the released code takes the severity for the ratio in dB, so that its
    mildest is its loudest)."""
    return at_snr(x, rng.standard_normal(len(x), dtype=np.float32), SNR[severity - 1])


def impulse(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Spikes of either sign on 5 % of the samples, at 40, 30, 20, 10 or 0 dB."""
    drawn = rng.random(len(x))
    spikes = np.where(drawn < 0.025, -1.0, np.where(drawn >= 0.975, 1.0, 0.0)).astype(np.float32)
    return at_snr(x, spikes, SNR[severity - 1])


def shot(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """What Poisson counts (50 at the highest value, none at the lowest) add to it, at 40, 30, 20, 10 or 0 dB."""
    low, high = float(x.min()), float(x.max())
    level = (x - low) / (high - low) if high > low else np.full_like(x, 0.5)
    return at_snr(x, (rng.poisson(50 * level) / 50 - level).astype(np.float32), SNR[severity - 1])


def speckle(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """White noise as loud as the sound is at each moment, at 40, 30, 20, 10 or 0 dB."""
    return at_snr(x, x * rng.standard_normal(len(x), dtype=np.float32), SNR[severity - 1])


def compression(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A Butterworth low-pass of order 6 at 8, 6, 4, 2 or 1 kHz. 8 kHz is all that there is in sound of 16 kHz, so
    severity 1 changes nothing (where the released code fails)."""
    cutoff = (8000, 6000, 4000, 2000, 1000)[severity - 1]
    if cutoff >= RATE / 2:
        return x.copy()
    filtered = sosfilt(butter(6, cutoff, fs=RATE, output="sos"), x)
    return np.clip(filtered, -1, 1).astype(np.float32)


def recorded(x: np.ndarray, severity: int, rng: np.random.Generator, recording: np.ndarray) -> np.ndarray:
    """A recording from its start, repeated where it is shorter, at 20, 15, 10, 5 or 0 dB."""
    return at_snr(x, np.resize(recording, len(x)), SNR_RECORDED[severity - 1])


def interference(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Silence 10, 20, 30, 40 or 50 % of the sound, in 2, 4, 6, 8 or 10 pieces of one length that don't overlap (in the
    released code they may)."""
    pieces = 2 * severity
    length = int(len(x) * severity / 10) // pieces
    starts = np.sort((rng.random(pieces) * (len(x) - pieces * length + 1)).astype(int)) + length * np.arange(pieces)
    out = x.copy()
    for start in starts:
        out[start : start + length] = 0
    return out


def read_gaussian(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """White noise of standard deviation 0.08, 0.12, 0.18, 0.26 or 0.38 of full scale, however loud the sound (READ)."""
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return np.clip(x + sigma * rng.standard_normal(len(x), dtype=np.float32), -1, 1)


def read_recorded(x: np.ndarray, severity: int, rng: np.random.Generator, recording: np.ndarray) -> np.ndarray:
    """A recording from its start, repeated, louder than it is by 1, 2, 4, 6 or 8 dB, however loud the sound (READ)."""
    gain = 10 ** ((1, 2, 4, 6, 8)[severity - 1] / 20)
    return np.clip(x + np.clip(gain * np.resize(recording, len(x)), -1, 1), -1, 1).astype(np.float32)
