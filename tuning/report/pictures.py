"""Frames and spectrograms as data URLs."""

from __future__ import annotations

import base64
import io

import numpy as np

SIDE = 160  # pixels, at most
FRAMES = 400  # of a spectrogram, at most


def photo(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a JPEG of at most `SIDE` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    return _url(picture, "jpeg", quality=85)


def heat(fbank: np.ndarray, low: float, high: float) -> str:
    """A log-mel [F, 128] between two values as a PNG: time to the right, low frequencies below."""
    import matplotlib
    from PIL import Image

    shown = fbank[:: -(-len(fbank) // FRAMES)].astype(np.float32)
    levels = np.clip((shown - low) / max(high - low, 1e-9), 0, 1)
    picture = Image.fromarray((255 * levels).astype(np.uint8).T[::-1])
    colours = (255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8)
    paletted = Image.frombytes("P", picture.size, picture.tobytes())
    paletted.putpalette(colours.tobytes())
    return _url(paletted, "png", optimize=True)


def _url(picture, kind: str, **options) -> str:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
