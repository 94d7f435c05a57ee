"""Blurs of a picture, with their severities: ImageNet-C's, written for 224 pixels and scaled with the side."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from models.corruptions.pictures import REFERENCE, light, pixels, unit

MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma in pixels
DISK = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))  # radius, sigma of its rim
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, furthest move, rounds
ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # up to, in steps of


def along(values: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Motion blur of [S, S] or [S, S, C] as ImageMagick's: pixels ahead in one direction, weighed by half a Gaussian of
    2 ceil(radius) + 1 taps, to the nearest pixel; beyond the edge the edge."""
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    turn = math.radians(degrees)
    right = np.ceil(steps * math.cos(turn) - 0.5).astype(int)
    down = np.ceil(steps * math.sin(turn) - 0.5).astype(int)
    edge, (height, width) = len(steps), values.shape[:2]
    padded = np.pad(values, [(edge, edge), (edge, edge), *[(0, 0)] * (values.ndim - 2)], mode="edge")
    out = np.zeros_like(values)
    for weight, dx, dy in zip(weights.astype(np.float32), right, down, strict=True):
        out += weight * padded[edge + dy : edge + dy + height, edge + dx : edge + dx + width]
    return out


def motion(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Motion blur in a direction within 45 degrees of the horizontal."""
    radius, sigma = MOTION[severity - 1]
    return pixels(along(light(x), radius * unit(x), sigma * unit(x), rng.uniform(-45, 45)))


def defocus(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Convolve with a disk of radius 3, 4, 6, 8 or 10 pixels, its rim softened."""
    size, rim = DISK[severity - 1]
    radius, values = size * unit(x), light(x)
    reach = math.ceil(radius) + 2
    far = np.arange(-reach, reach + 1)
    disk = (far[:, None] ** 2 + far[None] ** 2 <= radius**2).astype(np.float32)
    disk = gaussian_filter(disk / disk.sum(), rim, mode="constant", radius=1 if severity <= 4 else 2)
    planes = torch.from_numpy(values).permute(2, 0, 1)[:, None]
    edges = (min(reach, x.shape[0] - 1),) * 4
    kernel = torch.from_numpy(disk)[None, None]
    blurred = F.conv2d(F.pad(planes, edges, mode="reflect"), kernel)[:, 0]
    return pixels(blurred.permute(1, 2, 0).numpy())


def glass(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Blur, swap every pixel with one that is a few pixels away, one after the other, and blur again; at 224 pixels,
    whatever the picture's size.

    ImageNet-C's code, through views of one array, copies where it means to swap.
    """
    sigma, furthest, rounds = GLASS[severity - 1]
    large = Image.fromarray(x).resize((REFERENCE, REFERENCE), Image.Resampling.BILINEAR)  # itself, where it has 224
    blurred = gaussian_filter(light(np.array(large)), sigma, mode="nearest", axes=(0, 1))
    shuffled = blurred.reshape(-1, 3)[shuffled_places(furthest, rounds, rng)].reshape(blurred.shape)
    seen = pixels(gaussian_filter(shuffled, sigma, mode="nearest", axes=(0, 1)))
    return np.array(Image.fromarray(seen).resize(x.shape[1::-1], Image.Resampling.BILINEAR))


def shuffled_places(furthest: int, rounds: int, rng: np.random.Generator) -> list[int]:
    """Where each of the 224 x 224 pixels comes from after swaps with others at most `furthest` pixels away per axis."""
    order = list(range(REFERENCE * REFERENCE))
    along_side = range(REFERENCE - furthest, furthest, -1)
    for _ in range(rounds):
        dx, dy = rng.integers(-furthest, furthest, (2, len(along_side), len(along_side)))
        for row, jumps in zip(along_side, (dy * REFERENCE + dx).tolist(), strict=True):
            for column, jump in zip(along_side, jumps, strict=True):
                here = row * REFERENCE + column
                order[here], order[here + jump] = order[here + jump], order[here]
    return order


def zoom(x: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the picture and of enlargements of it up to 1.10, 1.15, 1.20, 1.24 or 1.30 times."""
    end, step = ZOOM[severity - 1]
    values = light(x)
    factors = np.arange(1, end, step)
    total = values + sum(enlarged(values, factor) for factor in factors)
    return pixels(total / (len(factors) + 1))


def enlarged(values: np.ndarray, factor: float) -> np.ndarray:
    """The middle of [S, S] or [S, S, C], `factor` times as large, bilinear, cut to the same shape."""
    side = values.shape[0]
    part = math.ceil(side / factor)
    first = (side - part) // 2
    middle = torch.from_numpy(np.ascontiguousarray(values[first : first + part, first : first + part]))
    planes = middle.reshape(part, part, -1).permute(2, 0, 1)[None].float()
    size = max(side, round(part * factor))
    grown = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
    cut = (size - side) // 2
    return grown[cut : cut + side, cut : cut + side].numpy().reshape(values.shape)
