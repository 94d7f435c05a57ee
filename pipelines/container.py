"""A media file through FFmpeg's libraries: its streams, its clock, its packets.

Files are opened by descriptor. Their names, titles, comments, chapters never reach FFmpeg's or our decisions, and
nothing that a file refers to (playlists, external tracks, image sequences) can be opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import dropwhile
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition

from pipelines.byte_counts import counts_anew, ends_within_page, ends_within_piece, has_all_bytes
from pipelines.causes import (
    MISSING_FILE,
    TRUNCATED,
    UNDECODABLE,
    DecodeError,
    cut_short,
    damaged_container,
    machine_at_fault,
)

HELD = 64 << 20  # bytes: the packets of smaller files are read once
NO_MEDIA = {"hls", "concat", "dash", "tty", "lavfi", "ffmetadata", "webvtt", "srt"}  # text and playlists
TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT: the container's clock may start anew
JOINT = 10.0  # seconds that such a clock jumps ahead where two recordings are joined, as ffmpeg's -dts_delta_threshold
BACK = 0.1  # seconds that it falls back; other containers' clocks only jitter by less than RESET
RESET = 1.0
HEADERS_LIE = {"avi", "asf", "flv"}  # lengths that writers get wrong; of no use where the bytes are counted
FROM_NOUGHT = {"matroska", "nut"}  # containers whose length is counted from 0, not from where their streams begin
FURTHER = {"analyzeduration": 600_000_000, "probesize": 256 << 20}  # microseconds, bytes: how far to look for streams
_ESTIMATED = "Estimating duration from bitrate, this may be inaccurate"


@dataclass(frozen=True)
class Stream:
    """One audio or video stream.

    Attributes:
        index: in the container.
        kind: ``audio`` or ``video``.
        codec: FFmpeg's name of it; ``none`` if unknown.
        rate: Hz, or frames per second.
        width, height: pixels as stored.
        pixel_aspect: width of a pixel over its height.
        begin: second of the file's clock at which it begins, as the container says.
        default: the container marks it as one to be played unless asked otherwise (an enabled track).
    """

    index: int
    kind: str
    codec: str
    rate: float | None = None
    width: int = 0
    height: int = 0
    pixel_aspect: float = 1.0
    begin: float | None = None
    default: bool = False


@dataclass
class Track:
    """Packets of one stream in decoding order, on the file's clock (joints removed).

    Attributes:
        unit: seconds per tick of ``pts``.
        pts: when each is shown, ``None`` where the container does not say.
        dts: when each is decoded, likewise.
        keys: whether everything after it can be decoded without what came before.
        hidden: outside an edit list: decoded and not shown.
        durations: ticks.
        idle: tick at which a last empty packet is over, if there are such.
        damaged: positions of packets that are cut short or marked as damaged.
        offsets: bytes of the file at which packets begin (-1: nobody knows).
        shifts: seconds by which the clock's joints moved them.
        packets: the data, of a small file.
    """

    unit: float
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    idle: int | None = None
    damaged: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    packets: list[Any] = field(default_factory=list)

    @cached_property
    def end(self) -> float | None:
        """Second of FFmpeg's clock at which the last packet is over."""
        ends = [
            at + d for at, d, h in zip(self.pts, self.durations, self.hidden, strict=True) if at is not None and not h
        ]
        return max(*ends, self.idle or ends[0]) * self.unit if ends else None


class Media:
    """An open file.

    Attributes:
        zero: second of FFmpeg's clock that is 0 of the file's clock: where the container begins.
        duration: seconds that the container promises; ``None`` if it does not say.
        formats: names of the container.
        streams: audio and video; attached pictures (cover art) are left out: they are no picture of the clip.
        joints: whether the clock started anew on the way.
        probing: options with which the file was opened.
    """

    def __init__(self, file: Any, log: list[tuple[int, str, str]], path: str, descriptor: int, probing: dict[str, int]):
        self.file, self.log, self.path, self.descriptor, self.probing = file, log, path, descriptor, probing
        self.size = os.path.getsize(path)
        self.formats = tuple(file.format.name.split(","))
        self.discontinuous = bool(file.format.flags & TS_DISCONT)
        self.zero = (file.start_time or 0) / 1e6
        measured = self.discontinuous or "ogg" in self.formats  # by FFmpeg, from the last times in the file
        estimated = measured or any(message.strip() == _ESTIMATED for _, _, message in log)
        self.duration = file.duration / 1e6 if file.duration and not estimated else None
        if self.duration is not None and self.duration > self.zero > 0 and FROM_NOUGHT & set(self.formats):
            self.duration -= self.zero
        if HEADERS_LIE & set(self.formats) and self.complete:
            self.duration = None
        self.streams = tuple(filter(None, map(self._stream, file.streams)))
        self.hold, self.joints = self.size <= HELD, False
        self.unreadable: str | None = None
        self.passed_over: str | None = None
        self.clock = _Clock(self.discontinuous)

    def reopen(self) -> BinaryIO:
        """The file's bytes."""
        return open(self.path, "rb")

    @cached_property
    def complete(self) -> bool:
        """Whether the container counts its bytes, has them, and none was found broken: then it was not cut, whatever
        length it promises."""
        broken = damaged_container([text for _, _, text in self.log])
        with self.reopen() as file:
            return broken is None and has_all_bytes(file, self.formats, self.size)

    @property
    def unsure(self) -> bool:
        """Whether FFmpeg may not have looked far enough: a stream without facts, or none in a container that does not
        announce its streams."""
        bare = any(s.codec != "none" and not (s.width if s.kind == "video" else s.rate) for s in self.streams)
        announced = not self.discontinuous and "flv" not in self.formats
        return bare or not (announced or len({stream.kind for stream in self.streams}) == 2)

    def first(self, kind: str) -> Stream | None:
        """The ``audio`` or ``video`` stream that is ingested: the first that the container would play by default, else
        the first."""
        own = [stream for stream in self.streams if stream.kind == kind]
        return next((stream for stream in own if stream.default), own[0] if own else None)

    def _stream(self, stream: Any) -> Stream | None:
        if stream.type not in ("audio", "video") or stream.disposition & Disposition.attached_pic:
            return None
        begin = None
        if stream.start_time is not None:
            begin = float(stream.start_time * stream.time_base) - self.zero
        codec, default = stream.codec_context, bool(stream.disposition & Disposition.default)
        if codec is None:
            return Stream(stream.index, stream.type, "none", begin=begin, default=default)
        name = codec.codec.canonical_name
        if stream.type == "audio":
            rate = float(codec.sample_rate) or None
            return Stream(stream.index, "audio", name, rate, begin=begin, default=default)
        rate = stream.average_rate or stream.base_rate
        fps = round(float(rate), 2) if rate else None
        aspect = _pixel_aspect(stream)
        return Stream(stream.index, "video", name, fps, codec.width, codec.height, aspect, begin, default)

    @cached_property
    def tracks(self) -> dict[int, Track]:
        """The packets of all streams by index, in one pass, as far as they can be read."""
        found = {s.index: Track(float(s.time_base or 0)) for s in self.file.streams}
        held = {s.index for s in (self.first("audio"), self.first("video")) if s} if self.hold else set()
        known = 0
        for packet in self._packets(self.file):
            if len(self.log) > known and self.passed_over is None:  # complaints with something behind them
                self.passed_over = damaged_container([text for _, _, text in self.log[known:]])
                known = len(self.log)
            track = found[packet.stream_index]
            if not packet.size:  # nothing new: the frame before is held
                track.idle = max(track.idle or 0, (packet.pts or 0) + (packet.duration or 0))
                continue
            if packet.is_corrupt:
                track.damaged.append(len(track.pts))
            track.pts.append(packet.pts)
            track.dts.append(packet.dts)
            track.offsets.append(-1 if packet.pos is None else packet.pos)
            track.shifts.append(self.clock.shift)
            track.keys.append(packet.is_keyframe)
            track.hidden.append(packet.is_discard)
            track.durations.append(packet.duration or 0)
            if packet.stream_index in held:
                track.packets.append(packet)
        return found

    def _packets(self, file: Any, *streams: Any) -> Iterator[Any]:
        """From where a file stands to its end, shifted where its clock starts anew."""
        self.clock = _Clock(self.discontinuous)
        try:
            for packet in file.demux(*streams):
                if packet.size or packet.pts is not None:
                    self.clock.correct(packet)
                    yield packet
        except av.FFmpegError as error:
            self.unreadable = error.strerror
        except IndexError:  # PyAV's, on a stream that appears on the way
            raise DecodeError(UNDECODABLE, "a stream appears that was not announced") from None
        self.joints |= bool(self.clock.shift)

    def again(self, stream: Stream, begin: float | None) -> Iterator[Any]:
        """The packets of one stream; from a key frame or packet before ``begin`` on, if the container leads there."""
        track = self.tracks[stream.index]
        if track.packets:
            return iter(track.packets)
        if begin is None or begin <= 0 or self.joints or not {"mov", "matroska"} & set(self.formats):
            return self._from_start(stream.index)
        self.file.seek(int((begin + self.zero) * 1e6))
        return (packet for packet in self._packets(self.file, self.file.streams[stream.index]) if packet.size)

    def _from_start(self, index: int) -> Iterator[Any]:
        """As opened anew: after a seek to 0 the demuxers forget what to skip there."""
        with open_file(self.path, self.probing) as (file, _):
            yield from (p for p in self._packets(file) if p.stream_index == index and p.size)

    def since(self, stream: Stream, position: int) -> Iterator[tuple[int, Any]]:
        """The packets of a stream from a position on, with their positions.

        Raises:
            LookupError: the container does not lead there.
        """
        track, file_stream = self.tracks[stream.index], self.file.streams[stream.index]
        coming: Iterator[Any] = iter(track.packets[position:])
        if not track.packets:
            at = track.pts[position]
            self.file.seek(int(at or 0), stream=file_stream)
            coming = dropwhile(lambda packet: packet.pts != at, self.file.demux(file_stream))
        for number, packet in enumerate(coming, position):
            if packet.pts != track.pts[number]:
                raise LookupError("seeking leads elsewhere")
            yield number, packet

    def channels(self, stream: Stream) -> int:
        """How many an audio stream has."""
        codec = self.file.streams[stream.index].codec_context
        return codec.layout.nb_channels if codec is not None else 0

    def reorders(self, stream: Stream) -> bool:
        """Whether a video stream's frames may be shown in another order than they are decoded in."""
        codec: Any = self.file.streams[stream.index].codec_context
        return bool(codec is not None and codec.has_b_frames)

    def ends(self) -> list[float]:
        """Second of the file's clock at which each stream is over."""
        return [track.end - self.zero for track in self.tracks.values() if track.end is not None]

    def until(self) -> float | None:
        """Second of the file's clock at which the whole file is over; subtitles may go on."""
        media = {stream.index for stream in self.streams}
        ends = {index: track.end - self.zero for index, track in self.tracks.items() if track.end is not None}
        other = max((end for index, end in ends.items() if index not in media), default=0.0)
        promised = self.duration if self.duration and self.duration > other + 0.1 else None
        known = [end for index, end in ends.items() if index in media]
        return max([*known, *([promised] if promised else [])], default=None)

    def is_damaged(self, stream: Stream) -> bool:
        """Whether a packet of the stream is cut short or marked as damaged; parsers drop the mark, not the message.

        The last packet before a joint is marked, too: the next recording counts its pieces anew.
        """
        damaged = self.tracks[stream.index].damaged
        said = f"Packet corrupt (stream = {stream.index}, "
        told = {text.strip() for _, _, text in self.log if text.startswith(said)}
        if not damaged or not self.discontinuous:
            return bool(damaged or told)
        return len(told) > len(damaged) or not all(self._before_joint(stream, at) for at in damaged)

    def _before_joint(self, stream: Stream, position: int) -> bool:
        """Whether a new recording begins behind a packet of a stream, or behind the next one: parsers give the mark to
        the packet before."""
        track = self.tracks[stream.index]
        near = range(position, min(position + 2, len(track.pts) - 1))
        if any(track.shifts[at] != track.shifts[at + 1] for at in near):
            return True
        with self.reopen() as file:
            return "mpegts" in self.formats and any(counts_anew(file, *track.offsets[at : at + 2]) for at in near)

    def check_readable(self) -> None:
        """Raises DecodeError if reading met the file's end before the container's, or passed over a broken part."""
        _ = self.tracks
        if self.unreadable:
            raise DecodeError(TRUNCATED, f"reading stopped: {self.unreadable}")
        if (message := cut_short([text for _, _, text in self.log])) is not None:
            raise DecodeError(TRUNCATED, message)
        if self.passed_over is not None:
            raise DecodeError(UNDECODABLE, f"the container is damaged: {self.passed_over}")
        with self.reopen() as file:
            if "ogg" in self.formats and ends_within_page(file, self.size):
                raise DecodeError(TRUNCATED, "the last page is not whole")
            if "mpegts" in self.formats and ends_within_piece(file, self.size):
                raise DecodeError(TRUNCATED, "the last piece of the transport stream is not whole")


class _Clock:
    """Joins recordings that follow one another in one file, each with a clock of its own, as ffmpeg's program does.

    A stream whose time falls back, or all of whose neighbours jump ahead with it, has come to a joint. A jump of one
    stream alone is a gap in that stream.
    """

    def __init__(self, discontinuous: bool):
        self.jump, self.back = (JOINT, BACK) if discontinuous else (np.inf, RESET)
        self.shift = 0.0
        self.last: dict[int, float] = {}
        self.next: dict[int, float] = {}

    def correct(self, packet: Any) -> None:
        """Move the packet's times by the joints so far."""
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            return
        unit, index = float(packet.time_base), packet.stream_index
        now = ticks * unit + self.shift
        due = self.next.get(index)
        if due is not None:
            away = now - due
            others = [time for other, time in self.last.items() if other != index]
            alone = any(abs(now - time) <= self.jump for time in others)
            if now + self.back < self.last[index] or (away > self.jump and not alone):
                self.shift -= away
                now = due
        if self.shift:
            moved = round(self.shift / unit)
            packet.pts = packet.pts + moved if packet.pts is not None else None
            packet.dts = packet.dts + moved if packet.dts is not None else None
        self.last[index], self.next[index] = now, now + (packet.duration or 0) * unit


def _pixel_aspect(stream: Any) -> float:
    """Width over height of a pixel; what is no possible camera's (1:10 to 10:1) counts as square."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.1 <= aspect <= 10 else 1.0


@contextmanager
def open_file(path: str, probing: Mapping[str, int]) -> Iterator[tuple[Any, int]]:
    """FFmpeg's container of a file, and the descriptor by which it is read.

    Args:
        probing: how far to look for streams, where not as usual.

    Raises:
        OSError: the file can't be opened.
        av.FFmpegError, ValueError: it is no media.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        options = {"fd": str(descriptor), "protocol_whitelist": "fd", **{k: str(v) for k, v in probing.items()}}
        with av.open("fd:", options=options, metadata_errors="ignore") as file:
            yield file, descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_media(path: str) -> Iterator[Media]:
    """Open a file for reading.

    Raises:
        DecodeError: no media, or cut off before its index.
    """
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)  # what one file says must not depend on what another one said
    with ExitStack() as stack:
        capture: Any = av.logging.Capture()
        log = stack.enter_context(capture)
        media = _opened(stack, log, path, {})
        if media.unsure:
            media = _opened(stack, log, path, FURTHER)
        if NO_MEDIA & set(media.formats):
            raise DecodeError(UNDECODABLE, f"a text or playlist ({media.formats[0]}), no media")
        yield media


def _opened(stack: ExitStack, log: list[tuple[int, str, str]], path: str, probing: dict[str, int]) -> Media:
    try:
        file, descriptor = stack.enter_context(open_file(path, probing))
    except (av.FFmpegError, ValueError) as error:
        raise _no_media(path, error, log) from None
    except OSError as error:
        if machine_at_fault(error):
            raise
        raise DecodeError(MISSING_FILE, f"{path}: {error.strerror}") from None
    return Media(file, log, path, descriptor, probing)


def _no_media(path: str, error: Exception, log: list[tuple[int, str, str]]) -> Exception:
    if isinstance(error, OSError) and machine_at_fault(error):
        return error
    if any(re.fullmatch(r"moov atom not found\s*", text) for _, _, text in log) and _begins_as_mp4(path):
        return DecodeError(TRUNCATED, "no moov atom: the end of the mp4 is missing")
    if (message := cut_short([text for _, _, text in log])) is not None:
        return DecodeError(TRUNCATED, f"the file can't be opened: {message}")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return DecodeError(UNDECODABLE, f"the file can't be opened: {reason}")


def _begins_as_mp4(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] in (b"ftyp", b"mdat", b"wide", b"free", b"skip")
