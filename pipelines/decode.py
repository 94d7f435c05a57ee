"""One clip to decoded streams, in this process: ``pipelines.decoder_process`` runs it where it may crash or hang."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.audio import SAMPLE_RATE, Channel, Span, check_extent, check_finite
from pipelines.causes import (
    ABSENT,
    MISSING_FILE,
    NOT_IN_CLIP,
    TOO_LARGE,
    TRUNCATED,
    UNSUPPORTED,
    DecodeError,
    machine_at_fault,
)
from pipelines.container import Media, Stream, open_media
from pipelines.decoders import DecoderName, Limits, read_frames, read_one_channel
from pipelines.frames import Frames, Wanted, check_size
from pipelines.pictures import read_image, refuse_drawings
from shards.causes import Cause
from shards.schema import StreamInfo

SHORTEST = 400  # samples, one log-mel window: less of a longer stream at the edge of a clip is none


@dataclass(frozen=True)
class Request:
    """What to decode, and how: ``path``, or ``audio_path`` and/or ``image_path``; seconds; frames; limits.

    Attributes:
        keep: where one stream fails and the other does not, that one is the clip.
        in_process: through libraries in this process; if not, by ffmpeg alone, whatever ``decoder`` says.
        decoder: one of ``pipelines.decoders``.
        decoder_fallback: PyAV takes over what decord refuses.
        channel: of the sound: the mean of all, the first, or the loudest.
        square_pixels: pictures are scaled to square pixels.
        lost: a stream (``audio`` or ``visual``) that is not to be tried (again), and the cause.
    """

    path: str | None = None
    audio_path: str | None = None
    image_path: str | None = None
    start: float | None = None
    duration: float | None = None
    frames: int = 10
    size: int = 224
    max_pixels: int = 40_000_000
    max_seconds: float = 600.0
    timeout_s: float = 30.0
    in_process: bool = True
    decoder: DecoderName = "pyav"
    decoder_fallback: bool = False
    channel: Channel = "mean"
    square_pixels: bool = True
    key_frames: bool = False
    keep: bool = False
    lost: tuple[str, str] | None = None

    @property
    def span(self) -> Span:
        """The part of the file that is the clip."""
        return Span(self.start or 0.0, self.duration)

    @property
    def limits(self) -> Limits:
        """What a decoder may take."""
        return Limits(self.max_pixels, self.max_seconds, self.timeout_s)

    @property
    def way(self) -> DecoderName:
        """The decoder's name."""
        return self.decoder if self.in_process else "ffmpeg"


@dataclass(frozen=True)
class Decoded:
    """One clip.

    Attributes:
        audio: int16 [samples], 16 kHz mono, or ``None`` as ``audio_info`` explains.
        frames: uint8 [N, size, size, 3], or ``None`` as ``visual_info`` explains.
        frame_times: seconds from the clip's start.
        sha256: of the source's bytes.
    """

    audio: np.ndarray | None
    frames: np.ndarray | None
    audio_info: StreamInfo
    visual_info: StreamInfo
    frame_times: tuple[float, ...]
    sha256: str

    @property
    def duration(self) -> float:
        """Seconds: the longer stream's."""
        return max(self.audio_info.duration or 0.0, self.visual_info.duration or 0.0)

    @property
    def offset(self) -> float | None:
        """Seconds by which the sound begins later than the picture of the same file."""
        begins = self.audio_info.begin, self.visual_info.begin
        return None if begins[0] is None or begins[1] is None else round(begins[0] - begins[1], 4)


def decode(request: Request) -> Decoded:
    """Decode a clip. A stream absent at source is reported as such; one that is there must decode, or, if the
    other one does and ``request.keep``, is reported with the cause of its failure.

    Raises:
        DecodeError: one of the causes in ``pipelines.causes``; the clip can't be used.
    """
    clip = _file(request) if request.path else _pair(request)
    if clip.audio is None and clip.frames is None:
        outside = NOT_IN_CLIP in (clip.audio_info.cause, clip.visual_info.cause)
        raise DecodeError(NOT_IN_CLIP if outside else ABSENT, "neither sound nor picture")
    return clip


def lost(cause: str) -> StreamInfo:
    """A stream that is not there, and why."""
    return StreamInfo(present=False, cause=Cause(cause))


class _Failures(dict[str, DecodeError]):
    """Streams that failed, by modality; the first failure ends a clip that is not kept for the other one."""

    def __init__(self, request: Request):
        super().__init__()
        self.request = request

    @contextmanager
    def of(self, modality: str) -> Iterator[None]:
        """Keep what goes wrong in the block, if that is wanted."""
        try:
            yield
        except (DecodeError, MemoryError) as error:
            rightly = isinstance(error, DecodeError) and error.cause == NOT_IN_CLIP
            if not self.request.keep and not rightly:
                raise
            large = DecodeError(TOO_LARGE, "does not fit into memory_mb")
            self.setdefault(modality, error if isinstance(error, DecodeError) else large)

    def given_up(self, modality: str) -> bool:
        """Whether the stream is not to be tried; then that is its failure."""
        if self.request.lost is None or self.request.lost[0] != modality:
            return False
        self.setdefault(modality, DecodeError(self.request.lost[1], f"{modality}: given up"))
        return True

    def info(self, modality: str) -> StreamInfo:
        """Of a stream that was not had."""
        return lost(self[modality].cause if modality in self else ABSENT)

    def refuse(self) -> None:
        """Raises DecodeError: the first failure, of a clip of which nothing is left."""
        for error in self.values():
            if error.cause != NOT_IN_CLIP:
                raise error


def _file(request: Request) -> Decoded:
    """Both streams of one file."""
    assert request.path is not None
    sha256, failures, span = _hash([request.path]), _Failures(request), request.span
    sound, found, video_info, audio_info = None, None, None, None
    refuse_drawings(request.path)
    with open_media(request.path) as media:
        audio, video = media.first("audio"), media.first("video")
        _check(media, span)
        if audio is not None and not failures.given_up("audio"):
            with failures.of("audio"):
                sound, audio_info = _sound(request, media, audio)
        if video is not None and not failures.given_up("visual"):
            with failures.of("visual"):
                found = _video(request, media, video)
                video_info = _video_info(media, video, span, found)
        audio_info = audio_info or _absent(media, audio, failures.info("audio"))
        video_info = video_info or _absent(media, video, failures.info("visual"))
    if sound is None and found is None:
        failures.refuse()
    if found is None:
        return Decoded(sound, None, audio_info, video_info, (), sha256)
    times = tuple(round(time - span.start, 4) for time in found.times)
    return Decoded(sound, found.images, audio_info, video_info, times, sha256)


def _absent(media: Media, stream: Stream | None, info: StreamInfo) -> StreamInfo:
    """Of a stream that is not there: of one that is elsewhere in the file, also where it begins."""
    outside = stream is not None and info.cause == NOT_IN_CLIP
    return info.model_copy(update={"begin": _begin(media, stream)}) if outside and stream else info


def _check(media: Media, span: Span) -> None:
    """Raises DecodeError: nothing to decode, or the file was cut off."""
    if media.first("audio") is None and media.first("video") is None:
        raise DecodeError(ABSENT, "neither sound nor picture")
    media.check_readable()
    check_extent(media, span)


def _pair(request: Request) -> Decoded:
    """A sound file and a picture file, or one of them."""
    failures, sound, audio_info, image = _Failures(request), None, None, None
    there = []
    for modality, path in (("audio", request.audio_path), ("visual", request.image_path)):
        with failures.of(modality):
            if path and not failures.given_up(modality):
                _hash([path])
                there.append(path)
    if request.audio_path and "audio" not in failures:
        with failures.of("audio"), open_media(request.audio_path) as media:
            if (stream := media.first("audio")) is not None:
                _check(media, request.span)
                sound, audio_info = _sound(request, media, stream)
    if request.image_path and "visual" not in failures:
        with failures.of("visual"):
            image = read_image(request.image_path, request.size, request.max_pixels)
    if sound is None and image is None:
        failures.refuse()
    suffix = Path(request.image_path or "").suffix.lower().lstrip(".")
    visual_info = failures.info("visual") if image is None else StreamInfo(present=True, codec=suffix)
    times = (0.0,) if image is not None else ()
    return Decoded(sound, image, audio_info or failures.info("audio"), visual_info, times, _hash(there))


def _sound(request: Request, media: Media, stream: Stream) -> tuple[np.ndarray, StreamInfo]:
    """The clip's sound.

    Raises:
        DecodeError: it can't be decoded, or there is none in the clip's time.
    """
    span, piece = request.span, bool(request.start or request.duration)
    try:
        check_finite(media, stream, span, request.max_seconds)
        sound = read_one_channel(request.way, media, stream, span, request.channel, request.limits)
    except DecodeError as error:
        if error.cause == NOT_IN_CLIP and not (piece and media.tracks[stream.index].pts):
            raise DecodeError(TRUNCATED, error.message) from None
        raise
    length = len(sound.samples)
    if piece and length < min(SHORTEST, (request.duration or 1.0) * SAMPLE_RATE):
        raise DecodeError(NOT_IN_CLIP, f"{length / SAMPLE_RATE * 1000:.1f} ms of sound in the clip's time")
    info = StreamInfo(
        present=True,
        codec=stream.codec,
        rate=stream.rate,
        duration=round(length / SAMPLE_RATE, 3),
        begin=_begin(media, stream),
        channel=sound.channel if media.channels(stream) > 1 else None,
    )
    return sound.samples, info


def _begin(media: Media, stream: Stream) -> float | None:
    """Second of the file's clock at which a stream begins."""
    if stream.begin is not None:
        return round(stream.begin, 4) + 0.0
    track = media.tracks[stream.index]
    times = [at for at in track.pts if at is not None]
    return round(min(times) * track.unit - media.zero, 4) + 0.0 if times else None


def _video(request: Request, media: Media, stream: Stream) -> Frames:
    """The clip's frames.

    Raises:
        DecodeError: they can't be decoded.
    """
    if stream.codec == "none":
        raise DecodeError(UNSUPPORTED, "video of a codec that FFmpeg does not know")
    check_size(stream.width, stream.height, request.max_pixels)
    wanted = Wanted(
        request.span,
        request.frames,
        request.size,
        until=media.until(),
        pixel_aspect=stream.pixel_aspect if request.square_pixels else 1.0,
        key_frames=request.key_frames,
    )
    return read_frames(request.way, request.decoder_fallback, media, stream, wanted, request.limits)


def _video_info(media: Media, stream: Stream, span: Span, found: Frames) -> StreamInfo:
    duration = round((span.end(found.end) or found.end) - span.start, 3)
    begin = _begin(media, stream)
    return StreamInfo(present=True, codec=stream.codec, rate=stream.rate, duration=duration, begin=begin)


def _hash(paths: list[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            if os.path.exists(path) and not os.path.isfile(path):
                raise DecodeError(MISSING_FILE, f"{path} is no regular file")
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                if not file.tell():
                    raise DecodeError(TRUNCATED, f"{Path(path).name} is empty")
        except (FileNotFoundError, NotADirectoryError):
            raise DecodeError(MISSING_FILE, path) from None
        except OSError as error:
            if machine_at_fault(error):
                raise
            raise DecodeError(MISSING_FILE, f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def by_ffmpeg_alone(request: Request) -> Request:
    """The same clip by ffmpeg alone, for a second try after a crash."""
    return replace(request, in_process=False)
