"""The embedded corpus ``ensembles``: its clips, their questions and what is known of both, on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.corpora.corpus import StartProgress, Summary
from pipelines.corpora.question_report import report, table
from pipelines.corpora.synthetic import ensembles
from pipelines.corpora.synthetic.balance import ask_all
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import EnsemblesConfig, describe_ensemble
from pipelines.corpora.synthetic.scenes import write_scenes
from shards.dense_targets import TARGETS_FILE, DenseTarget, Place, save_targets
from shards.questions import QUESTIONS_FILE, save_questions


def build(config: EnsemblesConfig, out: str | Path, progress: StartProgress) -> Summary:
    """Make ``clips/``, ``questions.jsonl``, ``targets.jsonl``, ``corpus.json`` and ``manifest.csv`` in ``out``.

    ``corpus.json`` holds the settings, how sound and picture inform each other in the clips drawn, and the
    questions' counts and question-only accuracies. Finished clips of the same description are kept, so a killed
    build resumes.
    """
    scenes = [describe_ensemble(config, number) for number in range(config.clips)]
    splits = [ensembles.split_of(number) for number in range(config.clips)]
    questions = ask_all(scenes, splits, config.questions, config.seed)
    found = report(questions) if questions else {}
    facts = {
        "name": "ensembles",
        "generator": ensembles.GENERATOR,
        **config.content(),
        "classes": list(CLASSES),
        **informed(scenes),
        **found,
    }
    manifest = write_scenes(out, scenes, splits, facts, config.jobs, progress)
    path = save_questions(Path(out) / QUESTIONS_FILE, questions)
    targets = save_targets(Path(out) / TARGETS_FILE, map(target_of, scenes))
    lines = [f"{config.clips} clips: {manifest}", f"{len(questions)} questions: {path}"]
    lines += [f"dense targets: {targets}"]
    lines += [table(found)] if found else []
    return Summary(config.clips, {"default": manifest}, {"default": path}, tuple(lines), targets)


def target_of(scene: Mapping[str, Any]) -> DenseTarget:
    """The dense target of an ensemble: of each second who plays, at their loudness while they play, and where
    everybody is seen in the middle of the clip."""
    seconds: list[dict[str, float]] = [{} for _ in range(round(scene["seconds"]))]
    for sound in scene["sounds"]:
        for second in range(sound["start_s"], sound["end_s"]):
            seconds[second][sound["class"]] = sound["playing_db"]
    return DenseTarget(
        clip=scene["id"],
        seconds=tuple(seconds),
        places=tuple(_place(item, scene["seconds"] / 2) for item in scene["objects"]),
    )


def _place(item: Mapping[str, Any], time: float) -> Place:
    x, y = (min(max(item[at] + time * item[f"drift_{at}"], 0.0), 1.0) for at in ("x", "y"))
    return Place.model_validate({"class": item["class"], "x": round(x, 4), "y": round(y, 4)})


def informed(scenes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
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
