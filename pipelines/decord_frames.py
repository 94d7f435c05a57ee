"""Frames through decord: fast, of common files; what it can't hold the contract on, it refuses."""

from __future__ import annotations

import os
from typing import Any

import av
import numpy as np

from pipelines.causes import UNDECODABLE, UNSUPPORTED, DecodeError
from pipelines.container import Media, Stream
from pipelines.crop import has_crop
from pipelines.frames import Frames, Wanted, check_size, fit
from pipelines.pyav_frames import Listing, Undecided

REMEDY = "give decoder=pyav, or decoder_fallback=true so that PyAV takes over what decord refuses"
CODECS = {"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}  # FFmpeg 4.1 without AV1
NEAR = 2e-3  # seconds between its times and the container's


def by_decord(media: Media, stream: Stream, wanted: Wanted, max_pixels: int) -> Frames:
    """The frames that PyAV takes, decoded by decord on one thread.

    Raises:
        DecodeError: unsupported, for what decord would get wrong: turned, mirrored, cropped pictures, other times
            than the container's, cover art, several pictures, AV1, colours deeper than 8 bits.
    """
    try:
        import decord
    except ImportError:
        raise DecodeError(UNSUPPORTED, "decord is not installed", "pip install 'avmend[decord]'") from None
    check_size(stream.width, stream.height, max_pixels)
    if reason := _reason(media, stream):
        raise _refused(reason)
    try:
        listing = Listing(media, stream)
    except Undecided as error:
        raise _refused(str(error)) from None
    chosen = wanted.choose(listing.shown, listing.keys)
    distinct, back = np.unique(chosen, return_inverse=True)
    try:
        reader = decord.VideoReader(f"/proc/self/fd/{media.descriptor}", num_threads=1)
        _check_times(reader, listing)
        pictures = reader.get_batch(distinct.tolist()).asnumpy()
    except decord.DECORDError as error:
        raise DecodeError(UNDECODABLE, f"decord: {str(error).splitlines()[-1][:200]}", REMEDY) from None
    images = np.stack([fit(picture, wanted.size, wanted.pixel_aspect) for picture in pictures])[back]
    return wanted.frames(images, listing.shown, chosen)


def _refused(reason: str) -> DecodeError:
    return DecodeError(UNSUPPORTED, f"decord: {reason}", REMEDY)


def _reason(media: Media, stream: Stream) -> str | None:
    """What decord would get wrong, if anything."""
    videos = [s for s in media.file.streams if s.type == "video"]
    context: Any = media.file.streams[stream.index].codec_context
    if len(videos) > 1:
        return "several pictures or cover art in one file"
    if stream.codec not in CODECS:
        return f"codec {stream.codec}"
    if context.format is None or any(part.bits > 8 for part in context.format.components):
        return "colours deeper than 8 bits"
    if has_crop(media):
        return "a picture that the container crops"
    if _turned(media, stream):
        return "a turned or mirrored picture"
    return None


def _turned(media: Media, stream: Stream) -> bool:
    """Whether the first frame has a display matrix other than the identity."""
    context: Any = media.file.streams[stream.index].codec_context
    context.thread_count = 1
    for packet in media.again(stream, None):
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            return False
        if frames:
            context.flush_buffers()
            matrix: Any = frames[0].side_data.get("DISPLAYMATRIX")
            return matrix is not None and list(np.frombuffer(matrix, np.int32)[:5]) != [1 << 16, 0, 0, 0, 1 << 16]
    return False


def _check_times(reader: Any, listing: Listing) -> None:
    """Its frames, in its order, must be those that the container lists; its zero is its own."""
    times, shown = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(float), listing.shown[:, 0]
    if len(times) != len(shown) or np.abs((times - times[0]) - (shown - shown[0])).max() > NEAR:
        raise _refused("its frames are not those that the container lists")


def version() -> str | None:
    """The installed version; ``None`` without it."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    try:
        import decord
    except (ImportError, OSError):
        return None
    return decord.__version__
