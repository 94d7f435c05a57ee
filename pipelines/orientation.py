"""Display matrix of a frame: turned by right angles and mirrored, as ffmpeg's program does it."""

from __future__ import annotations

import math
from typing import Any

import av
import numpy as np


class Tilted(Exception):
    """The matrix asks for an angle that is no right one."""


def upright(frame: av.VideoFrame, pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Pixels [H, W, 3] as they are to be seen, and whether height and width were exchanged.

    Raises:
        Tilted: by an angle that is no multiple of 90 degrees.

    Source: the graph that ffmpeg 9 inserts for ``-autorotate`` (fftools/ffmpeg_filter.c).
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
    if not math.hypot(a, c) or not math.hypot(b, d):
        return pixels, False
    angle = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if angle == 90:
        turned = np.rot90(pixels, -1) if c <= 0 else pixels.swapaxes(0, 1)
        return turned, True
    if angle == 270:
        turned = np.rot90(pixels, 1) if c >= 0 else np.rot90(pixels, -1)[::-1]
        return turned, True
    if angle == 180:
        pixels = pixels[:, ::-1] if a < 0 else pixels
        return (pixels[::-1] if d < 0 else pixels), False
    if angle:
        raise Tilted
    return (pixels[::-1] if d < 0 else pixels), False
