"""Weather and liquids before a picture, with their severities.

Layers are drawn at 224 pixels and scaled to the picture. The numbers are ImageNet-C's, or AVROBUSTBENCH's where said.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_erosion, correlate, distance_transform_edt, gaussian_filter, uniform_filter
from torch.nn import functional as F

from models.corruptions.lenses import along, enlarged
from models.corruptions.pictures import LUMA, REFERENCE, light, pixels, unit

SHAPE = (REFERENCE, REFERENCE)
# of falling drops or flakes: mean and deviation of the noise, its zoom, threshold, radius and sigma of the motion blur,
# share of the picture that is kept
SNOW = (
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
RAIN = (
    (0.05, 0.2, 3, 0.3, 10, 4, 0.8),
    (0.05, 0.2, 3.5, 0.3, 10, 5, 0.7),
    (0.1, 0.2, 4, 0.25, 12, 6, 0.7),
    (0.1, 0.2, 4.5, 0.25, 15, 8, 0.65),
    (0.1, 0.25, 5, 0.2, 18, 10, 0.6),
)
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # shares of picture and overlay
# mean and deviation of the noise, its smoothing, threshold, strength or smoothing of the mask, mud
SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6, False),
    (0.65, 0.3, 3, 0.68, 0.6, False),
    (0.65, 0.3, 2, 0.68, 0.5, False),
    (0.65, 0.3, 1, 0.65, 1.5, True),
    (0.67, 0.4, 1, 0.65, 1.5, True),
)
HAZE = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))  # thickness, and decay (fog) or smoothing (smoke)
WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255
TINT = np.array([0.5, 0.9, 1.2], dtype=np.float32)  # of rain


def snow(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Flakes that fall within 45 degrees of the vertical, twice (turned by 180 degrees), before a whitened picture."""
    flakes = _falling(SNOW[severity - 1], (-135, -45), rng, x.shape[0])[..., None]
    return pixels(_paled(x, SNOW[severity - 1][6], 1.5, 0.5) + flakes + np.rot90(flakes, 2))


def rain(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Bluish drops that fall within 30 degrees of the vertical, twice, before a paled picture (AVROBUSTBENCH)."""
    drops = np.clip(_falling(RAIN[severity - 1], (-120, -60), rng, x.shape[0])[..., None] * TINT, 0, 1)
    return pixels(_paled(x, RAIN[severity - 1][6], 1.3, 0.3) + drops + np.rot90(drops, 2))


def _falling(
    numbers: tuple[float, ...], degrees: tuple[float, float], rng: np.random.Generator, side: int
) -> np.ndarray:
    """Motion-blurred specks, 0..1, [side, side]."""
    mean, deviation, zoom, threshold, radius, sigma, _ = numbers
    specks = enlarged(mean + deviation * rng.standard_normal(SHAPE, dtype=np.float32), zoom)
    specks = np.clip(np.where(specks < threshold, 0, specks), 0, 1)
    return fitted(along(specks, radius, sigma, rng.uniform(*degrees)), side)


def _paled(x: np.ndarray, kept: float, gain: float, lift: float) -> np.ndarray:
    values = light(x)
    return kept * values + (1 - kept) * np.maximum(values, (values @ LUMA)[..., None] * gain + lift)


def frost(x: np.ndarray, severity: int, rng: np.random.Generator, overlay: np.ndarray) -> np.ndarray:
    """Add a random piece of a picture of ice, [H, W, 4], to the dimmed picture."""
    kept, share = FROST[severity - 1]
    side, (height, width) = x.shape[0], overlay.shape[:2]
    scale = max(unit(x), side / min(height, width))
    size = max(side, round(width * scale)), max(side, round(height * scale))
    ice = np.array(Image.fromarray(overlay).convert("RGB").resize(size, Image.Resampling.BILINEAR))
    top, left = (int(place * (room - side + 1)) for place, room in zip(rng.random(2), ice.shape[:2], strict=True))
    return pixels(kept * light(x) + share * light(ice[top : top + side, left : left + side]))


def spatter(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Drops of water on the lens at severities 1 to 3, of mud at 4 and 5.

    The rims that light up the water are the borders of the drops, where ImageNet-C runs Canny's detector on them.
    """
    mean, deviation, smooth, threshold, last, mud = SPATTER[severity - 1]
    liquid = gaussian_filter(mean + deviation * rng.standard_normal(SHAPE, dtype=np.float32), smooth, mode="nearest")
    wet = liquid >= threshold
    if mud:
        cover = gaussian_filter(wet.astype(np.float32), last, mode="nearest")
        cover = fitted(np.where(cover < 0.8, 0, cover), x.shape[0])[..., None]
        return pixels(light(x) * (1 - cover) + cover * MUD)
    shine = _shine(np.where(wet, np.clip(liquid, 0, 1), 0).astype(np.float32))
    return pixels(light(x) + last * fitted(shine, x.shape[0])[..., None] * WATER)


def _shine(liquid: np.ndarray) -> np.ndarray:
    """How light drops, [224, 224], are: by the distance from their rims, embossed; 0..1."""
    rims = (liquid > 0) & ~binary_erosion(liquid > 0)
    if not rims.any():
        return np.zeros_like(liquid)
    distance = np.minimum(distance_transform_edt(~rims), 20).astype(np.float32)
    levels = equalised(uniform_filter(distance, 3, mode="mirror").astype(np.uint8))
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)
    relief = np.clip(correlate(levels.astype(np.float32), emboss, mode="mirror"), 0, 255)
    shine = liquid * uniform_filter(relief, 3, mode="mirror")
    return shine / max(float(shine.max()), 1e-6)


def equalised(levels: np.ndarray) -> np.ndarray:
    """Histogram equalisation of uint8 levels: the darkest that occurs becomes 0, the rest spread by their counts."""
    counts = np.bincount(levels.ravel(), minlength=256)
    below = counts.cumsum()
    lowest = below[counts.nonzero()[0][0]]
    if lowest == levels.size:
        return levels
    return np.round(255 * np.clip(below - lowest, 0, None) / (levels.size - lowest)).astype(np.uint8)[levels]


def fog(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A plasma fractal laid over the picture."""
    thickness, decay = HAZE[severity - 1]
    return _hazy(x, thickness, fitted(plasma(decay, rng)[:REFERENCE, :REFERENCE], x.shape[0]))


def smoke(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Smoothed uniform noise laid over the picture (AVROBUSTBENCH)."""
    thickness, smooth = HAZE[severity - 1]
    return _hazy(x, thickness, fitted(gaussian_filter(rng.random(SHAPE, dtype=np.float32), smooth), x.shape[0]))


def _hazy(x: np.ndarray, thickness: float, layer: np.ndarray) -> np.ndarray:
    values = light(x)
    brightest = float(values.max())
    return pixels((values + thickness * layer[..., None]) * brightest / (brightest + thickness))


def plasma(decay: float, rng: np.random.Generator) -> np.ndarray:
    """Heights 0..1 by the diamond-square algorithm, float32 [256, 256], that wrap around; each halving of the step
    divides the random part by `decay` squared."""
    size = 256
    heights = np.zeros((size, size), dtype=np.float32)
    step, reach = size, 1.0
    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        middles = (pairs + np.roll(pairs, -1, axis=1)) / 4 + rng.uniform(-reach, reach, corners.shape)
        heights[half::step, half::step] = middles
        across = corners + np.roll(corners, -1, axis=1) + middles + np.roll(middles, 1, axis=0)
        heights[::step, half::step] = across / 4 + rng.uniform(-reach, reach, corners.shape)
        along_columns = corners + np.roll(corners, -1, axis=0) + middles + np.roll(middles, 1, axis=1)
        heights[half::step, ::step] = along_columns / 4 + rng.uniform(-reach, reach, corners.shape)
        step, reach = half, reach / decay**2
    heights -= heights.min()
    return heights / heights.max()


def fitted(layer: np.ndarray, side: int) -> np.ndarray:
    """A layer drawn at 224 pixels, float32 [224, 224], scaled to [side, side]."""
    if side == REFERENCE:
        return layer
    plane = torch.from_numpy(np.ascontiguousarray(layer, dtype=np.float32))[None, None]
    return F.interpolate(plane, size=(side, side), mode="bilinear", antialias=True)[0, 0].numpy()
