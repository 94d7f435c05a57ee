"""Measures to flags, by the config's thresholds."""

from __future__ import annotations

from pipelines.audit.clip import Measures
from pipelines.audit.settings import AuditConfig

NEEDS = {  # flag -> the measures that it needs, by the stream that has to be there
    "clipped": ("audio", "clipped"),
    "cancelled_stereo": ("audio", "mix_loss_db"),
    "clock_offset": ("both", "offset_s"),
    "short_visual": ("visual", "visual_s"),
    "frozen": ("visual", "motion"),
    "length_differs": ("both", "visual_s"),
}


def flags_of(found: Measures, config: AuditConfig) -> tuple[str, ...]:
    """Names of the flags that a clip has by itself, in the order of `shards.audit_file.FLAGS`.

    The reason goes first: a mix that cancels itself is not called silent, what is silent or black not constant,
    blurred or frozen.
    """
    cancelled, black = _above(found.mix_loss_db, config.cancelled_db), _below(found.brightness, config.black)
    silent = not cancelled and _below(found.level_db, config.silence_db)
    uniform = not black and _below(found.contrast, config.flat) and not _above(found.motion, config.flat)
    dull = black or uniform
    holds = {
        "silent": silent,
        "constant_audio": not (silent or cancelled) and _below(found.variation, config.steady),
        "clipped": not silent and _above(found.clipped, config.clipped),
        "cancelled_stereo": cancelled,
        "short_audio": _below(found.audio_s, config.short_s),
        "black": black,
        "constant_visual": uniform,
        "frozen": not dull and _below(found.motion, config.frozen),
        "blurred": not dull and _above(found.blur, config.blurred),
        "short_visual": _below(found.visual_s, config.short_s),
        "length_differs": _apart(found, config.length_s),
        "clock_offset": found.offset_s is not None and abs(found.offset_s) > config.offset_s,
        "low_agreement": config.agreement is not None and _below(found.agreement, config.agreement),
    }
    return tuple(name for name, true in holds.items() if true)


def unchecked(found: Measures) -> tuple[str, ...]:
    """Flags that could not be decided, though the clip has the streams."""
    there = {"audio": found.level_db is not None, "visual": found.brightness is not None}
    there["both"] = there["audio"] and there["visual"]
    return tuple(flag for flag, (stream, name) in NEEDS.items() if there[stream] and getattr(found, name) is None)


def comparable(flags: tuple[str, ...]) -> tuple[bool, bool]:
    """Whether the sound, and the picture, hold enough to be a duplicate of another clip's."""
    found = set(flags)
    empty_sound, empty_picture = {"silent", "constant_audio", "cancelled_stereo"}, {"black", "constant_visual"}
    return not found & empty_sound, not found & empty_picture


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _apart(found: Measures, limit: float) -> bool:
    return found.audio_s is not None and found.visual_s is not None and abs(found.audio_s - found.visual_s) > limit
