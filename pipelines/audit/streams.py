"""What only a clip's file says: when its streams begin, and whether its channels cancel each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.audio import SAMPLE_RATE, Span
from pipelines.causes import DecodeError
from pipelines.container import Stream, open_media
from pipelines.ffmpeg import run, source, to_pipe

LOUDEST_LOSS = 99.0  # dB, of a mix in which nothing is left
QUIET = 1e-8  # of full-scale power: -80 dB, below which channels are silent


@dataclass(frozen=True)
class StreamFacts:
    """Facts of a file that its decoded streams do not hold; ``None`` where they could not be had.

    Attributes:
        offset: seconds from the picture's first packet to the sound's, by the file's clock.
        mix_loss: dB that the mean of the channels is weaker than they are: 0 for equal ones, 3 for unrelated.
    """

    offset: float | None = None
    mix_loss: float | None = None


NO_FACTS = StreamFacts()


def stream_facts(path: str, span: Span, *, max_seconds: float, timeout: float) -> StreamFacts:
    """Of the sound and picture of a file that are ingested; an ffmpeg of its own reads the channels, and is ended after
    ``timeout`` s.

    The offset is that of the whole file, also where the clip is a piece of it. A file that FFmpeg can't read
    has no facts; decoding it says why.
    """
    piece = {"ss": span.start, "t": min(span.duration or max_seconds, max_seconds)}
    try:
        with open_media(path) as media:
            sound, picture = media.first("audio"), media.first("video")
        if sound is None:
            return NO_FACTS
        graph = to_pipe(source(**piece), sound.index, format="s16le", ac=2, ar=SAMPLE_RATE)
        out, _, status = run(graph, path, timeout)
    except DecodeError:
        return NO_FACTS
    stereo = np.frombuffer(out[: len(out) // 4 * 4], np.int16).reshape(-1, 2).astype(np.float32) / 32768
    return StreamFacts(_offset(sound, picture), mix_loss(stereo) if status == 0 else None)


def _offset(sound: Stream, picture: Stream | None) -> float | None:
    """Seconds from the picture's beginning to the sound's, as the container has them."""
    if picture is None or picture.begin is None or sound.begin is None:
        return None
    return sound.begin - picture.begin


def mix_loss(stereo: np.ndarray) -> float | None:
    """dB that the mean of two channels [samples, 2] in [-1, 1] is weaker than they are; ``None`` of silence."""
    channels = float((stereo**2).mean()) if len(stereo) else 0.0
    if channels < QUIET:
        return None
    mix = float((stereo.mean(axis=1) ** 2).mean())
    return float(min(10 * np.log10(channels / max(mix, 1e-12)), LOUDEST_LOSS))
