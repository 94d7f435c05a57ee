"""Frames and spectrograms as small pictures, and as data URLs."""

from __future__ import annotations

import base64
import io

import numpy as np

SIDE = 160  # pixels, at most
FRAMES = 400  # of a spectrogram, at most


def photo(pixels: np.ndarray, side: int = SIDE) -> str:
    """uint8 [H, W, 3] as the data URL of a JPEG of at most `side` pixels a side."""
    return data_url(jpeg(pixels, side), "jpeg")


def picture_url(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as the data URL of a PNG, pixel by pixel."""
    from PIL import Image

    return data_url(_encoded(Image.fromarray(pixels), "png"), "png")


def jpeg(pixels: np.ndarray, side: int = SIDE) -> bytes:
    """uint8 [H, W, 3] as a JPEG of at most `side` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return _encoded(picture, "jpeg", quality=85)


def heat(fbank: np.ndarray, low: float, high: float) -> str:
    """A log-mel [F, bins] between two values as the data URL of a PNG: time to the right, low frequencies below."""
    import matplotlib
    from PIL import Image

    shown = fbank[:: -(-len(fbank) // FRAMES)].astype(np.float32)
    levels = np.clip((shown - low) / max(high - low, 1e-9), 0, 1)
    picture = Image.fromarray((255 * levels).astype(np.uint8).T[::-1])
    colours = (255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]).astype(np.uint8)
    paletted = Image.frombytes("P", picture.size, picture.tobytes())
    paletted.putpalette(colours.tobytes())
    return data_url(_encoded(paletted, "png", optimize=True), "png")


def data_url(content: bytes, kind: str) -> str:
    """A picture's bytes of a kind ("jpeg", "png") as a URL that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(picture, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()
