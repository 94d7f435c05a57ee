"""Measures of a clip's picture: brightness, detail, motion, blur."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter1d

CELLS = 32  # a frame is looked at as so many cells a side where encoders' noise must not count
MOVING_CELLS = 10  # of 1,024: a mouth that moves
BLUR_TAPS = 9
BLURRED_FRAMES = 4  # of a clip that are looked at
BLUR_SIDE = 96  # pixels at which blur is measured, so that frames enlarged from small ones are not called blurred


def cells(frames: np.ndarray) -> np.ndarray:
    """Brightness of the cells: uint8 [N, H, W, 3] to float32 [N, 32, 32], 0 to 255 (Rec. 601)."""
    grey = (Image.fromarray(frame).convert("L") for frame in frames)
    small = [np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32) for image in grey]
    return np.stack(small)


def brightest(small: np.ndarray) -> np.ndarray:
    """Of every frame, the brightness that 1 % of its cells exceed: float [N]."""
    return np.quantile(small, 0.99, axis=(1, 2))


def contrast(small: np.ndarray) -> float:
    """Deviation of brightness within the frame that has most of it, in levels of 255."""
    return float(small.std(axis=(1, 2)).max())


def motion(small: np.ndarray) -> np.ndarray:
    """Change from each frame to the next, in levels of 255: float [N - 1].

    It is the change that 10 cells of 1,024 reach, which a moving mouth does and encoders' noise does not.
    """
    change = np.abs(np.diff(small, axis=0)).reshape(len(small) - 1, -1)
    return np.sort(change, axis=1)[:, -MOVING_CELLS]


def mean_change(small: np.ndarray) -> np.ndarray:
    """Mean change of brightness from each frame to the next, in levels of 255: float [N - 1]."""
    return np.abs(np.diff(small, axis=0)).mean(axis=(1, 2))


def blur(frames: np.ndarray) -> float:
    """How little is lost by blurring once more, 0 (sharp) to 1; median over up to 4 frames, the less blurred of
    both directions.

    Source: Crete et al., "The blur effect" (SPIE 2007): the loss of neighbouring differences under a mean of 9;
    here weighted by the differences, so that edges count and the last bit does not.
    """
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, BLURRED_FRAMES).astype(int))]
    return float(np.median([_blur(_reduced(frame)) for frame in chosen]))


def _reduced(frame: np.ndarray) -> np.ndarray:
    """Brightness at most 96 pixels a side, float32."""
    image = Image.fromarray(frame).convert("L")
    if max(image.size) > BLUR_SIDE:
        image = image.resize((BLUR_SIDE, BLUR_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _blur(grey: np.ndarray) -> float:
    found = []
    for axis in (0, 1):
        before = np.abs(np.diff(grey, axis=axis))
        after = np.abs(np.diff(uniform_filter1d(grey, BLUR_TAPS, axis=axis), axis=axis))
        total = float((before**2).sum())
        lost = float((np.maximum(before - after, 0) * before).sum())
        found.append(1 - lost / total if total else 1.0)
    return min(found)
