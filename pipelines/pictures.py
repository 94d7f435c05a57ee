"""Picture files: upright, 8 bits per colour, scaled and cropped."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from pipelines.causes import MISSING_FILE, TOO_LARGE, TRUNCATED, UNDECODABLE, UNSUPPORTED, DecodeError, machine_at_fault
from pipelines.frames import check_size, fit

PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")  # none runs a program
TAKEN_FOR_VIDEOS = ("HEIC", "HEIF", "SVG", "PDF", "PostScript")
REMEDY = "fetch the picture again, or save it as PNG or JPEG"
_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC")
_BRANDS |= {b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}
_KINDS = {  # by a file's first bytes
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"#?R": "Radiance HDR",
    b"DDS ": "DDS",
    b"icns": "ICNS",
    b"\0\0\1\0": "ICO",
    b"\x01\xda": "SGI",
    b"\x0a\x05\x01": "PCX",
    b"II*\0\x10\0\0\0CR": "camera raw",
}


def read_image(path: str, size: int, max_pixels: int) -> np.ndarray:
    """A picture file as uint8 [1, size, size, 3], turned as its EXIF tag says.

    16 bits become 8 by their share of the greatest value. Float pictures hold 0..1, or 0..255 where a value is
    above 1.

    Raises:
        DecodeError: missing, damaged, too large, or of a kind that is not read.
    """
    kinds = [*PICTURES, "AVIF"] if features.check("avif") else list(PICTURES)
    try:
        with Image.open(path, formats=kinds) as image:
            check_size(*image.size, max_pixels)
            return fit(_eight_bits(ImageOps.exif_transpose(image)), size)[None]
    except FileNotFoundError:
        raise DecodeError(MISSING_FILE, path) from None
    except Image.DecompressionBombError as error:
        raise DecodeError(TOO_LARGE, f"picture: {error}", "scale the picture down") from None
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and machine_at_fault(error):
            raise
        if kind := other_kind(path):
            raise DecodeError(UNSUPPORTED, f"picture: {kind} is not read", "save it as PNG or JPEG") from None
        cause = TRUNCATED if "image file is truncated" in str(error) else UNDECODABLE
        reason = "damaged, or no picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DecodeError(cause, f"picture: {reason}", REMEDY) from None


def refuse_drawings(path: str) -> None:
    """Raises DecodeError for a picture that would be taken for a video, or a part of it for the whole: HEIC is stored
    in tiles, SVG and the like are drawn by programs."""
    if (kind := other_kind(path)) in TAKEN_FOR_VIDEOS:
        raise DecodeError(UNSUPPORTED, f"picture: {kind} is not read", "save it as PNG or JPEG")


def other_kind(path: str) -> str | None:
    """The name of a kind of picture that is not read, by the file's first bytes."""
    with open(path, "rb") as file:
        head = file.read(1024)
    if head[4:8] == b"ftyp":
        kind = _BRANDS.get(head[8:12])
        return "AVIF" if kind == "HEIF" and b"avif" in head[8:64] else kind
    if found := next((kind for begin, kind in _KINDS.items() if head.startswith(begin)), None):
        return found
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", "ignore").lstrip().lower()
    drawing = text.startswith("<") and "<svg" in text and "<html" not in text
    return "SVG" if drawing or (head[:2] == b"\x1f\x8b" and path.lower().endswith(".svgz")) else None


def _eight_bits(image: Image.Image) -> Image.Image:
    """The same picture, deeper greys scaled to 0..255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise DecodeError(UNDECODABLE, "picture: values that are no numbers", REMEDY)
    if image.mode == "F":
        greatest = 1.0 if values.max() <= 1 else 255.0
    else:
        greatest = 65535.0 if values.max() <= 65535 else 2.0**32 - 1
    if values.min() < 0 or values.max() > greatest:
        raise DecodeError(UNDECODABLE, f"picture: values from {values.min():g} to {values.max():g}", REMEDY)
    return Image.fromarray(np.round(values / greatest * 255).astype(np.uint8))
