"""Sound and frames through ffmpeg, the program: slower, on every file that FFmpeg reads; it has the last word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from pipelines.audio import GAP, SAMPLE_RATE, Channel, Run, Sound, Span, check_whole, end_of_track, mixed
from pipelines.causes import TRUNCATED, UNDECODABLE, UNSUPPORTED, DecodeError, concealed, cut_short, from_messages
from pipelines.container import Media, Stream
from pipelines.ffmpeg import packets, run, source, to_pipe
from pipelines.frames import Frames, Wanted, fit, seconds
from pipelines.pyav_frames import Listing, Undecided, chunks

_OFFSET = 100.0  # seconds added to all times, so that none is negative in the NUT container


def by_program(media: Media, stream: Stream, wanted: Wanted, timeout: float) -> Frames:
    """The same frames as by PyAV.

    Raises:
        DecodeError: the stream can't be decoded without errors.
    """
    check_whole(media, stream)
    found = 0
    for shown, keys, times in _listings(media, stream, timeout):
        chosen = wanted.choose(shown, keys)
        distinct, back = np.unique(chosen, return_inverse=True)
        pictures = _pictures(media, stream, times, distinct, wanted, timeout)
        if len(pictures) == len(distinct):
            return wanted.frames(np.stack(pictures)[back], shown, chosen)
        found = len(pictures)
    raise DecodeError(UNDECODABLE, f"video ({stream.codec}): {found} frames of {len(distinct)}")


def _listings(
    media: Media, stream: Stream, timeout: float
) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
    """When frames appear and go, which are key frames, and when the program says that they appear: as the container
    lists them; if some of those are never shown, as decoding all of them finds."""
    shift = _shift(media, stream)
    try:
        listing = Listing(media, stream)
        yield listing.shown, listing.keys, listing.shown[:, 0] - shift
    except Undecided:
        pass
    found = _times(media, stream, timeout)
    shown = chunks(media, stream) if "avi" in media.formats else None
    yield shown if shown is not None and len(shown) == len(found) else found + shift, None, found[:, 0]


def _shift(media: Media, stream: Stream) -> float:
    """Seconds from the program's zero to the file's: where clocks may start anew it counts from the stream's own
    begin, elsewhere from the container's."""
    return (stream.begin or 0.0) if media.discontinuous else 0.0


def _times(media: Media, stream: Stream, timeout: float) -> np.ndarray:
    """Float [frames, 2]: seconds of the program's clock at which the frames appear and go, by decoding all of them."""
    form = {"format": "framecrc", "vf": "scale=16:16", "fps_mode": "passthrough"}
    out, said, status = _run(media, stream, timeout, {}, **form)
    unit = re.search(rb"^#tb 0: (\d+)/(\d+)", out, re.MULTILINE)
    rows = re.findall(rb"^0, *-?\d+, *(-?\d+), *(\d+),", out, re.MULTILINE)
    if status != 0 or unit is None or not rows or cut_short(said):
        raise from_messages(said, f"video ({stream.codec})")
    begins = np.array(sorted(int(pts) for pts, _ in rows))
    last = max(rows, key=lambda row: int(row[0]))[1]
    shown = seconds(begins, int(last), int(unit[1]) / int(unit[2]))
    return shown[shown[:, 0] >= -1e-3]


def _pictures(
    media: Media, stream: Stream, times: np.ndarray, chosen: np.ndarray, wanted: Wanted, timeout: float
) -> list[np.ndarray]:
    """Uint8 [size, size, 3] of the frames of those positions, upright.

    Raises:
        DecodeError: something could not be read, or was concealed.
    """
    near = max(float(np.diff(times).min()) / 4, 1e-4) if len(times) > 1 else 1.0
    windows = _sum([f"between(t,{time - near:.6f},{time + near:.6f})" for time in times[chosen]])
    form: dict[str, object] = {"fps_mode": "passthrough", "pix_fmt": "rgb24", "c": "rawvideo", "format": "nut"}
    form |= {"vf": f"select='{windows}'", "output_ts_offset": _OFFSET}
    options = {"max_error_rate": 0, **({"skip_frame": "nokey"} if wanted.key_frames else {})}
    out, said, status = _run(media, stream, timeout, options, **form)
    if status != 0 or cut_short(said) or concealed(said):
        raise from_messages(said, f"video ({stream.codec})")
    found: dict[int, np.ndarray] = {}
    for picture, packet in packets(out):
        width, height = picture.width, picture.height
        pixels = np.frombuffer(packet, np.uint8)[: width * height * 3].reshape(height, width, 3)
        aspect = float(picture.sample_aspect_ratio or 1)
        at = float(packet.pts * packet.time_base) - _OFFSET
        number = int(np.abs(times[chosen] - at).argmin())  # of frames that share a time the last one stays
        found[number] = fit(pixels, wanted.size, aspect if wanted.pixel_aspect != 1.0 else 1.0)
    return [found[number] for number in sorted(found)]


def _run(
    media: Media, stream: Stream, timeout: float, options: Mapping[str, object], **form: object
) -> tuple[bytes, list[str], int]:
    """What the program makes of a stream. A clock that does not start anew is left alone: one stream of it may well
    begin much later than the file."""
    graph = to_pipe(source(**media.probing, **options), stream.index, **form)
    _ = media.tracks
    if not media.joints:
        graph = graph.global_args("-dts_delta_threshold", "1000000")
    return run(graph, media.path, timeout)


def _sum(terms: list[str]) -> str:
    """A sum as a balanced tree: ffmpeg bounds how deep an expression may be, and a plain chain is as deep as long."""
    half = len(terms) // 2
    return terms[0] if not half else f"({_sum(terms[:half])}+{_sum(terms[half:])})"


def sound_by_program(
    media: Media, stream: Stream, span: Span, channel: Channel, max_seconds: float, timeout: float
) -> Sound:
    """The same sound as by PyAV.

    Raises:
        DecodeError: an undecodable, damaged or too long stream, or none in the clip's time.
    """
    if stream.codec == "none":
        raise DecodeError(UNSUPPORTED, "audio of a codec that FFmpeg does not know")
    check_whole(media, stream)

    def runs(way: str) -> Iterator[Run]:
        end = span.start + min(span.duration or np.inf, max_seconds + 1)
        length = min(end, end_of_track(media, stream) or np.inf) - span.start
        if length <= 0:
            return
        cut = f"atrim=start={span.start - _shift(media, stream):.6f}:duration={length:.6f}"
        form = {"c": "pcm_s16le", "format": "nut", "ar": SAMPLE_RATE, "output_ts_offset": _OFFSET}
        mono = {"ac": 1} if way == "mono" else {}
        out, said, status = _run(media, stream, timeout, {"max_error_rate": 0}, af=cut, **form, **mono)
        if status != 0:
            raise from_messages(said, f"audio ({stream.codec})")
        if (message := cut_short(said)) is not None:
            raise DecodeError(TRUNCATED, f"audio ({stream.codec}): {message}")
        yield from _joined(out, _shift(media, stream) - _OFFSET)

    return mixed(runs, span, channel, max_seconds)


def _joined(out: bytes, shift: float) -> Iterator[Run]:
    """Runs of packets that follow one another."""
    began, parts, count = 0.0, [], 0  # type: float, list[np.ndarray], int
    for stream, packet in packets(out):
        samples = np.frombuffer(packet, "<i2").reshape(-1, stream.codec_context.layout.nb_channels).T
        time = float(packet.pts * packet.time_base) + shift
        if parts and abs(time - began - count / SAMPLE_RATE) > GAP:
            yield began, np.concatenate(parts, axis=1)
            parts, count = [], 0
        began = began if parts else time
        parts.append(samples)
        count += samples.shape[1]
    if parts:
        yield began, np.concatenate(parts, axis=1)
