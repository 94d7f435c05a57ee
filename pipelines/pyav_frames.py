"""Frames through FFmpeg's libraries in this process: only what the wanted ones need is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import dropwhile
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from pipelines.audio import Span
from pipelines.ffmpeg import Probe
from pipelines.frames import Frames, check_size, fit, nearest, seconds, uniform

CODECS = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"}
DISPOSABLE = {"h264", "mpeg4", "mpeg2video", "mpeg1video"}  # no frame at all refers to those marked so
HELD = 64 << 20  # bytes: smaller files are read once


class Undecided(Exception):
    """Something is unusual or damaged: ffmpeg has the last word on this file."""


def is_supported(probe: Probe) -> bool:
    """Tilted, several and rarer streams go to ffmpeg."""
    videos = [stream for stream in probe.streams if stream.kind == "video"]
    return len(videos) == 1 and videos[0].codec in CODECS and videos[0].rotation % 90 == 0


def by_pyav(
    path: str, probe: Probe, span: Span, count: int, size: int, *, max_pixels: int, key_frames: bool = False
) -> Frames:
    """Uniform frames, to the bit those of decoding everything, or the key frames nearest to them; one thread.

    Groups of pictures without a wanted frame are left out, and so are other frames to which none refers.
    ``by_ffmpeg`` gives the same bits for colours of 8 bits; it rounds deeper ones otherwise.

    Raises:
        Exception: Undecided, or whatever FFmpeg meets; it can also crash or hang: call it where it may.
    """
    av.logging.set_level(av.logging.ERROR)
    options = {"protocol_whitelist": "file"}
    with (
        av.logging.Capture() as complaints,
        av.open(f"file:{path}", options=options, metadata_errors="ignore") as file,
    ):
        (stream,) = (s for s in file.streams.video if not s.disposition & Disposition.attached_pic)
        check_size(stream.width, stream.height, max_pixels)
        packets = _Packets(file, stream, hold=os.path.getsize(path) <= HELD)
        shown = packets.shown() - probe.start
        chosen = uniform(shown, span, count)
        if key_frames:
            keys = np.flatnonzero(np.isin(packets.listed, packets.pts[packets.keys]))
            chosen = keys[nearest(shown[keys, 0], shown[chosen, 0])]
        distinct, back = np.unique(packets.listed[chosen], return_inverse=True)
        turns = probe.first("video").rotation // 90  # type: ignore[union-attr]
        pictures = {f.pts: fit(_upright(f, turns), size) for f in _decoded(packets, distinct)}
    if complaints or len(pictures) != len(distinct):
        raise Undecided(str(complaints[:1] or "a frame that is listed is not shown"))
    images = np.stack([pictures[at] for at in distinct])[back]
    return Frames(images, tuple(float(shown[i, 0]) for i in chosen), float(shown[-1, 1]))


def _upright(frame: av.VideoFrame, turns: int) -> np.ndarray:
    """Uint8 [H, W, 3], turned counterclockwise by so many right angles."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
        if a * d < b * c:
            raise Undecided("mirrored")
    return np.rot90(frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), turns)  # bicubic as ffmpeg's


class _Packets:
    """All packets of a stream in decoding order; their data too, of a small file.

    Attributes:
        pts: int [packets], when each is shown.
        keys: bool [packets], whether everything after it can be decoded without what came before.
        listed: int [frames], ascending: the ``pts`` inside an edit list; what is outside is only decoded.
    """

    def __init__(self, file: Any, stream: Any, hold: bool):
        self.file, self.stream, self.held = file, stream, []
        facts = []
        for packet in file.demux(stream):
            if packet.size:
                facts.append((packet.pts, packet.is_keyframe, packet.is_discard, packet.duration or 0))
                self.held += [packet] if hold else []
                if packet.is_corrupt or packet.pts is None:
                    raise Undecided("a damaged packet, or one without a time")
        if not facts:
            raise Undecided("no packets")
        self.pts, self.keys, hidden, self.durations = map(np.array, zip(*facts, strict=True))
        self.listed = np.sort(self.pts[~hidden])
        if len(set(self.pts)) < len(self.pts) or not len(self.listed):
            raise Undecided("packets that share a time, or are all hidden")

    def shown(self) -> np.ndarray:
        """Float [frames, 2], ascending: seconds of the file's clock at which each frame appears and goes."""
        (last,) = self.durations[self.pts == self.listed[-1]]
        return seconds(self.listed, int(last), float(self.stream.time_base))

    def since(self, begin: int) -> Iterator[tuple[int, Any]]:
        """The packets from that one on, with their positions.

        Raises:
            Undecided: the container does not lead there.
        """
        coming: Iterator[Any] = iter(self.held[begin:])
        if not self.held:
            self.file.seek(int(self.pts[begin]), stream=self.stream)
            coming = dropwhile(lambda packet: packet.pts != self.pts[begin], self.file.demux(self.stream))
        for at, packet in enumerate(coming, begin):
            if packet.pts != self.pts[at]:
                raise Undecided("seeking leads elsewhere")
            yield at, packet


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


def _decoded(packets: _Packets, wanted: np.ndarray) -> Iterator[av.VideoFrame]:
    """The frames of these times, ascending within each run."""
    stream, times = packets.stream, set(wanted.tolist())
    codec, thin = stream.codec_context, stream.codec_context.name in DISPOSABLE
    codec.thread_count = 1
    runs = needed(packets.pts, packets.keys, wanted)
    for at, packet in packets.since(runs[0][0]):
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
