"""Sketches of a clip's sound and picture: small arrays by which duplicates are found and compared.

Hashes find candidates: signs of the lowest cosine coefficients, which gain, re-encoding and a small crop leave
nearly as they are; a clip has one hash for each of a few windows, so that a crop meets the window that it is.
Sketches decide: small enough to keep for each clip, large enough to tell two takes of the same word apart.

Legend: T steps of time, M mel bands, K frames, S side of a small frame, V windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn

STEPS = 512  # of a sound's sketch, at most
STEP_FRAMES = 2  # log-mel frames of its finest step: 20 ms
RANGE_NEPERS = 13.8  # 60 dB below the loudest: what a sketch of sound holds
QUIETEST = -6.5  # log-mel of a sine at -60 dB re full scale: what is below is not drawn up to full range
STILLS, SIDE = 3, 32  # of a picture's sketch
SOUND_COSINES, LUMA_COSINES, CHROMA_COSINES = (6, 7), (5, 5), (3, 3)  # 41 bits; 24 + 8 + 8 bits
GRID = 32  # cells a side of what is transformed
TIME_WINDOWS = ((0.0, 1.0), (0.0, 0.9), (0.1, 1.0), (0.05, 0.95), (0.1, 0.9))
CROP_WINDOWS = ((0.0, 1.0), (0.05, 0.95), (0.1, 0.9))
FLAT = 0.5  # levels of 255: a coefficient below is encoders' noise, and its bit 0


def digest(array: np.ndarray) -> int:
    """64 bits that are equal for equal arrays."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return int.from_bytes(hashlib.blake2b(head + array.tobytes(), digest_size=8).digest(), "little")


def sound_sketch(fbank: np.ndarray) -> np.ndarray:
    """uint8 [T, 128], T at most 512: a log-mel [frames, 128] averaged in time.

    A step lasts 20 ms times the power of two that makes them few enough; 0 is 60 dB below the loudest
    value (of at least -60 dB re full scale), 255 the loudest.
    """
    edges = np.arange(0, len(fbank), sound_step(len(fbank)))
    sums = np.add.reduceat(fbank.astype(np.float32), edges, axis=0)
    means = sums / np.diff(np.append(edges, len(fbank)))[:, None]
    scaled = (means - max(float(means.max()), QUIETEST)) / RANGE_NEPERS + 1
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def sound_step(frames: int) -> int:
    """Log-mel frames per step of the sketch of so many."""
    step = STEP_FRAMES
    while frames > STEPS * step:
        step *= 2
    return step


def picture_sketch(frames: np.ndarray) -> np.ndarray:
    """uint8 [K, 32, 32, 3]: frames at 1/6, 1/2, 5/6 of uint8 [N, H, W, 3], scaled down."""
    places = [(2 * k + 1) * len(frames) // (2 * STILLS) for k in range(STILLS)]
    images = (Image.fromarray(frames[i]).resize((SIDE, SIDE), Image.Resampling.BOX) for i in places)
    return np.stack([np.asarray(image) for image in images])


def sound_hashes(sketch: np.ndarray) -> np.ndarray:
    """uint64 [5]: a hash for each window of time, of a sketch uint8 [T, 128]."""
    found = []
    for begin, end in TIME_WINDOWS:
        first = round(begin * len(sketch))
        part = sketch[first : max(round(end * len(sketch)), first + 1)]
        grid = _spread(part.astype(np.float32), GRID)
        found.append(_pack(_signs(grid, SOUND_COSINES)))
    return np.array(found, np.uint64)


def picture_hashes(sketch: np.ndarray) -> np.ndarray:
    """uint64 [6]: a hash for each window of the first and of the middle frame, of uint8 [K, 32, 32, 3]."""
    found = []
    for frame in (sketch[0], sketch[STILLS // 2]):
        for begin, end in CROP_WINDOWS:
            box = (SIDE * begin, SIDE * begin, SIDE * end, SIDE * end)
            image = Image.fromarray(frame).resize((GRID, GRID), Image.Resampling.BILINEAR, box=box)
            luma, *chroma = np.moveaxis(np.asarray(image.convert("YCbCr"), np.float32), 2, 0)
            signs = [_signs(luma, LUMA_COSINES), *(_signs(plane, CHROMA_COSINES) for plane in chroma)]
            found.append(_pack(np.concatenate(signs)))
    return np.array(found, np.uint64)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Rows [n, M] interpolated to [count, M]."""
    places = (np.arange(count) + 0.5) * len(rows) / count - 0.5
    low = np.clip(np.floor(places).astype(int), 0, len(rows) - 1)
    high, share = np.minimum(low + 1, len(rows) - 1), np.clip(places - low, 0, 1)[:, None]
    return rows[low] * (1 - share) + rows[high] * share


def _signs(plane: np.ndarray, kept: tuple[int, int]) -> np.ndarray:
    """bool: which of the lowest cosine coefficients, the mean left out, are above 0."""
    wave = dctn(plane, norm="ortho")[: kept[0], : kept[1]].ravel()[1:]
    return wave > FLAT * GRID


def _pack(bits: Sequence[bool] | np.ndarray) -> int:
    return sum(1 << i for i, bit in enumerate(bits) if bit)
