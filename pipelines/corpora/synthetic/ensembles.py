"""Scenes of one to four performers: what they look and sound like, from (seed, clip number).

An *ensemble* is a scene (see :mod:`pipelines.corpora.synthetic.scenes`) of several small objects, each in a cell of
its own of three columns (left, middle, right) and two rows. Every class looks and sounds like itself. Sound
and picture inform each other: who is seen sounds with probability `SOUNDS`, and twins (two of a class)
play together, as one sound; now and then somebody is heard who is not in the picture. Everybody has their own
loudness and plays from one whole second to another, so a step of a second tells who plays in it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pydantic

from pipelines.corpora.corpus import EncodedConfig
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.scenes import SPLITS, random_background, random_object, rng_of
from pipelines.corpora.synthetic.sound import NOISES
from pipelines.corpora.synthetic.timbres import TIMBRES

GENERATOR = "ensembles/1"  # change it with anything that changes the clips
SOUNDS = 0.85  # probability that a class in the picture sounds
TOTALS = (0.15, 0.25, 0.3, 0.3)  # probabilities of one to four performers
UNSEEN = 0.2  # probability that one of several performers is heard only
TWIN = 0.25  # probability that a further performer is a second one of a class
TOGETHER = 0.25  # probability that all begin at once
IN_A_ROW = 0.5  # probability that up to three are all in columns of their own
TO_THE_END = 0.5  # probability that a performer plays to the end
COLUMNS, ROWS = (1 / 6, 1 / 2, 5 / 6), (0.27, 0.73)
PLACES = ("left", "middle", "right")
LEVELS = (-22.0, -28.0, -34.0, -40.0)  # dB re full scale while playing, in random order, +- 0.75


class EnsemblesConfig(EncodedConfig):
    """Scenes of several performers, with questions about them."""

    clips: int = pydantic.Field(ge=1)
    """How many; multiples of 10 give splits of exactly 70 / 10 / 20 %."""
    questions: int = pydantic.Field(
        default=5, ge=1, le=9, validation_alias=pydantic.AliasChoices("questions", "per_clip")
    )
    """Most questions about a clip, no two of a kind."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of everything that is drawn."""
    seconds: float = pydantic.Field(default=5.0, ge=4, le=60, multiple_of=1)
    """Length of a clip in seconds."""
    size: int = pydantic.Field(default=96, ge=64, multiple_of=2)
    """Width and height in pixels."""
    fps: int = pydantic.Field(default=4, ge=1, le=60)
    """Frames per second."""


def split_of(number: int) -> str:
    """The split of ensemble ``number``: of ten in turn 7 train, 1 val, 2 test."""
    return SPLITS[number % len(SPLITS)]


def describe_ensemble(config: EnsemblesConfig, number: int) -> dict[str, Any]:
    """The scene of ensemble ``number`` (JSON types alone), with the ground truth that questions need.

    Beside what any scene holds, an object has its ``place`` (left, middle, right), a sound ``start_s`` and
    ``end_s`` (seconds) and ``playing_db``, its loudness while it plays.
    """
    clip_id = f"ensemble-{number:06d}"
    rng = rng_of(config.seed, clip_id)
    seen, heard = _cast(rng)
    return scene_of(rng, clip_id, GENERATOR, config, seen, heard)


class Format(Protocol):
    """What a scene needs of its corpus's config."""

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""

    @property
    def seconds(self) -> float:
        """Length of a clip."""

    @property
    def size(self) -> int:
        """Width and height in pixels."""

    @property
    def fps(self) -> int:
        """Frames per second."""


def scene_of(
    rng: np.random.Generator,
    clip_id: str,
    generator: str,
    config: Format,
    seen: list[str],
    heard: list[str],
    in_a_row: float = IN_A_ROW,
) -> dict[str, Any]:
    """The scene of a cast: who is seen (a class once or twice), and which classes are heard."""
    cells = random_cells(rng, len(seen), in_a_row)
    times = random_times(rng, len(heard), round(config.seconds))
    levels = random_levels(rng, len(heard))
    return {
        "id": clip_id,
        "generator": generator,
        "seed": config.seed,
        "seconds": config.seconds,
        "size": config.size,
        "fps": config.fps,
        "labels": sorted({*seen, *heard}),
        "objects": [small_object(rng, name, cell, config.seconds) for name, cell in zip(seen, cells, strict=True)],
        "background": random_background(rng),
        "sounds": [
            part_of(rng, name, time, level, config.seconds)
            for name, time, level in zip(heard, times, levels, strict=True)
        ],
        "noise": random_noise(rng),
        "render_seed": int(rng.integers(2**32)),
    }


def _cast(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Who is seen (a class once or twice) and which classes are heard: one to four performers in all."""
    total = int(rng.choice(len(TOTALS), p=TOTALS)) + 1
    fresh = rng.permutation(CLASSES).tolist()
    unseen = [fresh.pop()] if total > 1 and rng.random() < UNSEEN else []
    seen: list[str] = []
    for _ in range(total - len(unseen)):
        single = [name for name in seen if seen.count(name) == 1]
        twin = bool(single) and rng.random() < TWIN
        seen.append(str(rng.choice(single)) if twin else fresh.pop())
    classes = list(dict.fromkeys(seen))
    heard = [name for name in classes if rng.random() < SOUNDS] + unseen
    return seen, heard or [str(rng.choice(classes))]


def random_cells(rng: np.random.Generator, count: int, in_a_row: float = IN_A_ROW) -> list[int]:
    """A cell for each of ``count`` objects, 0 to 5, row by row; ``in_a_row``: see `IN_A_ROW`."""
    if count <= len(COLUMNS) and rng.random() < in_a_row:
        columns = rng.permutation(len(COLUMNS))[:count]
        return [int(len(COLUMNS) * rng.integers(len(ROWS)) + column) for column in columns]
    return rng.permutation(len(COLUMNS) * len(ROWS))[:count].tolist()


def random_times(rng: np.random.Generator, count: int, seconds: int) -> list[tuple[int, int]]:
    """When each of ``count`` plays, (start, end) in whole seconds: all begin at once, or each apart."""
    together = rng.random() < TOGETHER
    starts = [0] * count if together else rng.permutation(max(seconds - 1, count))[:count].tolist()
    return [
        (start, seconds if rng.random() < TO_THE_END else int(rng.integers(start + 1, seconds + 1))) for start in starts
    ]


def random_levels(rng: np.random.Generator, count: int) -> np.ndarray:
    """The loudness of each of ``count`` while playing, in dB re full scale."""
    return rng.permutation(LEVELS)[:count] + rng.uniform(-0.75, 0.75, count)


def small_object(rng: np.random.Generator, name: str, cell: int, seconds: float) -> dict[str, Any]:
    """An object in a cell: a third of the frame wide at most, so neighbours do not touch."""
    row, column = divmod(cell, len(COLUMNS))
    where = {
        "x": round(COLUMNS[column] + rng.uniform(-0.015, 0.015), 4),
        "y": round(ROWS[row] + rng.uniform(-0.07, 0.07), 4),
        "size": round(rng.uniform(0.27, 0.33), 4),
        "drift_x": round(rng.uniform(-0.015, 0.015) / seconds, 4),
        "drift_y": round(rng.uniform(-0.03, 0.03) / seconds, 4),
    }
    return random_object(rng, name, name, seconds) | where | {"place": PLACES[column]}


def part_of(rng: np.random.Generator, name: str, time: tuple[int, int], level: float, seconds: float) -> dict[str, Any]:
    """A sound from one whole second to another; ``level`` is its loudness while it plays, in dB."""
    voice, (start, end) = TIMBRES[name], time
    low, high = np.log(voice.pitch)
    return {
        "class": name,
        "timbre": name,
        "pitch_hz": round(float(np.exp(rng.uniform(low, high))), 2),
        "onsets_s": _onsets(rng, voice.gap, start, end),
        "start_s": start,
        "end_s": end,
        "playing_db": round(float(level), 2),
        "loudness_db": round(float(level + 10 * np.log10((end - start) / seconds)), 2),
    }


def _onsets(rng: np.random.Generator, gap: tuple[float, float], start: int, end: int) -> list[float]:
    onsets, at = [], start + rng.uniform(0.01, 0.2)
    while at <= end - 0.25:
        onsets.append(round(float(at), 4))
        at += rng.uniform(*gap)
    return onsets


def random_noise(rng: np.random.Generator) -> dict[str, Any]:
    """A background noise far below the performers."""
    return {"colour": str(rng.choice(list(NOISES))), "loudness_db": round(rng.uniform(-62, -50), 2)}
