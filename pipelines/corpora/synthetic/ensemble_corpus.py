"""The corpora of ensembles (with questions) and of solos, on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.corpora.build import build_clips
from pipelines.corpora.question_report import report
from pipelines.corpora.synthetic import ensembles
from pipelines.corpora.synthetic.balance import ask_all
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import EnsemblesConfig, describe_ensemble, describe_solo
from pipelines.corpora.synthetic.scenes import encode_scene, split_of
from pipelines.manifest import write_manifest
from shards.atomic import write_text
from shards.questions import QUESTIONS_FILE, save_questions

Advance = Callable[[], object]


def build_ensembles(
    out: str | Path, config: EnsemblesConfig, *, jobs: int = 2, advance: Advance = lambda: None
) -> dict[str, Any]:
    """Make ``clips/``, ``questions.jsonl``, ``corpus.json`` and ``manifest.csv`` in ``out``.

    Finished clips of the same description are kept, so a killed build resumes.

    Returns:
        What ``corpus.json`` holds: the settings, how sound and picture inform each other in the clips drawn,
        and the questions' counts and question-only accuracies.
    """
    scenes = [describe_ensemble(config, number) for number in range(config.clips)]
    splits = [ensembles.split_of(number) for number in range(config.clips)]
    questions = ask_all(scenes, splits, config.questions, config.seed)
    told = {
        "name": "ensembles",
        "generator": ensembles.GENERATOR,
        **asdict(config),
        "classes": list(CLASSES),
        **_informed(scenes),
        **(report(questions) if questions else {}),
    }
    _build(out, scenes, splits, told, jobs, advance)
    save_questions(Path(out) / QUESTIONS_FILE, questions)
    return told


def build_solos(
    out: str | Path, config: EnsemblesConfig, *, jobs: int = 2, advance: Advance = lambda: None
) -> dict[str, Any]:
    """Make ``clips/``, ``corpus.json`` and ``manifest.csv`` of solos; return what corpus.json holds."""
    scenes = [describe_solo(config, number) for number in range(config.clips)]
    splits = [split_of(config.seed, number) for number in range(config.clips)]
    told = {
        "name": "solos",
        "generator": ensembles.SOLO_GENERATOR,
        "clips": config.clips,
        "seed": config.seed,
        "seconds": 1.0,
        "size": config.size,
        "fps": config.fps,
        "classes": list(CLASSES),
        "distracted": ensembles.DISTRACTED,
    }
    _build(out, scenes, splits, told, jobs, advance)
    return told


def _build(
    out: str | Path,
    scenes: Sequence[Mapping[str, Any]],
    splits: Sequence[str],
    told: Mapping[str, Any],
    jobs: int,
    advance: Advance,
) -> None:
    out = Path(out)
    build_clips(out / "clips", scenes, encode_scene, jobs=jobs, advance=advance)
    write_text(out / "corpus.json", json.dumps(told, indent=1) + "\n")
    rows = [
        {"id": scene["id"], "path": f"clips/{scene['id']}.mp4", "label": scene["labels"], "split": split}
        for scene, split in zip(scenes, splits, strict=True)
    ]
    write_manifest(out / "manifest.csv", rows)


def _informed(scenes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How often a class in the picture is heard, and one that is heard is in the picture."""
    pairs = [
        ({item["class"] for item in scene["objects"]}, {sound["class"] for sound in scene["sounds"]})
        for scene in scenes
    ]
    both = sum(len(seen & heard) for seen, heard in pairs)
    return {
        "heard_if_seen": round(both / max(1, sum(len(seen) for seen, _ in pairs)), 4),
        "seen_if_heard": round(both / max(1, sum(len(heard) for _, heard in pairs)), 4),
    }
