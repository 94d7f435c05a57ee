"""Sound of a clip: 16 kHz mono on the file's clock, late starts and gaps silent; through PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
from av.sidedata.sidedata import Type

from pipelines.byte_counts import lacks_samples
from pipelines.causes import NOT_FINITE, NOT_IN_CLIP, TOO_LARGE, TRUNCATED, UNSUPPORTED, DecodeError, from_messages
from pipelines.container import Media, Stream

SAMPLE_RATE = 16000  # Hz
LATE = 0.010  # seconds, one log-mel hop: a start later than this is preceded by silence
GAP = 0.050  # seconds between where sound should go on and its own time: less is jitter of the container's clock
PREROLL = 2.0  # seconds decoded before a clip begins, for codecs that lean on what came before
SAME = 0.005  # seconds by which a track's own length may differ from its packets'
QUIET = 10 ** (-40 / 20)  # root mean square under which a mix is compared with its channels
CANCELLED = 0.1  # a mix this much weaker than its channels (20 dB) is cancelled
PACKED = {"wav", "aiff", "au", "caf"}  # containers of samples: their last block may be short

_DOWNMIX = struct.Struct("@i4x5d")
Channel = Literal["mean", "first", "loudest"]
Run = tuple[float, np.ndarray]  # second of the file's clock, int16 [channels, samples]


@dataclass(frozen=True)
class Span:
    """The part of the file that is the clip: seconds of its clock; ``duration`` ``None`` is to its end."""

    start: float = 0.0
    duration: float | None = None

    def end(self, file_duration: float | None) -> float | None:
        """Second of the file at which the clip should end, as far as known."""
        ends = [e for e in (file_duration, self.duration and self.start + self.duration) if e]
        return min(ends) if ends else None


@dataclass(frozen=True)
class Sound:
    """``samples`` int16 [n] at 16 kHz from the clip's start, and what they were made from: ``mean`` of the
    channels, ``first``, ``loudest``, or ``loudest (mean cancelled)``."""

    samples: np.ndarray
    channel: str


def check_extent(media: Media, span: Span) -> None:
    """Refuse a clip of which no stream reaches the end that the container promises.

    One stream may be shorter than the container: a real track often is. That all of them end early means
    that the file was cut where no decoder notices (a Matroska file between two clusters, say), unless it has all the
    bytes that it counts.

    Raises:
        DecodeError: truncated.
    """
    until = media.until()
    if until is not None and span.start >= until:
        raise DecodeError(TRUNCATED, f"begins at {span.start:g} s, but the file lasts {until:g} s")
    promised, ends = span.end(media.duration), media.ends()
    if media.duration is None or promised is None or not ends:  # a piece may reach beyond the end
        return
    if max(ends) < promised - tolerance(promised - span.start) and not media.complete:
        message = f"its streams end at {max(ends):.2f} s, the container promises {promised:.2f} s"
        raise DecodeError(TRUNCATED, message)


def tolerance(seconds: float) -> float:
    """Seconds by which ends of a clip's streams may differ and still count as one."""
    return max(0.25, 0.02 * seconds)


def read_sound(media: Media, stream: Stream, span: Span, channel: Channel, max_seconds: float) -> Sound:
    """The sound of a clip.

    Raises:
        DecodeError: an undecodable, damaged or too long stream, or none in the clip's time.
    """
    if stream.codec == "none":
        raise DecodeError(UNSUPPORTED, "audio of a codec that FFmpeg does not know")
    check_whole(media, stream)
    return mixed(lambda way: _runs(media, stream, span, way, max_seconds), span, channel, max_seconds)


def mixed(runs: Any, span: Span, channel: Channel, max_seconds: float) -> Sound:
    """One channel of the runs that ``runs("mono")`` or ``runs("channels")`` gives.

    Raises:
        DecodeError: too long, or no sound.
    """
    if channel != "mean":
        return Sound(_one_of(place(runs("channels"), span, max_seconds), channel), channel)
    mix = place(runs("mono"), span, max_seconds)[0]
    loudness = _rms(mix)
    if loudness < QUIET:
        each = place(runs("channels"), span, max_seconds)
        if len(each) > 1 and loudness < CANCELLED * max(map(_rms, each)):
            return Sound(_one_of(each, "loudest"), "loudest (mean cancelled)")
    return Sound(mix, channel)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) / 32768


def _one_of(channels: np.ndarray, which: str) -> np.ndarray:
    """Int16 [samples] of int16 [channels, samples]."""
    number = 0 if which == "first" else int(np.argmax([_rms(channel) for channel in channels]))
    return np.ascontiguousarray(channels[number])


def place(runs: Iterable[Run], span: Span, max_seconds: float) -> np.ndarray:
    """Int16 [channels, samples] of a span: each run at its time, silence before and between.

    Raises:
        DecodeError: nothing there, or longer than ``max_seconds``.
    """
    parts: list[np.ndarray] = []
    filled = 0
    for at, samples in runs:
        if not samples.shape[1]:
            continue
        position = round((at - span.start) * SAMPLE_RATE)
        if not parts and position <= LATE * SAMPLE_RATE:
            position = 0
        if position + samples.shape[1] > max_seconds * SAMPLE_RATE:
            raise DecodeError(TOO_LARGE, f"more than max_seconds={max_seconds:g} s of sound")
        if position > filled:
            parts.append(np.zeros((samples.shape[0], position - filled), np.int16))
        elif position < filled:  # two runs at one time: the first one counts
            samples = samples[:, filled - position :]
        parts.append(samples)
        filled = max(filled, position) + samples.shape[1]
    if not filled:
        raise DecodeError(NOT_IN_CLIP, "the audio stream holds no sound in the clip's time")
    channels = max(part.shape[0] for part in parts)
    longest = None if span.duration is None else round(span.duration * SAMPLE_RATE)
    return np.concatenate([np.pad(p, ((0, channels - len(p)), (0, 0))) for p in parts], axis=1)[:, :longest]


def _runs(media: Media, stream: Stream, span: Span, way: str, max_seconds: float) -> Iterator[Run]:
    """Continuous runs of the clip's sound at 16 kHz.

    Raises:
        DecodeError: the stream can't be decoded without errors.
    """
    begin = span.start
    end = begin + min(span.duration or np.inf, max_seconds + 1)
    resampler = Resampler(way)
    for time, over, frame in _decoded(media, stream, begin, end):
        rate, length = frame.sample_rate, frame.samples
        first = round((begin - time) * rate) if time < begin else 0
        last = min(round((min(end, over) - time) * rate), length)
        if first < last:
            part = frame if (first, last) == (0, length) else _cut(frame, first, last)
            yield from resampler.add(part, time + first / rate, _mix_levels(frame))
    yield from resampler.close()


def check_finite(media: Media, stream: Stream, span: Span, max_seconds: float) -> None:
    """Look for NaN and infinity in samples that are stored as floats, of which FFmpeg would make full swings.

    Raises:
        DecodeError: there are some in the clip's time.
    """
    if not (stream.codec or "").startswith("pcm_f"):
        return
    end = span.start + min(span.duration or np.inf, max_seconds + 1)
    for time, _, frame in _decoded(media, stream, span.start, end):
        if not np.isfinite(frame.to_ndarray()).all():
            raise DecodeError(NOT_FINITE, f"samples that are no numbers, about {max(time, 0):.1f} s into the file")


def _decoded(media: Media, stream: Stream, begin: float, end: float) -> Iterator[tuple[float, float, Any]]:
    """Frames from before ``begin`` to ``end``: seconds of the file's clock at which each begins and is over."""
    codec = media.file.streams[stream.index].codec_context
    if codec.is_open:
        codec.flush_buffers()
    else:
        codec.thread_count = 1
    shown_until = end_of_track(media, stream)
    due, anchor, count = None, 0.0, 0  # type: float | None, float, int
    unit = float(media.file.streams[stream.index].time_base)
    coarse = 1.01 * unit if unit * (stream.rate or 0) > 1.5 else 1e-9  # times rounded to milliseconds, say
    for packet in [*_packets(media, stream, begin, end), None]:
        try:
            frames = codec.decode(packet)
        except av.FFmpegError as error:
            if packet is not None and packet.pts is not None and begin - _time(media, packet) > PREROLL / 4:
                continue  # before the clip
            messages = [text for _, name, text in media.log if name.startswith(stream.codec)] or [str(error.strerror)]
            raise from_messages(messages, f"audio ({stream.codec})") from None
        for frame in frames:
            told = _time(media, frame) if frame.pts is not None else due
            if due is None or abs((told or 0.0) - due) > coarse:
                anchor, count = told or 0.0, 0
            time, count = anchor + count / frame.sample_rate, count + frame.samples
            due = anchor + count / frame.sample_rate
            if time >= end:
                return
            padded = shown_until is not None and time < shown_until < due
            yield time, shown_until if padded and shown_until else due, frame


def check_whole(media: Media, stream: Stream) -> None:
    """Raises DecodeError (truncated) if a packet of the stream is cut short or marked as damaged."""
    if media.is_damaged(stream) and not _short_last_block(media, stream):
        raise DecodeError(TRUNCATED, f"{stream.kind} ({stream.codec}): a packet is cut short or damaged")


def _time(media: Media, thing: Any) -> float:
    return float(thing.pts * thing.time_base) - media.zero


def _packets(media: Media, stream: Stream, begin: float, end: float) -> Iterator[Any]:
    """Those that can matter for the clip's sound."""
    for packet in media.again(stream, begin - PREROLL if begin else None):
        if packet.pts is not None:
            time = _time(media, packet)
            if time + float((packet.duration or 0) * packet.time_base) < begin - PREROLL:
                continue
            if time > end + PREROLL:
                return
        yield packet


def end_of_track(media: Media, stream: Stream) -> float | None:
    """Second at which an mp4 ends the stream, within its last packet: behind it are the samples that fill a frame."""
    source, last = media.file.streams[stream.index], media.tracks[stream.index].end
    if "mov" not in media.formats or not source.duration or stream.begin is None or last is None:
        return None
    end = stream.begin + float(source.duration * source.time_base)
    return end if abs(last - media.zero - end) < SAME else None


def _short_last_block(media: Media, stream: Stream) -> bool:
    """Whether all that is marked as damaged is a last block of samples that is shorter than the others, in a
    file that does not promise more."""
    track = media.tracks[stream.index]
    if not PACKED & set(media.formats) or track.damaged != [len(track.pts) - 1]:
        return False
    promised = media.duration is not None and media.duration > (track.end or 0) - media.zero + 0.001
    with media.reopen() as file:
        return not promised and not lacks_samples(file, media.formats, media.size)


def _cut(frame: Any, first: int, last: int) -> Any:
    """Samples ``first`` to ``last`` of a frame."""
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    data = np.ascontiguousarray(frame.to_ndarray()[:, first * width : last * width])
    part = av.AudioFrame.from_ndarray(data, format=frame.format.name, layout=frame.layout)
    part.sample_rate = frame.sample_rate
    return part


def _mix_levels(frame: Any) -> dict[str, str]:
    """How loud the stream wants its centre and surround channels in a mix (AVDownmixInfo); ffmpeg obeys it, too."""
    wish = next((bytes(data) for data in frame.side_data if data.type == Type.DOWNMIX_INFO), None)
    if wish is None or len(wish) < _DOWNMIX.size:
        return {}
    kind, centre, centre_ltrt, surround, surround_ltrt, lfe = _DOWNMIX.unpack_from(wish)
    chosen = (centre_ltrt, surround_ltrt) if kind >= 2 else (centre, surround)
    return {"center_mix_level": str(chosen[0]), "surround_mix_level": str(chosen[1]), "lfe_mix_level": str(lfe)}


class Resampler:
    """Makes runs at 16 kHz of frames: a run ends where the next frame's time or form does not go on from it.

    Args:
        way: ``mono``: mixed, as ffmpeg's ``-ac 1`` does; ``channels``: each of its own.
    """

    def __init__(self, way: str):
        self.way = way
        self.form: tuple[object, ...] = ()
        self.began, self.count, self.parts = 0.0, 0, []  # type: float, int, list[np.ndarray]
        self.resampler: Any = None

    def add(self, frame: Any, time: float, levels: dict[str, str]) -> Iterator[Run]:
        """Take one frame, to be mixed at these levels; gives the run that it does not belong to any more."""
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        due = self.began + self.count / frame.sample_rate
        if form != self.form or abs(time - due) > GAP:
            yield from self.close()
            layout = "mono" if self.way == "mono" else frame.layout
            options = levels if self.way == "mono" else {}
            self.resampler = av.AudioResampler(format="s16p", layout=layout, rate=SAMPLE_RATE, options=options)
            self.form, self.began, self.count = form, time, 0
        self.count += frame.samples
        frame.pts = None
        self.parts += [part.to_ndarray() for part in self.resampler.resample(frame)]

    def close(self) -> Iterator[Run]:
        """The run under way, to its end."""
        if self.resampler is not None:
            parts = self.parts + [part.to_ndarray() for part in self.resampler.resample(None)]
            self.parts, self.resampler = [], None
            if parts:
                yield self.began, np.concatenate(parts, axis=1)
