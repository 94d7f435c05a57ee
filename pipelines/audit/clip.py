"""One clip to its measures: a plain function, the same for a clip of a manifest and a sample of a shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.audit import picture, sound
from pipelines.audit.agreement import agreement
from pipelines.audit.streams import NO_FACTS, StreamFacts
from shards.schema import Frozen, SampleMeta, StreamInfo

SHOWN_QUANTILE = 0.98  # of the log-mel frames' levels: what counts as the loudest
MOST_FRAMES = 0.9  # of the frames: what "all frames" allows an odd one


@dataclass(frozen=True)
class AuditClip:
    """A clip as it is measured: what a media shard holds of it, and what only its file says.

    Attributes:
        fbank: log-mel [frames, 128], or ``None``.
        frames: uint8 [N, H, W, 3], or ``None``.
        wave: int16 [samples] at 16 kHz, where at hand.
        facts: of its file, where at hand.
    """

    meta: SampleMeta
    fbank: np.ndarray | None
    frames: np.ndarray | None
    wave: np.ndarray | None = None
    facts: StreamFacts = NO_FACTS


class Measures(Frozen):
    """What was measured of a clip; ``None``: it has no such stream, or it could not be measured.

    Attributes:
        audio_s, visual_s: seconds that the streams last.
        level_db: dB re full scale that 2 % of the log-mel frames exceed.
        variation: nepers; deviation of loud mel bins over time.
        clipped: share of samples on a plateau at the peak.
        mix_loss_db: dB that the mix of channels is weaker than they are.
        offset_s: seconds from the picture's beginning to the sound's.
        brightness: levels of 255 that 1 % of a frame exceeds, in the 90th percentile of frames.
        contrast: levels of 255; deviation within a frame, the highest.
        motion: levels of 255; change from a frame to the next, the highest.
        blur: 0 (sharp) to 1.
        agreement: of onsets and motion, -1 to 1; an estimate.
    """

    audio_s: float | None = None
    visual_s: float | None = None
    level_db: float | None = None
    variation: float | None = None
    clipped: float | None = None
    mix_loss_db: float | None = None
    offset_s: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    motion: float | None = None
    blur: float | None = None
    agreement: float | None = None


def measure(clip: AuditClip) -> Measures:
    """Measure a clip; the same clip gives the same values, to 5 digits."""
    found: dict[str, float | None] = {}
    small = picture.cells(clip.frames) if clip.frames is not None else None
    if clip.fbank is not None:
        found |= _of_sound(clip.fbank, clip.wave)
        found["audio_s"] = _seconds(clip.meta.audio, sound.seconds_of(clip.fbank))
    if clip.frames is not None and small is not None:
        found |= _of_picture(clip.frames, small)
        found["visual_s"] = clip.meta.visual.duration
    if clip.fbank is not None and small is not None:
        change = picture.mean_change(small)
        found["agreement"] = agreement(sound.onset_strength(clip.fbank), change, clip.meta.frame_times)
        found["offset_s"] = clip.facts.offset
    found["mix_loss_db"] = clip.facts.mix_loss
    return Measures(**{name: value if value is None else float(f"{value:.5g}") for name, value in found.items()})


def _of_sound(fbank: np.ndarray, wave: np.ndarray | None) -> dict[str, float | None]:
    return {
        "level_db": float(np.quantile(sound.frame_levels(fbank), SHOWN_QUANTILE)),
        "variation": sound.variation(fbank),
        "clipped": sound.clipped_share(wave) if wave is not None else None,
    }


def _of_picture(frames: np.ndarray, small: np.ndarray) -> dict[str, float | None]:
    moved = picture.motion(small)
    return {
        "brightness": float(np.quantile(picture.brightest(small), MOST_FRAMES)),
        "contrast": picture.contrast(small),
        "motion": float(moved.max()) if len(moved) else None,
        "blur": picture.blur(frames),
    }


def _seconds(info: StreamInfo, otherwise: float) -> float:
    return info.duration if info.duration is not None else otherwise
