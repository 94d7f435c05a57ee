"""Which clip lacks which modality at a missing rate: one seeded draw for all methods, nested in the rate."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.noise import generator
from models.settings import MODALITIES, Modality
from shards.atomic import replacing

Draws = Mapping[str, Mapping[Modality, float]]  # clip -> modality -> 0..1


def draw(seed: int, clips: Iterable[str], apart: bool = False) -> Draws:
    """A uniform number per clip and modality, from (seed, clip) alone: the clip lacks the modality at every
    rate above it, for all of its questions.

    Args:
        apart: the second modality's number is 1 less the first one's, so no clip lacks both at rates that add up to
            100 % or less; otherwise they are independent.
    """
    first, second = MODALITIES

    def of(clip: str) -> dict[Modality, float]:
        drawn = {m: float(generator("missing rate", seed, m, clip).random()) for m in (MODALITIES[: 2 - apart])}
        return {second: 1 - drawn[first], **drawn}

    return {clip: of(clip) for clip in clips}


def lost(drawn: float, rate: int) -> bool:
    """Whether a clip with this number lacks its modality at `rate` percent."""
    return 100 * drawn < rate


def lacking(draws: Draws, rates: Mapping[Modality, int], balanced: bool = False) -> dict[str, tuple[Modality, ...]]:
    """What each clip lacks at these rates (percent), for the clips that lack something.

    Args:
        balanced: those with the lowest numbers lack a modality, exactly the rate of them (rounded down), so equally
            many at equal rates; otherwise each clip for itself (`lost`).
    """
    gone = {m: _lowest(draws, m, rate) if balanced else _lost(draws, m, rate) for m, rate in rates.items()}
    found = {clip: tuple(m for m, clips in gone.items() if clip in clips) for clip in draws}
    return {clip: of for clip, of in found.items() if of}


def _lost(draws: Draws, modality: Modality, rate: int) -> set[str]:
    return {clip for clip, of in draws.items() if lost(of[modality], rate)}


def _lowest(draws: Draws, modality: Modality, rate: int) -> set[str]:
    ordered = sorted(draws, key=lambda clip: (draws[clip][modality], clip))
    return set(ordered[: rate * len(ordered) // 100])


def write_masks(path: Path, draws: Draws) -> None:
    """The masks of an evaluation, one line per clip."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", *(f"{m}_missing_above_percent" for m in MODALITIES)])
        writer.writerows([c, *(repr(100 * of[m]) for m in MODALITIES)] for c, of in draws.items())
