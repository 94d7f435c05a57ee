"""One clip to decoded streams, in this process: ``pipelines.decoder`` runs it where it may crash or hang."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines import frames as picture
from pipelines.audio import SAMPLE_RATE, Span, check_extent, read_audio
from pipelines.causes import MISSING_FILE, TRUNCATED, UNSUPPORTED, DecodeError, machine_at_fault
from pipelines.ffmpeg import Probe, Stream
from shards.schema import ABSENT, StreamInfo


@dataclass(frozen=True)
class Request:
    """What to decode, and how: ``path``, or ``audio_path`` and/or ``image_path``; seconds; frames; limits."""

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
    use_decord: bool = True
    key_frames: bool = False

    @property
    def span(self) -> Span:
        """The part of the file that is the clip."""
        return Span(self.start or 0.0, self.duration)


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


def decode(request: Request) -> Decoded:
    """Decode a clip. A stream absent at source is reported as such; one that is there must decode.

    Raises:
        DecodeError: one of the causes in ``pipelines.causes``; the clip can't be used.
    """
    sha256 = _hash([path for path in (request.path, request.audio_path, request.image_path) if path])
    clip = _file(request, sha256) if request.path else _pair(request, sha256)
    if clip.audio is None and clip.frames is None:
        raise DecodeError(ABSENT, "neither sound nor picture")
    return clip


_ABSENT = StreamInfo(present=False, cause=ABSENT)


def _file(request: Request, sha256: str) -> Decoded:
    """Both streams of one file."""
    assert request.path is not None
    probe, sound = _sound(request, request.path)
    video = probe.first("video")
    if video is None:
        check_extent(probe, request.span, _ends(request.span, sound))
        return Decoded(sound, None, _audio_info(probe, sound), _ABSENT, (), sha256)
    found = _video(request, probe, video)
    check_extent(probe, request.span, [*_ends(request.span, sound), found.end])
    begin, end = request.span.start, request.span.end(found.end) or found.end
    info = StreamInfo(present=True, codec=video.codec, rate=video.rate, duration=round(end - begin, 3))
    times = tuple(round(time - begin, 4) for time in found.times)
    return Decoded(sound, found.images, _audio_info(probe, sound), info, times, sha256)


def _pair(request: Request, sha256: str) -> Decoded:
    """A sound file and a picture file, or one of them."""
    sound, audio_info, image, visual_info = None, _ABSENT, None, _ABSENT
    if request.audio_path:
        probe, sound = _sound(request, request.audio_path)
        check_extent(probe, request.span, _ends(request.span, sound))
        audio_info = _audio_info(probe, sound)
    if request.image_path:
        image = picture.read_image(request.image_path, request.size, request.max_pixels)
        visual_info = StreamInfo(present=True, codec=Path(request.image_path).suffix.lower().lstrip("."))
    return Decoded(sound, image, audio_info, visual_info, (0.0,) if image is not None else (), sha256)


def _sound(request: Request, path: str) -> tuple[Probe, np.ndarray | None]:
    limits = {"max_seconds": request.max_seconds, "timeout": request.timeout_s}
    probe, sound = read_audio(path, request.span, **limits)
    if sound is not None and not len(sound):
        check_extent(probe, request.span, [])
        raise DecodeError(TRUNCATED, "the audio stream holds no sound in the clip's time")
    return probe, sound


def _ends(span: Span, sound: np.ndarray | None) -> list[float]:
    return [span.start + len(sound) / SAMPLE_RATE] if sound is not None else []


def _audio_info(probe: Probe, sound: np.ndarray | None) -> StreamInfo:
    stream = probe.first("audio")
    if stream is None or sound is None:
        return _ABSENT
    return StreamInfo(
        present=True, codec=stream.codec, rate=stream.rate, duration=round(len(sound) / SAMPLE_RATE, 3)
    )


def _video(request: Request, probe: Probe, stream: Stream) -> picture.Frames:
    """Frames by decord if it can and has nothing to complain of; ffmpeg has the last word on all else."""
    assert request.path is not None
    if stream.codec == "none":
        raise DecodeError(UNSUPPORTED, "video of a codec that ffmpeg does not know")
    picture.check_size(stream.width, stream.height, request.max_pixels)
    arguments = (request.span, request.frames, request.size)
    if request.key_frames:
        return picture.by_key_frames(request.path, stream, *arguments, request.timeout_s)
    if request.use_decord and picture.decord_can(probe):
        with _Complaints() as complaints:
            try:
                found = picture.by_decord(request.path, probe, *arguments)
            except (DecodeError, MemoryError):
                raise
            except Exception:  # every failure of decord is the same error; ffmpeg tells them apart
                found = None
        if found is not None and not complaints.any:
            return found
    return picture.by_ffmpeg(request.path, stream, *arguments, request.timeout_s)


class _Complaints:
    """Notices whether a C library wrote to standard error, which is the only place where decord's
    decoders report damaged pictures."""

    any = False

    def __enter__(self) -> _Complaints:
        self._file = open(os.memfd_create("complaints"), "wb")  # in memory: a full disk is no clip's fault
        self._saved = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 2)
        os.close(self._saved)
        self.any = os.fstat(self._file.fileno()).st_size > 0
        self._file.close()


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


def without_decord(request: Request) -> Request:
    """The same clip through ffmpeg alone, for a second try after a crash."""
    return replace(request, use_decord=False)
