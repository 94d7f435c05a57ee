"""Picture of a clip: N uniform frames, upright, scaled, cropped; through ffmpeg."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pipelines.audio import Span
from pipelines.causes import (
    MISSING_FILE,
    READ_COMPLAINTS,
    TOO_LARGE,
    TRUNCATED,
    UNDECODABLE,
    DecodeError,
    from_stderr,
    machine_at_fault,
)
from pipelines.ffmpeg import Stream, run, source

PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")  # none runs a program
_CONCEALED = re.compile(r"corrupt decoded frame|concealing \d+")


@dataclass(frozen=True)
class Frames:
    """``images`` uint8 [N, size, size, 3], when each was shown and where the stream ends (seconds)."""

    images: np.ndarray
    times: tuple[float, ...]
    end: float


def uniform(shown: np.ndarray, span: Span, count: int) -> np.ndarray:
    """Positions of ``count`` frames: those on screen in the middles of equal parts of the span.

    Args:
        shown: float [frames, 2], ascending, seconds at which each frame of the file appears and goes.

    Raises:
        DecodeError: the stream has no frame in the span.
    """
    begin, end = max(span.start, 0.0), float(shown[-1, 1]) if len(shown) else 0.0
    if span.duration is not None:
        end = min(end, span.start + span.duration)
    if end <= begin:
        raise DecodeError(TRUNCATED, f"the picture ends at {end:.2f} s, the clip begins at {begin:.2f} s")
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


def fit(image: np.ndarray | Image.Image, size: int) -> np.ndarray:
    """Shorter side to ``size`` (bicubic, antialiased), centre crop: uint8 [size, size, 3]."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises DecodeError (too large) before anything of that size is made."""
    if width * height > max_pixels:
        raise DecodeError(TOO_LARGE, f"{width}x{height} is more than max_pixels={max_pixels}")


def read_image(path: str, size: int, max_pixels: int) -> np.ndarray:
    """A picture file as uint8 [1, size, size, 3], turned as its EXIF tag says.

    Raises:
        DecodeError: missing, damaged or too large.
    """
    try:
        with Image.open(path, formats=PICTURES) as image:
            check_size(*image.size, max_pixels)
            return fit(ImageOps.exif_transpose(image), size)[None]
    except FileNotFoundError:
        raise DecodeError(MISSING_FILE, path) from None
    except Image.DecompressionBombError as error:
        raise DecodeError(TOO_LARGE, f"picture: {error}") from None
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and machine_at_fault(error):
            raise
        cause = TRUNCATED if "truncated" in str(error) else UNDECODABLE
        raise DecodeError(cause, f"picture: {error}") from None


def by_ffmpeg(path: str, stream: Stream, span: Span, count: int, size: int, timeout: float) -> Frames:
    """The same frames through ffmpeg, turned upright.

    Raises:
        DecodeError: the stream can't be decoded without errors.
    """
    for decoded in (False, True):  # what the container lists is cheap; some lists hold frames never shown
        shown = _times(path, stream, timeout, decoded)
        chosen = uniform(shown, span, count)
        distinct, back = np.unique(chosen, return_inverse=True)
        pictures = _pictures(path, stream, shown, distinct, timeout)
        if len(pictures) == len(distinct):
            images = np.stack([fit(picture, size) for picture in pictures])[back]
            return Frames(images, tuple(float(shown[i, 0]) for i in chosen), float(shown[-1, 1]))
    raise DecodeError(UNDECODABLE, f"video ({stream.codec}): {len(pictures)} frames of {len(distinct)}")


def by_key_frames(path: str, stream: Stream, span: Span, count: int, size: int, timeout: float) -> Frames:
    """Approximate: key frames near those of the exact mode; nothing else is decoded.

    One may stand for several moments; ``times`` are those of the frames taken.

    Raises:
        DecodeError: the stream can't be decoded without errors.
    """
    shown = _times(path, stream, timeout, decoded=False)
    wanted = shown[uniform(shown, span, count), 0]
    shown_at, pictures = _key_frames(path, stream, np.append(max(span.start, 0.0), wanted), timeout)
    chosen = nearest(shown_at, wanted)
    images = np.stack([fit(picture, size) for picture in pictures])[chosen]
    return Frames(images, tuple(float(shown_at[i]) for i in chosen), float(shown[-1, 1]))


def _key_frames(path: str, stream: Stream, moments: np.ndarray, timeout: float) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and pictures of the first key frame, and of the first at or after each of the moments."""
    passed = "+".join(f"(gte(t,{moment - 1e-3:.6f})*lt(prev_selected_t,{moment - 1e-3:.6f}))" for moment in moments)
    select = f"select='isnan(prev_selected_t)+{passed}',showinfo=checksum=0"
    pictures, told = _raw(path, stream, select, timeout, skip_frame="nokey")
    shown_at = np.array([float(time) for time in re.findall(r"n: *\d+ pts:.*?pts_time:(-?[\d.]+)", told)])
    if not len(shown_at):
        raise from_stderr(told, f"video ({stream.codec})")
    if len(pictures) != len(shown_at):
        raise DecodeError(UNDECODABLE, f"video ({stream.codec}): {len(pictures)} frames of {len(shown_at)}")
    return shown_at, pictures


def _times(path: str, stream: Stream, timeout: float, decoded: bool) -> np.ndarray:
    """Float [frames, 2]: seconds at which the frames appear and go, from the container or from decoding."""
    how: dict[str, object] = {"vf": "scale=16:16", "fps_mode": "passthrough"} if decoded else {"c": "copy"}
    graph = source(path).output("pipe:", map="0:v:0", format="framecrc", **how)
    out, err, status = run(graph, timeout)
    unit = re.search(rb"#tb 0: (\d+)/(\d+)", out)
    rows = re.findall(rb"^0, *-?\d+, *(-?\d+), *(\d+),", out, re.MULTILINE)
    if status != 0 or unit is None or not rows or READ_COMPLAINTS.search(err):
        raise from_stderr(err, f"video ({stream.codec})")
    begins = np.array(sorted(int(pts) for pts, _ in rows))
    last = max(rows, key=lambda row: int(row[0]))[1]
    shown = seconds(begins, int(last), int(unit[1]) / int(unit[2]))
    return shown[shown[:, 0] >= -1e-3]


def _pictures(path: str, stream: Stream, shown: np.ndarray, chosen: np.ndarray, timeout: float) -> np.ndarray:
    """Uint8 [chosen, H, W, 3]: the frames of those positions, full size."""
    near = max(float(np.diff(shown[:, 0]).min()) / 4, 1e-4) if len(shown) > 1 else 1.0
    windows = "+".join(f"between(t,{shown[i, 0] - near:.6f},{shown[i, 0] + near:.6f})" for i in chosen)
    return _raw(path, stream, f"select='{windows}'", timeout)[0]


def _raw(path: str, stream: Stream, select: str, timeout: float, **options: str) -> tuple[np.ndarray, str]:
    """Uint8 [selected, H, W, 3] at full size, and what ffmpeg said; ``options`` are the input's.

    Raises:
        DecodeError: something could not be read, or was concealed.
    """
    form = {"fps_mode": "passthrough", "pix_fmt": "rgb24", "format": "rawvideo"}
    graph = source(path, max_error_rate=0, **options).output("pipe:", map="0:v:0", vf=select, **form)
    out, err, status = run(graph, timeout)
    size = re.search(r"Output #0.*?Video: rawvideo.*?, (\d+)x(\d+)", err, re.DOTALL)
    if status != 0 or size is None or READ_COMPLAINTS.search(err) or _CONCEALED.search(err):
        raise from_stderr(err, f"video ({stream.codec})")
    return np.frombuffer(out, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3), err
