"""Measures of a clip's sound: level, silence, steadiness, clipping, onsets."""

from __future__ import annotations

from functools import cache

import numpy as np

from models.fbank import FRAME_RATE, MEL_BINS, SAMPLE_RATE, WINDOW, log_mel

FLOOR_DB = -120.0  # of a level: nothing at all
EDGE_FRAMES = 6  # 60 ms at either end, where encoders fade in and out
LOUD_NEPERS = 4.6  # 20 dB below the loudest mel bin: bins that count
QUIETEST_PEAK = 328  # of int16: -40 dB re full scale; below, nothing is called clipped
FULL_SCALE = 32767
MOST_OF_A_SINE = 0.005  # of a full-scale sine's samples are at full scale
TOP, SHOULDER = 0.98, 0.85  # of the peak: where a clipped waveform has its samples, and where it has few


def frame_levels(fbank: np.ndarray) -> np.ndarray:
    """Level of every frame in dB re full scale (a full-scale sine has -3), from the log-mel alone.

    Args:
        fbank: log-mel [frames, 128] as `models.fbank.log_mel` makes it; its pre-emphasis is undone per bin.

    Returns:
        float [frames], at least -120.
    """
    power = np.exp(fbank.astype(np.float64)) @ _weights() * _unit()
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR_DB)


def silent_share(levels: np.ndarray, silence_db: float) -> float:
    """Share of frames below a level, 0 to 1."""
    return float(np.mean(levels < silence_db))


def variation(fbank: np.ndarray) -> float:
    """Deviation over time of the log-mel of loud bins, in nepers of power (1 is 4.3 dB): 0 for a steady tone.

    White noise has about 0.7, because a window of 25 ms is short.
    """
    inner = fbank[EDGE_FRAMES:-EDGE_FRAMES] if len(fbank) > 4 * EDGE_FRAMES else fbank
    mean = inner.mean(axis=0, dtype=np.float64)
    loud = mean >= mean.max() - LOUD_NEPERS
    return float(inner[:, loud].std(axis=0, dtype=np.float64).mean())


def clipped_share(wave: np.ndarray) -> float:
    """Share of samples on the plateau of a clipped waveform; 0 where there is none.

    A clipped waveform has many samples at its peak and few just below; any other has fewer the nearer the
    peak (a sine, too: 13 % within 2 % of its peak, 22 % in the shoulder). A lossy codec makes the plateau
    uneven; then what exceeds full scale was cut off by decoding, and those samples count.

    Args:
        wave: int16 [samples], of any gain.
    """
    size = np.abs(wave.astype(np.int32))
    peak = int(size.max(initial=0))
    if peak < QUIETEST_PEAK:
        return 0.0
    top = float(np.mean(size >= TOP * peak))
    shoulder = float(np.mean(size >= SHOULDER * peak)) - top
    full = float(np.mean(size >= FULL_SCALE))
    return max(top if top > shoulder else 0.0, full if full >= MOST_OF_A_SINE else 0.0)


def onset_strength(fbank: np.ndarray) -> np.ndarray:
    """How much louder each frame is than the one before, mean over bins of the rise in nepers: float [frames].

    Bins are cut at 60 dB below the loudest one, so that what is inaudible has no onsets.

    Source: spectral flux of log-mel, as in Boeck and Widmer (DAFx 2013), without its maximum filter.
    """
    shown = np.maximum(fbank.astype(np.float32), float(fbank.max()) - 13.8)
    rise = np.maximum(np.diff(shown, axis=0, prepend=shown[:1]), 0)
    return rise.mean(axis=1)


@cache
def _weights() -> np.ndarray:
    """Per mel bin, what undoes the pre-emphasis 1 - 0.97 / z at the bin's centre."""
    mel = np.linspace(_mel(20.0), _mel(SAMPLE_RATE / 2), MEL_BINS + 2)[1:-1]
    hertz = 700 * (np.exp(mel / 1127) - 1)
    gain = np.abs(1 - 0.97 * np.exp(-2j * np.pi * hertz / SAMPLE_RATE)) ** 2
    return 1 / gain


def _mel(hertz: float) -> float:
    return 1127 * np.log(1 + hertz / 700)


@cache
def _unit() -> float:
    """What makes a full-scale sine of 1 kHz come out at half the power of full scale."""
    times = np.arange(SAMPLE_RATE // 4 + WINDOW) / SAMPLE_RATE
    sine = (32767 * np.sin(2000 * np.pi * times)).astype(np.int16)
    return float(0.5 / np.median(np.exp(log_mel(sine).astype(np.float64)) @ _weights()))


def seconds_of(fbank: np.ndarray) -> float:
    """Seconds of sound behind a log-mel [frames, 128]."""
    return len(fbank) / FRAME_RATE
