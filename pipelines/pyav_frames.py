"""Frames through FFmpeg's libraries in this process: only what the wanted ones need is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from pipelines.container import Media, Stream, Track
from pipelines.crop import has_crop
from pipelines.frames import Frames, Wanted, check_size, fit, seconds
from pipelines.orientation import Tilted, upright

CODECS = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}
DISPOSABLE = {"h264", "mpeg4", "mpeg2video", "mpeg1video"}  # no frame at all refers to those marked so


class Undecided(Exception):
    """Something is unusual or damaged: ffmpeg has the last word on this file."""


def by_pyav(media: Media, stream: Stream, wanted: Wanted, max_pixels: int) -> Frames:
    """Uniform frames, to the bit those of decoding everything, or the key frames nearest to them; one thread.

    Groups of pictures without a wanted frame are left out, and so are other frames to which none refers.
    The program gives the same bits.

    Raises:
        Exception: Undecided, or whatever FFmpeg meets; it can also crash or hang: call it where it may.
    """
    if stream.codec not in CODECS or has_crop(media):
        raise Undecided("a rarer codec, or a picture that the container crops")
    check_size(stream.width, stream.height, max_pixels)
    listing = Listing(media, stream)
    known = len(media.log)
    chosen = wanted.choose(listing.shown, listing.keys)
    distinct, back = np.unique(listing.pts[chosen], return_inverse=True)
    pictures: dict[int, np.ndarray] = {}
    to_rgb = Rgb(media, stream)
    try:
        for frame in _decoded(media, stream, listing, distinct):
            pictures[int(frame.pts or 0)] = _picture(frame, to_rgb(frame), wanted)
    except Tilted:
        raise Undecided("tilted") from None
    complaints = [text for level, _, text in media.log[known:] if level <= av.logging.ERROR]
    if complaints or len(pictures) != len(distinct):
        raise Undecided(str(complaints[:1] or "a frame that is listed is not shown"))
    return wanted.frames(np.stack([pictures[at] for at in distinct])[back], listing.shown, chosen)


class Rgb:
    """Frames of a stream as uint8 [H, W, 3]: to the bit as ffmpeg's program converts them, which knows interlaced
    colours and those of more than 8 bits."""

    def __init__(self, media: Media, stream: Stream):
        self.template = media.file.streams[stream.index]
        self.graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self.graph is None:
            self.graph = av.filter.Graph()
            self.graph.threads = 1
            self.graph.link_nodes(
                self.graph.add_buffer(template=self.template),
                self.graph.add("format", "rgb24"),
                self.graph.add("buffersink"),
            ).configure()
        self.graph.push(frame)
        converted: Any = self.graph.pull()
        return converted.to_ndarray()


def _picture(frame: av.VideoFrame, pixels: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Uint8 [size, size, 3], upright, of a frame and its pixels."""
    pixels, turned = upright(frame, pixels)
    return fit(pixels, wanted.size, 1 / wanted.pixel_aspect if turned else wanted.pixel_aspect)


class Listing:
    """The frames of a stream as the container lists them.

    Attributes:
        pts: int [frames], ascending: inside an edit list; what is outside is only decoded.
        shown: float [frames, 2]: seconds of the file's clock at which each appears and goes.
        keys: positions of the key frames.
        track: the packets.

    Raises:
        Undecided: the container does not tell the frames' times.
    """

    def __init__(self, media: Media, stream: Stream):
        self.track = track = media.tracks[stream.index]
        if media.is_damaged(stream) or not track.pts or None in track.pts:
            raise Undecided("a damaged packet, or one without a time")
        pts, hidden = np.array(track.pts), np.array(track.hidden)
        if len(set(track.pts)) < len(pts) or hidden.all():
            raise Undecided("packets that share a time, or are all hidden")
        self.pts = np.sort(pts[~hidden])
        (last,) = np.array(track.durations)[pts == self.pts[-1]]
        self.shown = seconds(self.pts, int(last), track.unit) - media.zero
        if "avi" in media.formats:
            placed = chunks(media, stream)
            if placed is None or media.reorders(stream):
                raise Undecided("an order that the container does not tell")
            self.shown = placed
        self.keys = np.flatnonzero(np.isin(self.pts, pts[np.array(track.keys)]))


def chunks(media: Media, stream: Stream) -> np.ndarray | None:
    """Float [frames, 2]: when frames of an AVI appear and go. It has no times but the places of the chunks, and
    FFmpeg's pts are guessed from these; ``None`` where a place is not told."""
    track = media.tracks[stream.index]
    if not track.dts or None in track.dts:
        return None
    places = np.sort(np.array(track.dts))
    return seconds(places, 1, track.unit) - media.zero


def needed(pts: np.ndarray, keys: np.ndarray, wanted: np.ndarray) -> list[tuple[int, int]]:
    """First and last packet (positions in decoding order) of the runs to decode for the ``wanted`` times.

    A frame needs all from its key frame on; one shown before that key frame needs the one before, too.
    """
    runs: list[tuple[int, int]] = []
    starts = np.flatnonzero(keys)
    for end in np.flatnonzero(np.isin(pts, wanted)):
        before = starts[(starts <= end) & (pts[starts] <= pts[end])]
        begin = int(before[-1]) if len(before) else 0
        while runs and begin <= runs[-1][1] + 1:
            begin = min(begin, runs.pop()[0])
        runs.append((begin, int(end)))
    return runs


def _decoded(media: Media, stream: Stream, listing: Listing, wanted: np.ndarray) -> Iterator[av.VideoFrame]:
    """The frames of these times, ascending within each run."""
    codec: Any = media.file.streams[stream.index].codec_context
    thin, times = codec.name in DISPOSABLE, set(wanted.tolist())
    codec.thread_count = 1
    runs = needed(np.array(listing.track.pts), np.array(listing.track.keys), wanted)
    for at, packet in _since(media, stream, listing.track, runs[0][0]):
        if at < runs[0][0]:  # between two runs
            continue
        codec.skip_frame = "NONREF" if thin and packet.pts not in times else "DEFAULT"
        shown = codec.decode(packet)
        if at == runs[0][1]:
            shown += codec.decode(None)
            codec.flush_buffers()
            runs.pop(0)
        for frame in shown:
            if frame.pts in times:
                if frame.is_corrupt or (frame.width, frame.height) != (stream.width, stream.height):
                    raise Undecided("a damaged frame, or one of another size")
                yield frame
        if not runs:
            return


def _since(media: Media, stream: Stream, track: Track, position: int) -> Iterator[tuple[int, Any]]:
    if not track.packets and media.joints:
        raise Undecided("a clock that starts anew")
    try:
        yield from media.since(stream, position)
    except LookupError as error:
        raise Undecided(str(error)) from None
