"""Which clip lacks which modality at a missing rate: one seeded draw for all methods, nested in the rate."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.noise import generator
from models.settings import MODALITIES, Modality

Draws = Mapping[str, Mapping[Modality, float]]  # clip -> modality -> 0..1


def draw(seed: int, clips: Iterable[str]) -> Draws:
    """A uniform number per clip and modality, from (seed, clip) alone: the clip lacks the modality at every
    rate above it, for all of its questions."""
    return {c: {m: float(generator("missing rate", seed, m, c).random()) for m in MODALITIES} for c in clips}


def lost(drawn: float, rate: int) -> bool:
    """Whether a clip with this number lacks its modality at `rate` percent."""
    return 100 * drawn < rate


def write_masks(path: Path, draws: Draws) -> None:
    """The masks of an evaluation, one line per clip."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["clip", *(f"{m}_missing_above_percent" for m in MODALITIES)])
        writer.writerows([c, *(repr(100 * of[m]) for m in MODALITIES)] for c, of in draws.items())
