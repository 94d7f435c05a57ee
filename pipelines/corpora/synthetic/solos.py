"""The embedded corpus ``solos``: one second of one small performer, anywhere in the frame, seen and heard.

A classifier of them gives features of a second and a place, which then serve the ensembles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from pipelines.corpora.corpus import EncodedConfig, StartProgress, Summary
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import LEVELS, part_of, random_cells, random_noise, small_object
from pipelines.corpora.synthetic.scenes import class_of, random_background, rng_of, split_of, write_scenes

GENERATOR = "solos/1"  # change it with anything that changes the clips
DISTRACTED = 0.3  # probability that a solo has a silent bystander, and (drawn apart) a quieter unseen sound


class SolosConfig(EncodedConfig):
    """A second of one small performer, to learn the features of ensembles from."""

    clips: int = pydantic.Field(ge=1)
    """How many; multiples of 80 give splits of exactly 70 / 10 / 20 % with all classes equal."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of everything that is drawn."""
    size: int = pydantic.Field(default=96, ge=64, multiple_of=2)
    """Width and height in pixels."""
    fps: int = pydantic.Field(default=4, ge=1, le=60)
    """Frames per second."""


def build(config: SolosConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Make ``clips/``, ``corpus.json`` and ``manifest.csv``; finished clips are kept."""
    scenes = [describe(config, number) for number in range(config.clips)]
    splits = [split_of(config.seed, number) for number in range(config.clips)]
    facts = {
        "name": "solos",
        "generator": GENERATOR,
        "clips": config.clips,
        "seed": config.seed,
        "seconds": 1.0,
        "size": config.size,
        "fps": config.fps,
        "classes": list(CLASSES),
        "distracted": DISTRACTED,
    }
    manifest = write_scenes(out, scenes, splits, facts, config.jobs, progress)
    return Summary(config.clips, {"default": manifest}, lines=(f"{config.clips} clips: {manifest}",))


def describe(config: SolosConfig, number: int) -> dict[str, Any]:
    """The scene of solo ``number``: a second of one class, seen and heard, at times with a distractor.

    The label is what is both seen and heard; a distractor is seen or heard, never both.
    """
    clip_id = f"solo-{number:06d}"
    rng = rng_of(config.seed, clip_id)
    name = class_of(config.seed, number)
    bystander, noise_maker = rng.permutation([other for other in CLASSES if other != name])[:2].tolist()
    seen = [name, bystander] if rng.random() < DISTRACTED else [name]
    cells = random_cells(rng, len(seen))
    level = rng.uniform(LEVELS[-1], LEVELS[0])
    parts = [part_of(rng, name, (0, 1), level, 1.0)]
    if rng.random() < DISTRACTED:
        parts.append(part_of(rng, noise_maker, (0, 1), level - rng.uniform(6, 15), 1.0))
    return {
        "id": clip_id,
        "generator": GENERATOR,
        "seed": config.seed,
        "seconds": 1.0,
        "size": config.size,
        "fps": config.fps,
        "labels": [name],
        "objects": [small_object(rng, who, cell, 1.0) for who, cell in zip(seen, cells, strict=True)],
        "background": random_background(rng),
        "sounds": parts,
        "noise": random_noise(rng),
        "render_seed": int(rng.integers(2**32)),
    }
