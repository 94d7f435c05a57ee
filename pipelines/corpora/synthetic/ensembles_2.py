"""The embedded corpus ``ensembles-2``: ensembles with a dial for how much sound and picture tell about each other.

Who is seen sounds with probability ``sounds``. Each sound is of the performer seen with probability ``coupling``, and
of a class drawn from all alike otherwise: at 1 a timbre says who is in the picture, at 0 it says nothing. So what
the present modality tells about the missing one is known (`observers`), and with it the ceiling of recovery. All
else is as in `ensembles`; questions have the performer as the answer, too (`question_templates_2`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from pipelines.corpora.corpus import EncodedConfig, StartProgress, Summary
from pipelines.corpora.question_report import report, table
from pipelines.corpora.synthetic.balance import ask_with_fillings
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensemble_corpus import informed, target_of
from pipelines.corpora.synthetic.ensembles import scene_of, split_of
from pipelines.corpora.synthetic.observers import TemplatedQuestion, accuracies_of_observers
from pipelines.corpora.synthetic.question_templates_2 import KINDS_2, TEMPLATES_2
from pipelines.corpora.synthetic.scenes import rng_of, write_scenes
from shards.dense_targets import TARGETS_FILE, save_targets
from shards.questions import QUESTIONS_FILE, save_questions

GENERATOR = "ensembles/2"  # change it with anything that changes the clips
TOTALS = (0.1, 0.15, 0.35, 0.4)  # probabilities of one to four performers in the picture
TWIN = 0.15  # probability that a further performer is a second one of a class
IN_A_ROW = 0.75  # probability that up to three are all in columns of their own


class Ensembles2Config(EncodedConfig):
    """Scenes of several performers, with questions that can be learnt, and a dial between sound and picture."""

    clips: int = pydantic.Field(ge=1)
    """How many; multiples of 10 give splits of exactly 70 / 10 / 20 %."""
    questions: int = pydantic.Field(
        default=6, ge=1, le=len(KINDS_2), validation_alias=pydantic.AliasChoices("questions", "per_clip")
    )
    """Most questions about a clip, no two of a kind."""
    train_questions: int | None = pydantic.Field(default=None, ge=1, le=40)
    """Most questions about a clip to train on, several of a kind; none: as about any other."""
    sounds: float = pydantic.Field(default=0.85, ge=0.5, le=1)
    """Probability that a class in the picture sounds."""
    coupling: float = pydantic.Field(default=0.9, ge=0, le=1)
    """Probability that a sound is of the performer in the picture, not of a class drawn from all alike."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of everything that is drawn."""
    seconds: float = pydantic.Field(default=5.0, ge=4, le=60, multiple_of=1)
    """Length of a clip in seconds."""
    size: int = pydantic.Field(default=96, ge=64, multiple_of=2)
    """Width and height in pixels."""
    fps: int = pydantic.Field(default=4, ge=1, le=60)
    """Frames per second."""
    imagined: int = pydantic.Field(default=50, ge=0)
    """Scenes imagined per test clip to compute what partial observers can answer; 0: leave that out."""

    def content(self) -> dict[str, Any]:
        """As of every corpus; `train_questions` counts where it is given, which earlier versions did not know."""
        found = super().content()
        if self.train_questions is None:
            del found["train_questions"]
        return found

    @property
    def in_a_row(self) -> float:
        """Probability that up to three performers are all in columns of their own."""
        return IN_A_ROW

    def cast(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Who is seen (a class once or twice), and which classes are heard."""
        seen = random_seen(rng)
        return seen, self.heard(rng, seen)

    def heard(self, rng: np.random.Generator, seen: list[str]) -> list[str]:
        """Which classes are heard, given who is seen."""
        return random_heard(rng, seen, self.sounds, self.coupling)


@dataclass(frozen=True)
class QuestionSet:
    """Questions about scenes, and what is known of them.

    Attributes:
        scenes, splits: of the clips.
        questions: each question with what it was made of.
        informed: how often a class in the picture is heard, and one that is heard is in the picture.
        report: counts and question-only accuracies; with the observers' accuracies as "observers".
    """

    scenes: list[dict[str, Any]]
    splits: list[str]
    questions: list[TemplatedQuestion]
    informed: dict[str, float]
    report: dict[str, Any]


def ask(config: Ensembles2Config, earlier: Callable[[dict[str, Any]], Any] = lambda facts: None) -> QuestionSet:
    """The questions of a corpus, without its clips.

    Args:
        earlier: what is known already of the observers, given all else that is known; None: nothing.
    """
    scenes = [describe(config, number) for number in range(config.clips)]
    splits = [split_of(number) for number in range(config.clips)]
    asked = (config.questions, config.seed, TEMPLATES_2, config.train_questions)
    questions = ask_with_fillings(scenes, splits, *asked)
    found = report([question for question, _ in questions]) if questions else {}
    coupling = informed(scenes)
    if found and config.imagined:
        found["observers"] = earlier({**coupling, **found}) or accuracies_of_observers(config, scenes, questions)
    return QuestionSet(scenes, splits, questions, coupling, found)


def build(config: Ensembles2Config, out: str | Path, progress: StartProgress) -> Summary:
    """Make ``clips/``, ``questions.jsonl``, ``targets.jsonl``, ``corpus.json`` and ``manifest.csv`` in ``out``.

    ``corpus.json`` holds the settings, how sound and picture inform each other in the clips drawn, the questions'
    counts, and accuracies by kind: of the question alone, and of Bayes-optimal observers that know a part of the
    scene. Finished clips of the same description are kept, so a killed build resumes.
    """
    header = {"name": "ensembles-2", "generator": GENERATOR, **config.content(), "classes": list(CLASSES)}
    made = ask(config, lambda facts: _observers(Path(out) / "corpus.json", {**header, **facts}))
    facts = {**header, **made.informed, **made.report}
    manifest = write_scenes(out, made.scenes, made.splits, facts, config.jobs, progress)
    path = save_questions(Path(out) / QUESTIONS_FILE, [question for question, _ in made.questions])
    targets = save_targets(Path(out) / TARGETS_FILE, map(target_of, made.scenes))
    lines = [f"{config.clips} clips: {manifest}", f"{len(made.questions)} questions: {path}"]
    lines += [f"dense targets: {targets}"]
    lines += [table(made.report)] if made.report else []
    return Summary(config.clips, {"default": manifest}, {"default": path}, tuple(lines), targets)


def _observers(path: Path, facts: dict[str, Any]) -> dict[str, dict[str, float]] | None:
    """What an earlier call computed of the observers, if all else is the same."""
    try:
        earlier = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    known = earlier.pop("observers", None) if isinstance(earlier, dict) else None
    return known if earlier == json.loads(json.dumps(facts)) else None


def describe(config: Ensembles2Config, number: int) -> dict[str, Any]:
    """The scene of ensemble ``number`` (JSON types alone); see `ensembles.describe_ensemble`."""
    clip_id = f"ensemble-{number:06d}"
    rng = rng_of(config.seed, f"2-{clip_id}")
    return scene_of(rng, clip_id, GENERATOR, config, *config.cast(rng), in_a_row=config.in_a_row)


def random_seen(rng: np.random.Generator) -> list[str]:
    """Who is seen: one to four performers, of a class one or two."""
    fresh = rng.permutation(CLASSES).tolist()
    seen: list[str] = []
    for _ in range(int(rng.choice(len(TOTALS), p=TOTALS)) + 1):
        single = [name for name in seen if seen.count(name) == 1]
        twin = bool(single) and rng.random() < TWIN
        seen.append(str(rng.choice(single)) if twin else fresh.pop())
    return seen


def random_heard(rng: np.random.Generator, seen: list[str], sounds: float, coupling: float) -> list[str]:
    """Which classes are heard, at least one: those seen, each with probability ``sounds``, or others in their stead."""
    classes = list(dict.fromkeys(seen))
    sounding = [name for name in classes if rng.random() < sounds] or [str(rng.choice(classes))]
    own = [name for name in sounding if rng.random() < coupling]
    others = rng.permutation([name for name in CLASSES if name not in own]).tolist()
    return own + others[: len(sounding) - len(own)]
