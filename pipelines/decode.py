"""One clip to decoded streams, in this process: ``pipelines.decoder_process`` runs it where it may crash or hang."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines import frames as picture
from pipelines import pyav_frames
from pipelines.audio import SAMPLE_RATE, SoundError, Span, check_extent, look, read_audio
from pipelines.causes import MISSING_FILE, TOO_LARGE, TRUNCATED, UNSUPPORTED, DecodeError, machine_at_fault
from pipelines.ffmpeg import Probe, Stream
from shards.causes import Cause
from shards.schema import ABSENT, StreamInfo


@dataclass(frozen=True)
class Request:
    """What to decode, and how: ``path``, or ``audio_path`` and/or ``image_path``; seconds; frames; limits.

    Attributes:
        keep: where one stream fails and the other does not, that one is the clip.
        in_process: the picture through FFmpeg's libraries where they can, which is faster; else by ffmpeg.
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
    key_frames: bool = False
    keep: bool = False
    lost: tuple[str, str] | None = None

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
    """Decode a clip. A stream absent at source is reported as such; one that is there must decode, or, if the
    other one does and ``request.keep``, is reported with the cause of its failure.

    Raises:
        DecodeError: one of the causes in ``pipelines.causes``; the clip can't be used.
    """
    clip = _file(request) if request.path else _pair(request)
    if clip.audio is None and clip.frames is None:
        raise DecodeError(ABSENT, "neither sound nor picture")
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
            if not self.request.keep:
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
            raise error


def _file(request: Request) -> Decoded:
    """Both streams of one file."""
    assert request.path is not None
    sha256, failures, span = _hash([request.path]), _Failures(request), request.span
    probe, sound = _heard(request, request.path, failures)
    found, video = None, probe.first("video")
    if video is not None and not failures.given_up("visual"):
        with failures.of("visual"):
            found = _video(request, probe, video)
    if sound is None and found is None:
        failures.refuse()
    check_extent(probe, span, [*_ends(span, sound), *([found.end] if found else [])])
    audio_info = _audio_info(probe, sound) or failures.info("audio")
    if found is None or video is None:
        return Decoded(sound, None, audio_info, failures.info("visual"), (), sha256)
    begin, end = span.start, span.end(found.end) or found.end
    info = StreamInfo(present=True, codec=video.codec, rate=video.rate, duration=round(end - begin, 3))
    times = tuple(round(time - begin, 4) for time in found.times)
    return Decoded(sound, found.images, audio_info, info, times, sha256)


def _heard(request: Request, path: str, failures: _Failures) -> tuple[Probe, np.ndarray | None]:
    """What the file holds, and its sound."""
    if request.lost and request.lost[0] == "audio":
        probe = look(path, request.timeout_s)
        if probe.first("audio"):
            failures.given_up("audio")
        return probe, None
    try:
        return _sound(request, path)
    except SoundError as error:
        with failures.of("audio"):
            raise
        return error.probe, None


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
        with failures.of("audio"):
            probe, heard = _sound(request, request.audio_path)
            check_extent(probe, request.span, _ends(request.span, heard))
            sound, audio_info = heard, _audio_info(probe, heard)
    if request.image_path and "visual" not in failures:
        with failures.of("visual"):
            image = picture.read_image(request.image_path, request.size, request.max_pixels)
    if sound is None and image is None:
        failures.refuse()
    suffix = Path(request.image_path or "").suffix.lower().lstrip(".")
    visual_info = failures.info("visual") if image is None else StreamInfo(present=True, codec=suffix)
    times = (0.0,) if image is not None else ()
    return Decoded(sound, image, audio_info or failures.info("audio"), visual_info, times, _hash(there))


def _sound(request: Request, path: str) -> tuple[Probe, np.ndarray | None]:
    limits = {"max_seconds": request.max_seconds, "timeout": request.timeout_s}
    probe, sound = read_audio(path, request.span, **limits)
    if sound is not None and not len(sound):
        check_extent(probe, request.span, [])
        raise SoundError(DecodeError(TRUNCATED, "the audio stream holds no sound in the clip's time"), probe)
    return probe, sound


def _ends(span: Span, sound: np.ndarray | None) -> list[float]:
    return [span.start + len(sound) / SAMPLE_RATE] if sound is not None else []


def _audio_info(probe: Probe, sound: np.ndarray | None) -> StreamInfo | None:
    stream = probe.first("audio")
    if stream is None or sound is None:
        return None
    return StreamInfo(present=True, codec=stream.codec, rate=stream.rate, duration=round(len(sound) / SAMPLE_RATE, 3))


def _video(request: Request, probe: Probe, stream: Stream) -> picture.Frames:
    """Frames in this process if nothing is unusual; ffmpeg has the last word on all else."""
    assert request.path is not None
    if stream.codec == "none":
        raise DecodeError(UNSUPPORTED, "video of a codec that ffmpeg does not know")
    picture.check_size(stream.width, stream.height, request.max_pixels)
    arguments = (request.span, request.frames, request.size)
    if request.in_process and pyav_frames.is_supported(probe):
        try:
            return pyav_frames.by_pyav(
                request.path,
                probe,
                *arguments,
                max_pixels=request.max_pixels,
                key_frames=request.key_frames,
            )
        except (DecodeError, MemoryError):
            raise
        except Exception:  # whatever else it meets: ffmpeg tells the causes apart
            pass
    by_program = picture.by_key_frames if request.key_frames else picture.by_ffmpeg
    return by_program(request.path, stream, *arguments, request.timeout_s)


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
