"""The embedded corpus ``scenes-multi``: one to three performers a clip, each seen, heard, or both; several labels.

A clip's labels are all who are seen or heard, so that neither sense alone can name them all. What a clip holds
depends on (seed, clip number) alone.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import random_noise
from pipelines.corpora.synthetic.scenes import (
    SPLITS,
    ScenesConfig,
    random_background,
    random_object,
    random_sound,
    rng_of,
    write_scenes,
)

GENERATOR = "scenes-multi/1"  # change it with anything that changes the clips
SIZES = (0.4, 0.45, 0.15)  # probability of one, two, three performers
SENSES = {"both": 0.6, "seen": 0.2, "heard": 0.2}  # of each
PLACES = ((0.27, 0.28), (0.73, 0.28), (0.27, 0.72), (0.73, 0.72))  # x, y


class ScenesMultiConfig(ScenesConfig):
    """Clips of one to three drawn performers, each seen, heard or both: several labels a clip."""

    clips: int = pydantic.Field(ge=1)
    """How many; multiples of 10 give splits of exactly 70 / 10 / 20 %."""


def build(config: ScenesMultiConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Make ``clips/``, ``corpus.json`` and ``manifest.csv``; finished clips are kept."""
    scenes = [describe(config, number) for number in range(config.clips)]
    splits = [SPLITS[number % len(SPLITS)] for number in range(config.clips)]
    facts = {"name": "scenes-multi", "generator": GENERATOR, **config.content(), **_counts(scenes, splits)}
    manifest = write_scenes(out, scenes, splits, facts, config.jobs, progress)
    return Summary(config.clips, {"default": manifest}, lines=(f"{config.clips} clips: {manifest}",))


def describe(config: ScenesMultiConfig, number: int) -> dict[str, Any]:
    """The scene of clip ``number`` (JSON types alone)."""
    clip_id = f"multi-{number:06d}"
    rng = rng_of(config.seed, clip_id)
    count = 1 + int(rng.choice(len(SIZES), p=SIZES))
    members = [str(name) for name in rng.permutation(CLASSES)[:count]]
    senses = [str(sense) for sense in rng.choice(list(SENSES), size=count, p=list(SENSES.values()))]
    seen, heard = (
        [name for name, sense in zip(members, senses, strict=True) if sense in ("both", own)]
        for own in ("seen", "heard")
    )
    places = rng.permutation(len(PLACES)).tolist()
    return {
        "id": clip_id,
        "generator": GENERATOR,
        "seed": config.seed,
        "seconds": config.seconds,
        "size": config.size,
        "fps": config.fps,
        "labels": sorted(members),
        "objects": [_object(rng, name, PLACES[at], config.seconds) for name, at in zip(seen, places, strict=False)],
        "background": random_background(rng),
        "sounds": [random_sound(rng, name, name, config.seconds) for name in heard],
        "noise": random_noise(rng),
        "render_seed": int(rng.integers(2**32)),
    }


def _object(rng: np.random.Generator, name: str, place: tuple[float, float], seconds: float) -> dict[str, Any]:
    """A performer in a quarter of the frame."""
    x, y = (round(value + rng.uniform(-0.04, 0.04), 4) for value in place)
    where = {"x": x, "y": y, "size": round(rng.uniform(0.36, 0.46), 4)}
    drift = {name: round(rng.uniform(-0.03, 0.03) / seconds, 4) for name in ("drift_x", "drift_y")}
    return random_object(rng, name, name, seconds) | where | drift


def _counts(scenes: Sequence[dict[str, Any]], splits: Sequence[str]) -> dict[str, Any]:
    """What was drawn: classes, labels, splits, and the share of labels that each sense has."""
    labels = collections.Counter(itertools.chain.from_iterable(scene["labels"] for scene in scenes))
    total = labels.total()
    return {
        "classes": list(CLASSES),
        "labels": dict(sorted(labels.items())),
        "labels_seen": round(sum(len(scene["objects"]) for scene in scenes) / total, 4),
        "labels_heard": round(sum(len(scene["sounds"]) for scene in scenes) / total, 4),
        "splits": dict(sorted(collections.Counter(splits).items())),
    }
