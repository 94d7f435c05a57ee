"""Corruptions of a picture's values and geometry, with their severities.

The numbers are ImageNet-C's (Hendrycks & Dietterich, ICLR 2019), which READ and AVROBUSTBENCH took over, unless said;
lengths are of pictures of 224 pixels and scale with the side. Each function takes and returns uint8 [S, S, 3], as
`models.corruptions.record.Corrupting` says.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

REFERENCE = 224  # pixels of side, for which all lengths are given
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def unit(x: np.ndarray) -> float:
    """Pixels of this picture per pixel of a picture of 224."""
    return x.shape[0] / REFERENCE


def light(x: np.ndarray) -> np.ndarray:
    """A picture's values in 0..1, float32 [S, S, 3]."""
    return x.astype(np.float32) / 255


def pixels(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 (cut where they are beyond) as a picture, uint8."""
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


def gaussian(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add N(0, sigma) to every value; sigma 0.08, 0.12, 0.18, 0.26, 0.38 of full light."""
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return pixels(light(x) + sigma * rng.standard_normal(x.shape, dtype=np.float32))


def impulse(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper on 3, 6, 9, 17 or 27 % of the values, each channel for itself, half of them salt."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    drawn = rng.random(x.shape)
    return np.where(drawn < share / 2, 0, np.where(drawn >= 1 - share / 2, 255, x)).astype(np.uint8)


def shot(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts of 60, 25, 12, 5 or 3 photons at full light."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return pixels(rng.poisson(light(x) * photons) / photons)


def speckle(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Multiply every value by 1 + N(0, sigma); sigma 0.15, 0.2, 0.35, 0.45, 0.6."""
    sigma = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return pixels(light(x) * (1 + sigma * rng.standard_normal(x.shape, dtype=np.float32)))


def jpeg(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG of quality 25, 18, 15, 10 or 7."""
    return stored(x, (25, 18, 15, 10, 7)[severity - 1])


def stored(x: np.ndarray, quality: int) -> np.ndarray:
    """A picture after it was stored as JPEG."""
    file = BytesIO()
    Image.fromarray(x).save(file, format="JPEG", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


def brightness(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Add 0.1, 0.2, 0.3, 0.4 or 0.5 to V of HSV, at most 1; hue and saturation stay (black becomes grey)."""
    values = light(x)
    old = values.max(axis=2, keepdims=True)
    new = np.minimum(old + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 1)
    return pixels(np.where(old > 0, values * new / np.maximum(old, 1e-6), new))


def contrast(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every value towards its channel's mean; 40, 30, 20, 10 or 5 % of the distance are left."""
    values = light(x)
    mean = values.mean(axis=(0, 1), keepdims=True)
    return pixels(mean + (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1] * (values - mean))


def pixelate(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Shrink to 60, 50, 40, 30 or 25 % of the side by means of boxes, and enlarge again."""
    side = x.shape[0]
    small = max(1, int(side * (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]))
    shrunk = Image.fromarray(x).resize((small, small), Image.Resampling.BOX)
    return np.array(shrunk.resize((side, side), Image.Resampling.BOX))


def turned(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Turn by a whole number of degrees, uniform within 11, 17, 23, 29 or 35 either way; nearest pixel, black corners
    (AVROBUSTBENCH)."""
    most = 5 + 6 * severity
    return np.array(Image.fromarray(x).rotate(int(np.floor((2 * most + 1) * rng.random())) - most))


def occluded(x: np.ndarray, severity: int, rng: np.random.Generator, overlay: np.ndarray) -> np.ndarray:
    """Lay an overlay, RGBA [H, W, 4], squeezed to a square of 10, 20, 30, 40 or 50 % of the side, over a random place
    (AVROBUSTBENCH; its code pastes blue for red)."""
    side = x.shape[0]
    size = max(1, int(side * severity / 10))
    top, left = (int(place * (side - size + 1)) for place in rng.random(2))
    cover = light(np.array(Image.fromarray(overlay).resize((size, size), Image.Resampling.BILINEAR)))
    out = light(x)
    place = out[top : top + size, left : left + size]
    place[:] = (1 - cover[..., 3:]) * place + cover[..., 3:] * cover[..., :3]
    return pixels(out)


# share of red that is kept, kernel in pixels, contrast, grey of the haze
WATERS = ((0.9, 3, 0.9, 20), (0.7, 5, 0.8, 40), (0.5, 7, 0.7, 60), (0.3, 10, 0.6, 80), (0.1, 15, 0.5, 100))
# of 244 pixels: strength and smoothing of the field, move of the points
ELASTIC = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))


def underwater(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Keep 90, 70, 50, 30 or 10 % of the red; blur by a Gaussian kernel of 3, 5, 7, 10 or 15 pixels; contrast 0.9 to
    0.5; 15 % haze of grey 20 to 100 (AVROBUSTBENCH).

    Its code takes the red from the blue channel, hands the channels back in the wrong order, and fails at severity 4,
    whose kernel is even: here the deviation is OpenCV's for a kernel of that size, whatever its parity.
    """
    red, size, contrast, haze = WATERS[severity - 1]
    sigma, reach = (0.15 * size + 0.35) * unit(x), max(1, round((size - 1) / 2 * unit(x)))
    values = light(x) * np.array([red, 1, 1], dtype=np.float32)
    blurred = gaussian_filter(values, sigma, mode="mirror", radius=reach, axes=(0, 1))
    return pixels(0.85 * contrast * blurred + 0.15 * haze / 255)


def elastic(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Move three points, and every pixel by a smooth field; one bilinear look-up (ImageNet-C makes two)."""
    strength, smooth, reach = (244 * unit(x) * share for share in ELASTIC[severity - 1])
    side = x.shape[0]
    centre, third = side // 2, side // 3
    points = np.array([[centre + third] * 2, [centre + third, centre - third], [centre - third] * 2], dtype=float)
    moved = points + reach * rng.uniform(-1, 1, points.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)  # [3, 2]: where a pixel comes from
    fields = [strength * gaussian_filter(rng.uniform(-1, 1, (side, side)), smooth, truncate=3) for _ in range(2)]
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    at = np.stack([columns + fields[0], rows + fields[1], np.ones((side, side))], axis=-1) @ back
    channels = np.moveaxis(light(x), 2, 0)
    moved_channels = [map_coordinates(c, [at[..., 1], at[..., 0]], order=1, mode="mirror") for c in channels]
    return pixels(np.stack(moved_channels, axis=-1))
