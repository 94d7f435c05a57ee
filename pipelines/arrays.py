"""Sound and pictures that are already in memory, made into a clip as files are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from pipelines.audio import SAMPLE_RATE, Resampler, Run, Sound, Span, mixed
from pipelines.decode import Decoded, lost
from pipelines.frames import check_size, fit
from pipelines.settings import IngestConfig
from shards.causes import Cause
from shards.errors import InputError
from shards.schema import StreamInfo

LAYOUTS = {1: "mono", 2: "stereo"}


def decoded_arrays(
    audio: np.ndarray | None, sample_rate: float | None, frames: np.ndarray | None, config: IngestConfig
) -> Decoded:
    """A clip of arrays, with what decoding a file with the same samples would have given.

    Args:
        audio: [samples] or [channels, samples], one or two channels; int16, or float of -1..1.
        sample_rate: Hz.
        frames: uint8 [N, H, W, 3] RGB, at even distances over the whole clip; one is a still picture.

    Raises:
        InputError: arrays of another shape or type, values that are no numbers, or neither.
        DecodeError: beyond `max_seconds` or `max_pixels`.
    """
    if audio is None and frames is None:
        raise InputError("neither sound nor picture", field="audio", remedy="give audio=, frames= or both")
    sound = None if audio is None else _sound(audio, sample_rate, config)
    images = None if frames is None else _images(frames, config)
    seconds = None if sound is None else round(len(sound.samples) / SAMPLE_RATE, 3)
    rate = None if sample_rate is None else float(sample_rate)
    heard = StreamInfo(present=True, rate=rate, duration=seconds) if sound else lost(Cause.ABSENT)
    moving = images is not None and len(images) > 1
    seen = StreamInfo(present=True, duration=seconds if moving else None) if frames is not None else lost(Cause.ABSENT)
    digest = hashlib.sha256()
    for array in (audio, frames):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return Decoded(sound.samples if sound else None, images, heard, seen, (), digest.hexdigest())


def _sound(audio: np.ndarray, sample_rate: float | None, config: IngestConfig) -> Sound:
    """Int16 at 16 kHz of one channel, by the resampler that files go through."""
    values = np.atleast_2d(np.asarray(audio))
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    if values.ndim != 2 or values.dtype not in (np.int16, np.float32) or len(values) not in LAYOUTS:
        message = f"{values.dtype} {list(np.shape(audio))} is no sound of one or two channels"
        remedy = "give [samples] or [channels, samples], int16 or float of -1..1"
        raise InputError(message, field="audio", remedy=remedy)
    if not values.size or not np.isfinite(values).all():
        raise InputError("no samples, or some that are no numbers", field="audio", remedy="give finite samples")
    if sample_rate is None or not 0 < sample_rate < 1 << 31 or sample_rate != int(sample_rate):
        raise InputError(f"{sample_rate} is no sample rate", field="sample_rate", remedy="give the sound's, in Hz")
    return mixed(lambda way: _runs(values, int(sample_rate), way), Span(), config.channel, config.max_seconds)


def _runs(values: np.ndarray, rate: int, way: str) -> Iterator[Run]:
    form = "s16p" if values.dtype == np.int16 else "fltp"
    frame: Any = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=form, layout=LAYOUTS[len(values)])
    frame.sample_rate = rate
    resampler = Resampler(way)
    yield from resampler.add(frame, 0.0, {})
    yield from resampler.close()


def _images(frames: np.ndarray, config: IngestConfig) -> np.ndarray:
    """Those in the middles of `config.frames` equal parts, uint8 [N, size, size, 3]."""
    images = np.asarray(frames)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        message = f"{images.dtype} {list(images.shape)} are no pictures"
        raise InputError(message, field="frames", remedy="give uint8 [N, H, W, 3], RGB")
    check_size(images.shape[2], images.shape[1], config.max_pixels)
    count = 1 if len(images) == 1 else config.frames
    chosen = ((np.arange(count) + 0.5) * len(images) / count).astype(int)
    return np.stack([fit(images[i], config.image_size) for i in chosen])
