"""The embedded corpus ``scenes``: drawn objects that sound, as real mp4 files with their ground truth.

A scene is a JSON object that says everything about a clip, in units of the frame (0 to 1, y down), Hz,
seconds and dB re full scale: ``objects`` and ``sounds`` are lists, so scenes may hold several of each.
It depends on (seed, clip number) alone: clip 7 of 100 is clip 7 of 10,000. What a clip looks like beyond
its look, and sounds like beyond its timbre, is drawn independently of the class, or either sense alone
could beat its ceiling (which is also why objects do not move to their sound).
"""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from pipelines.corpora.build import build_clips
from pipelines.corpora.corpus import EncodedConfig, StartProgress, Summary
from pipelines.corpora.encode import encode_clip
from pipelines.corpora.synthetic import design
from pipelines.corpora.synthetic.appearance import HUES
from pipelines.corpora.synthetic.drawing import TEXTURES, colour, draw
from pipelines.corpora.synthetic.sound import NOISES, synthesise
from pipelines.corpora.synthetic.timbres import TIMBRES, Timbre
from pipelines.manifest import write_manifest
from shards.atomic import write_text

GENERATOR = "scenes/1"  # change it with anything that changes the clips, so that old ones are made anew
# Ten clips of a class in turn: 70 / 10 / 20 %. The first is always train, so no class is in test alone.
SPLITS = ("train", "test", "train", "train", "val", "train", "train", "test", "train", "train")


class ScenesConfig(EncodedConfig):
    """Drawn objects that sound, one a clip, with their ground truth."""

    clips: int = pydantic.Field(ge=1)
    """How many; multiples of 80 give splits of exactly 70 / 10 / 20 % with all classes equal."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of everything that is drawn."""
    seconds: float = pydantic.Field(default=2.0, ge=1, le=600)
    """Length of a clip in seconds."""
    size: int = pydantic.Field(default=96, ge=32, multiple_of=2)
    """Width and height in pixels."""
    fps: int = pydantic.Field(default=8, ge=1, le=60)
    """Frames per second."""


def build(config: ScenesConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Make the corpus in ``out``: ``clips/<id>.mp4`` and ``.json``, ``corpus.json``, ``manifest.csv``.

    Finished clips of the same description are kept, so a killed build resumes. The manifest comes last.
    """
    scenes = [describe(config, number) for number in range(config.clips)]
    splits = [split_of(config.seed, number) for number in range(config.clips)]
    manifest = write_scenes(out, scenes, splits, _facts(config, scenes, splits), config.jobs, progress)
    return Summary(config.clips, {"default": manifest}, lines=(f"{config.clips} clips: {manifest}",))


def write_scenes(
    out: str | Path,
    scenes: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    facts: Mapping[str, Any],
    jobs: int | None,
    progress: StartProgress,
) -> Path:
    """Encode scenes to ``clips/``, write ``facts`` as ``corpus.json`` and then ``manifest.csv``; return its path."""
    out = Path(out)
    with progress(len(scenes)) as line:
        build_clips(out / "clips", scenes, encode_scene, jobs=jobs, advance=line.advance)
    write_text(out / "corpus.json", json.dumps(facts, indent=1) + "\n")
    rows = [
        {"id": scene["id"], "path": f"clips/{scene['id']}.mp4", "label": scene["labels"], "split": split}
        for scene, split in zip(scenes, splits, strict=True)
    ]
    write_manifest(out / "manifest.csv", rows)
    return out / "manifest.csv"


def encode_scene(scene: Mapping[str, Any], path: Path) -> None:
    """Draw, synthesise and encode one scene to the mp4 file ``path``."""
    encode_clip(path, draw(scene), scene["fps"], synthesise(scene), scene["size"])


def class_of(seed: int, number: int) -> str:
    """The class of clip ``number``: every 8 clips in a row hold every class once, in random order."""
    block, place = divmod(number, len(design.CLASSES))
    order = rng_of(seed, f"classes-{block}").permutation(len(design.CLASSES))
    return design.CLASSES[order[place]]


def split_of(seed: int, number: int) -> str:
    """The split of clip ``number``: stratified by class, whatever the number of clips."""
    turn = number // len(design.CLASSES)  # how many clips of this class came before
    if turn % 10 == 0:
        return SPLITS[0]
    shift = design.CLASSES.index(class_of(seed, number))  # so that small corpora have all splits, too
    return SPLITS[1 + (turn % 10 - 1 + shift) % 9]


def describe(config: ScenesConfig, number: int) -> dict[str, Any]:
    """The scene of clip ``number``: one object and one sound of one class (JSON types alone)."""
    clip_id = f"scene-{number:06d}"
    rng = rng_of(config.seed, clip_id)
    name = class_of(config.seed, number)
    look = name if rng.random() < design.OWN else design.appearances(design.SHARED_LOOKS)[name]
    timbre = name if rng.random() < design.OWN else design.appearances(design.SHARED_SOUNDS)[name]
    sound = random_sound(rng, name, timbre, config.seconds)
    return {
        "id": clip_id,
        "generator": GENERATOR,
        "seed": config.seed,
        "seconds": config.seconds,
        "size": config.size,
        "fps": config.fps,
        "labels": [name],
        "objects": [random_object(rng, name, look, config.seconds)],
        "background": random_background(rng),
        "sounds": [sound],
        "noise": {
            "colour": str(rng.choice(list(NOISES))),
            "loudness_db": round(sound["loudness_db"] - rng.uniform(12, 30), 2),
        },
        "render_seed": int(rng.integers(2**32)),
    }


def random_object(rng: np.random.Generator, name: str, look: str, seconds: float) -> dict[str, Any]:
    """One large object near the middle of the frame, its pose and colours drawn."""
    size = rng.uniform(0.62, 0.88)
    free = (1 - size) / 2 + 0.03  # it may leave the frame by a little
    hue = HUES[look] + rng.uniform(-0.11, 0.11)
    return {
        "class": name,
        "look": look,
        "x": round(0.5 + rng.uniform(-free, free), 4),
        "y": round(0.5 + rng.uniform(-free, free), 4),
        "size": round(size, 4),
        "angle": round(rng.uniform(-12, 12), 2),
        "flip": int(rng.choice([-1, 1])),
        "colour": colour(hue, rng.uniform(0.5, 1), rng.uniform(0.5, 0.75)),
        "accent": colour(hue + rng.uniform(0.35, 0.65), 0.8, rng.uniform(0.25, 0.35)),
        "drift_x": round(rng.uniform(-0.06, 0.06) / seconds, 4),
        "drift_y": round(rng.uniform(-0.06, 0.06) / seconds, 4),
        "sway_degrees": round(rng.uniform(0, 6), 2),
        "sway_hz": round(rng.uniform(0.4, 1.2), 3),
        "sway_phase": round(rng.random(), 3),
    }


def random_background(rng: np.random.Generator) -> dict[str, Any]:
    """A still background, darker than the objects."""
    lightness, hue, contrast = rng.uniform(0.12, 0.32), rng.random(), rng.uniform(0.03, 0.1)
    return {
        "texture": str(rng.choice(TEXTURES)),
        "colours": [
            colour(hue + shift, rng.uniform(0.1, 0.5), lightness + sign * contrast)
            for shift, sign in ((0, -1), (rng.uniform(-0.2, 0.2), 1))
        ],
        "angle": round(rng.uniform(0, 180), 2),
        "period": round(rng.uniform(0.12, 0.4), 4),
        "phase": round(rng.uniform(0, 6.28), 3),
        "brightness": round(rng.uniform(0.75, 1.15), 3),
    }


def random_sound(rng: np.random.Generator, name: str, timbre: str, seconds: float) -> dict[str, Any]:
    """Notes of one timbre over the whole clip."""
    voice = TIMBRES[timbre]
    low, high = np.log(voice.pitch)
    return {
        "class": name,
        "timbre": timbre,
        "pitch_hz": round(float(np.exp(rng.uniform(low, high))), 2),
        "onsets_s": _onsets(rng, voice, seconds),
        "loudness_db": round(rng.uniform(-37, -25), 2),
    }


def _onsets(rng: np.random.Generator, voice: Timbre, seconds: float) -> list[float]:
    onsets, at = [], rng.uniform(0.02, 0.3)
    last = seconds - min(0.4, voice.length)  # a note that starts later would be cut before it is heard
    while at <= last:
        onsets.append(round(at, 4))
        at += rng.uniform(*voice.gap)
    return onsets


def _facts(config: ScenesConfig, scenes: list[dict[str, Any]], splits: list[str]) -> dict[str, Any]:
    looks, sounds = design.appearances(design.SHARED_LOOKS), design.appearances(design.SHARED_SOUNDS)
    return {
        "name": "scenes",
        "generator": GENERATOR,
        **config.content(),
        "classes": list(design.CLASSES),
        "own_probability": design.OWN,
        "shared_looks": looks,
        "shared_sounds": sounds,
        "bayes_ceilings": asdict(design.ceilings()),
        "ceilings_drawn": {split: _drawn(scenes, splits, split) for split in sorted(set(splits))},
        "splits": dict(sorted(collections.Counter(splits).items())),
    }


def _drawn(scenes: list[dict[str, Any]], splits: list[str], split: str) -> dict[str, float]:
    """The Bayes rule's expected accuracy on the clips drawn: 1 for an own look (sound), 1/2 for a shared."""
    chosen = [scene for scene, name in zip(scenes, splits, strict=True) if name == split]
    visual = [1.0 if scene["objects"][0]["look"] in scene["labels"] else 0.5 for scene in chosen]
    audio = [1.0 if scene["sounds"][0]["timbre"] in scene["labels"] else 0.5 for scene in chosen]
    return {"visual": round(float(np.mean(visual)), 4), "audio": round(float(np.mean(audio)), 4)}


def rng_of(seed: int, name: str) -> np.random.Generator:
    """The random generator of (seed, name), the same on every machine."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])
