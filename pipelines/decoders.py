"""Decoders by name: each gives the sound and the frames of a clip on the file's clock, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import av

from pipelines import decord_frames
from pipelines.audio import Channel, Sound, Span, read_sound
from pipelines.causes import NOT_IN_CLIP, TOO_LARGE, TRUNCATED, DecodeError
from pipelines.container import Media, Stream
from pipelines.decord_frames import by_decord
from pipelines.ffmpeg_program import by_program, sound_by_program
from pipelines.frames import Frames, Wanted
from pipelines.pyav_frames import by_pyav

DecoderName = Literal["pyav", "decord", "ffmpeg"]
FINAL = {TOO_LARGE, NOT_IN_CLIP, TRUNCATED}  # causes that are the clip's, whoever decodes it


@dataclass(frozen=True)
class Limits:
    """``max_pixels`` of a frame, ``max_seconds`` of sound, ``timeout`` seconds of a program."""

    max_pixels: int
    max_seconds: float
    timeout: float


@dataclass(frozen=True)
class MediaDecoder:
    """One way to decode.

    Attributes:
        sound: of a stream in a span, one channel.
        frames: of a stream.

    Both raise DecodeError with a cause; whatever else they raise is the library's, and ffmpeg has the last word.
    """

    sound: Callable[[Media, Stream, Span, Channel, Limits], Sound]
    frames: Callable[[Media, Stream, Wanted, Limits], Frames]


def _sound(media: Media, stream: Stream, span: Span, channel: Channel, limits: Limits) -> Sound:
    return read_sound(media, stream, span, channel, limits.max_seconds)


def _program_sound(media: Media, stream: Stream, span: Span, channel: Channel, limits: Limits) -> Sound:
    return sound_by_program(media, stream, span, channel, limits.max_seconds, limits.timeout)


DECODERS: dict[str, MediaDecoder] = {
    "pyav": MediaDecoder(_sound, lambda m, s, wanted, limits: by_pyav(m, s, wanted, limits.max_pixels)),
    "decord": MediaDecoder(_sound, lambda m, s, wanted, limits: by_decord(m, s, wanted, limits.max_pixels)),
    "ffmpeg": MediaDecoder(_program_sound, lambda m, s, wanted, limits: by_program(m, s, wanted, limits.timeout)),
}


def decoder_versions() -> dict[str, str | None]:
    """Version of each decoder, ``None`` where it is not installed (decord is an extra: ``avmend[decord]``)."""
    return {"pyav": av.__version__, "decord": decord_frames.version(), "ffmpeg": metadata.version("imageio-ffmpeg")}


def read_frames(name: str, fallback: bool, media: Media, stream: Stream, wanted: Wanted, limits: Limits) -> Frames:
    """Frames by the named decoder.

    Args:
        fallback: PyAV takes over what decord refuses.

    Raises:
        DecodeError: as the decoder says; for PyAV, ffmpeg has the last word on what is unusual or damaged.
    """
    if name == "decord":
        try:
            return DECODERS["decord"].frames(media, stream, wanted, limits)
        except DecodeError as error:
            if not fallback or error.cause in FINAL:
                raise
        name = "pyav"
    if name == "pyav":
        try:
            return DECODERS["pyav"].frames(media, stream, wanted, limits)
        except (DecodeError, MemoryError):
            raise
        except Exception:  # whatever else it meets: ffmpeg tells the causes apart
            pass
    return DECODERS["ffmpeg"].frames(media, stream, wanted, limits)


def read_one_channel(name: str, media: Media, stream: Stream, span: Span, channel: Channel, limits: Limits) -> Sound:
    """Sound by the named decoder; decord's sound is PyAV's (its own returns parts of damaged files silently).

    Raises:
        DecodeError: as the decoder says; ffmpeg has the last word on what is unusual.
    """
    try:
        return DECODERS[name].sound(media, stream, span, channel, limits)
    except (DecodeError, MemoryError):
        raise
    except Exception:
        return DECODERS["ffmpeg"].sound(media, stream, span, channel, limits)
