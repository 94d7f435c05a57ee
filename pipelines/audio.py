"""Sound of a clip: 16 kHz mono, decoded by ffmpeg, which says on the way what the file holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.causes import (
    MISSING_FILE,
    READ_COMPLAINTS,
    TOO_LARGE,
    TRUNCATED,
    UNDECODABLE,
    DecodeError,
    from_stderr,
)
from pipelines.ffmpeg import Probe, parse_probe, run, source

SAMPLE_RATE = 16000  # Hz
NO_MEDIA = {"hls", "concat", "dash", "tty", "lavfi", "ffmetadata", "webvtt", "srt"}  # text and playlists


class SoundError(DecodeError):
    """The sound that a file has can't be decoded; what the file holds is known (``probe``)."""

    def __init__(self, error: DecodeError, probe: Probe):
        super().__init__(error.cause, error.message)
        self.probe = probe


@dataclass(frozen=True)
class Span:
    """The part of the file that is the clip: seconds from its start; ``duration`` ``None`` is to its end."""

    start: float = 0.0
    duration: float | None = None

    def options(self) -> dict[str, float]:
        """As input options of ffmpeg."""
        length = {"t": self.duration} if self.duration is not None else {}
        return {**({"ss": self.start} if self.start else {}), **length}

    def end(self, file_duration: float | None) -> float | None:
        """Second of the file at which the clip should end, as far as known."""
        ends = [e for e in (file_duration, self.duration and self.start + self.duration) if e]
        return min(ends) if ends else None


def read_audio(path: str, span: Span, *, max_seconds: float, timeout: float) -> tuple[Probe, np.ndarray | None]:
    """What the container holds, and its first audio stream as int16 [samples] at 16 kHz, if it has one.

    Raises:
        SoundError: an undecodable, damaged or too long stream.
        DecodeError: no media, or the file takes too long.
    """
    longest = Span(span.start, min(span.duration or np.inf, max_seconds + 1))
    graph = source(path, max_error_rate=0, **longest.options())
    graph = graph.output("pipe:", map="0:a:0?", format="s16le", ac=1, ar=SAMPLE_RATE)
    out, err, status = run(graph, timeout)
    probe = _probe(path, err)
    if probe.first("audio") is None:
        return probe, None
    if status != 0 or READ_COMPLAINTS.search(err):
        raise SoundError(from_stderr(err, f"audio ({probe.first('audio').codec})"), probe)  # type: ignore[union-attr]
    samples = np.frombuffer(out, np.int16)
    if len(samples) > max_seconds * SAMPLE_RATE:
        raise SoundError(DecodeError(TOO_LARGE, f"more than max_seconds={max_seconds:g} s of sound"), probe)
    return probe, samples


def look(path: str, timeout: float) -> Probe:
    """What the container holds; nothing is decoded.

    Raises:
        DecodeError: no media.
    """
    graph = source(path).output("pipe:", map="0:v:0", c="copy", t=0, format="framecrc")
    return _probe(path, run(graph, timeout)[1])


def _probe(path: str, stderr: str) -> Probe:
    if "No such file or directory" in stderr:
        raise DecodeError(MISSING_FILE, path)
    probe = parse_probe(stderr)
    if probe is None:
        if "moov atom not found" in stderr and _begins_as_mp4(path):
            raise DecodeError(TRUNCATED, "no moov atom: the end of the mp4 is missing")
        raise from_stderr(stderr, "the file can't be opened")
    if NO_MEDIA & set(probe.formats):
        raise DecodeError(UNDECODABLE, f"a text or playlist ({probe.formats[0]}), no media")
    return probe


def _begins_as_mp4(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"mdat", b"wide", b"free", b"skip")


def check_extent(probe: Probe, span: Span, ends: list[float]) -> None:
    """Refuse a clip of which no stream reaches the end that the container promises.

    One stream may be shorter than the container: a real track often is. That all of them end early means
    that the file was cut where no decoder notices (a Matroska file between two clusters, say).

    Raises:
        DecodeError: truncated.
    """
    if probe.duration is not None and span.start >= probe.duration:
        raise DecodeError(TRUNCATED, f"begins at {span.start:g} s, but the file lasts {probe.duration:g} s")
    promised = span.end(probe.duration)
    if promised is None or not ends:
        return
    tolerance = max(0.25, 0.02 * (promised - span.start))
    if max(ends) < promised - tolerance:
        message = f"its streams end at {max(ends):.2f} s, the container promises {promised:.2f} s"
        raise DecodeError(TRUNCATED, message)
