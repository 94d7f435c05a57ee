"""Which frames of a clip are taken, and how a frame becomes a square picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pipelines.audio import Span, tolerance
from pipelines.causes import NOT_IN_CLIP, TOO_LARGE, TRUNCATED, DecodeError

SQUARE = 0.02  # an aspect this near to 1 is an encoder's rounding


@dataclass(frozen=True)
class Frames:
    """``images`` uint8 [N, size, size, 3], when each was shown and where the stream ends (seconds)."""

    images: np.ndarray
    times: tuple[float, ...]
    end: float


@dataclass(frozen=True)
class Wanted:
    """What frames to take of a clip.

    Attributes:
        span: the clip.
        count: how many.
        size: height and width, pixels.
        until: second of the file's clock at which the whole file is over: so long its last frame is held.
        pixel_aspect: width over height of a pixel, as the picture is stored.
        key_frames: the nearest key frames in place of the exact ones.
    """

    span: Span
    count: int
    size: int
    until: float | None = None
    pixel_aspect: float = 1.0
    key_frames: bool = False

    def choose(self, shown: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray:
        """Positions of the frames to take; ``keys``, positions of the key frames, where those alone are wanted."""
        chosen = uniform(shown, self.span, self.count, self.until)
        if not self.key_frames or keys is None or not len(keys):
            return chosen
        return keys[nearest(shown[keys, 0], shown[chosen, 0])]

    def frames(self, images: np.ndarray, shown: np.ndarray, chosen: np.ndarray) -> Frames:
        """The pictures of the chosen positions, with their times."""
        times = tuple(float(shown[i, 0]) for i in chosen)
        return Frames(images, times, clip_end(shown, self.span, self.until))


def clip_end(shown: np.ndarray, span: Span, until: float | None = None) -> float:
    """Second at which the picture of a clip ends.

    The last frame is held to the end of the clip, unless that is so near that the ends count as one.
    """
    begin, limit = max(span.start, 0.0), span.start + (span.duration or np.inf)
    own = min(float(shown[-1, 1]), limit) if len(shown) else 0.0
    held = min(max(until or 0.0, own), limit)
    return held if own <= begin or held - own > tolerance(held - begin) else own


def uniform(shown: np.ndarray, span: Span, count: int, until: float | None = None) -> np.ndarray:
    """Positions of ``count`` frames: those on screen in the middles of equal parts of the span.

    Args:
        shown: float [frames, 2], ascending, seconds at which each frame of the file appears and goes.
        until: second at which the whole file is over; the last frame is held so long.

    Raises:
        DecodeError: the stream has no frame in the span.
    """
    begin, end = max(span.start, 0.0), clip_end(shown, span, until)
    if end <= begin:
        raise DecodeError(TRUNCATED, f"the picture ends at {end:.2f} s, the clip begins at {begin:.2f} s")
    if span.duration is not None and shown[0, 0] >= span.start + span.duration:
        raise DecodeError(NOT_IN_CLIP, f"the picture begins at {shown[0, 0]:.2f} s, after the clip")
    middles = begin + (np.arange(count) + 0.5) * (end - begin) / count
    middles += 5e-3  # readers round times differently: a middle on a frame's edge belongs to that frame
    return np.clip(np.searchsorted(shown[:, 0], middles, side="right") - 1, 0, len(shown) - 1)


def seconds(begins: np.ndarray, last: int, unit: float) -> np.ndarray:
    """Float [frames, 2]: when frames appear (``begins``, ascending) and go; the last stays ``last`` units."""
    return np.stack([begins, np.append(begins[1:], begins[-1] + max(last, 1))], 1) * unit


def nearest(shown_at: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions in ``shown_at`` (ascending) of the moments nearest to the wanted ones; of two, the later."""
    away = np.abs(np.subtract.outer(wanted, shown_at[::-1]))
    return len(shown_at) - 1 - away.argmin(axis=1)


def fit(image: np.ndarray | Image.Image, size: int, pixel_aspect: float = 1.0) -> np.ndarray:
    """Shorter side to ``size`` (bicubic, antialiased), centre crop: uint8 [size, size, 3].

    Args:
        pixel_aspect: width over height of the image's pixels; the result's are square.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    if abs(pixel_aspect - 1) <= SQUARE:
        return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC))
    side = min(picture.width * pixel_aspect, picture.height)  # in heights of a pixel
    half, middle = (side / pixel_aspect / 2, side / 2), (picture.width / 2, picture.height / 2)
    box = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises DecodeError (too large) before anything of that size is made."""
    if width * height > max_pixels:
        raise DecodeError(TOO_LARGE, f"{width}x{height} is more than max_pixels={max_pixels}")
