"""From a scene's description to its frames: antialiased, vectorised over time and pixels.

Shapes: T frames, H rows and W columns (H = W = the clip's size).
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.corpora.synthetic.appearance import LOOKS

TEXTURES = ("plain", "stripes", "checks", "blobs", "gradient")
OUTLINE = 0.06  # of half the object's size
TONES = {"dark": (0.08, 0.07, 0.1), "light": (0.96, 0.95, 0.9)}  # beside an object's own body and accent


def draw(scene: Mapping[str, Any]) -> np.ndarray:
    """All frames of a scene (see :mod:`pipelines.corpora.synthetic.scenes`): uint8 [T, H, W, 3], RGB."""
    count, size = round(scene["seconds"] * scene["fps"]), scene["size"]
    times = (np.arange(count, dtype=np.float32) / scene["fps"])[:, None, None]  # [T, 1, 1]
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, None, :], axis[None, :, None]  # [1, 1, W], [1, H, 1], 0 to 1 across the frame
    background = _background(scene["background"], x[0], y[0])
    picture = np.repeat(background[:, None], count, axis=1)  # [3, T, H, W]: whole planes are painted faster
    for item in scene["objects"]:
        _paint(picture, item, times, x, y)
    picture *= scene["background"]["brightness"]
    pixels = (np.minimum(picture, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def _paint(picture: np.ndarray, item: Mapping[str, Any], times, x, y) -> None:
    """Paint one object over ``picture`` (float32 [3, T, H, W], in place)."""
    sway = np.sin(2 * np.pi * (times * item["sway_hz"] + item["sway_phase"]))  # [T, 1, 1]
    angle = np.radians(item["angle"] + item["sway_degrees"] * sway)
    half = item["size"] / 2
    dx, dy = (
        (x - item["x"] - item["drift_x"] * times) / half,
        (y - item["y"] - item["drift_y"] * times) / half,
    )
    u = (dx * np.cos(angle) + dy * np.sin(angle)) * item["flip"]
    v = dy * np.cos(angle) - dx * np.sin(angle)
    sharp = half * picture.shape[-1]  # pixels per unit of u and v
    tones = TONES | {"body": item["colour"], "accent": item["accent"]}
    layers = LOOKS[item["look"]](u, v)
    for distance, tone in [(layers[0][0] - OUTLINE, "dark"), *layers]:
        cover = np.minimum(np.maximum(0.5 - distance * np.float32(sharp), 0), 1)  # [T, H, W], antialiased
        for plane, value in zip(picture, tones[tone], strict=True):
            plane += (np.float32(value) - plane) * cover


def _background(background: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The still background, float32 [3, H, W]; x is [1, W], y is [H, 1]."""
    first, second = (np.array(rgb, np.float32)[:, None, None] for rgb in background["colours"])
    share = _texture(background, x, y).astype(np.float32)  # [H, W], of the second colour
    return first + (second - first) * share


def _texture(background: Mapping[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angle = np.radians(background["angle"])
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    waves, phase = 2 * np.pi / background["period"], background["phase"]
    match background["texture"]:
        case "stripes":
            return 0.5 + 0.5 * np.tanh(3 * np.sin(along * waves + phase))
        case "checks":
            return 0.5 + 0.5 * np.tanh(4 * np.sin(along * waves + phase) * np.sin(across * waves))
        case "blobs":
            return 0.5 + 0.25 * (np.sin(along * waves + phase) + np.sin(across * waves * 0.7 + 2 * along))
        case "gradient":
            return np.clip(along / 2 + 0.5, 0, 1)
        case _:
            return np.full(np.broadcast_shapes(x.shape, y.shape), 0.5)


def colour(hue: float, saturation: float, lightness: float) -> tuple[float, float, float]:
    """RGB in [0, 1] from hue, saturation and lightness in [0, 1], rounded to what 8 bits hold."""
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(red, 3), round(green, 3), round(blue, 3)
