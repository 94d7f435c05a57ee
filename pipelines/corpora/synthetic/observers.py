"""What Bayes-optimal observers who know a part of a scene answer: floors of questions, and ceilings of recovery.

An observer knows the corpus's design and a part of the scene, imagines the rest many times, and answers what is
right in most of the imagined scenes. Questions are balanced, so an answer's votes are weighed by how often it is
right among the train questions of its template against how often it would be by the votes alone.

- ``who``: which classes are seen (and how many of each) and heard, not where, when and how loud.
- ``picture``: all that is seen. The ceiling where sound is missing.
- ``sound``: all that is heard. The ceiling where the picture is missing.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pipelines.corpora.synthetic.balance import Candidate
from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import COLUMNS, PLACES, random_cells, random_levels, random_times
from pipelines.corpora.synthetic.question_templates import Facts, Part
from pipelines.corpora.synthetic.scenes import rng_of
from shards.baselines import accuracies
from shards.questions import Question

POOL = 8000  # scenes drawn to know who is seen, given how many are heard
WEIGHED_ON = 150  # clips whose train questions the votes are weighed on
TemplatedQuestion = tuple[Question, Candidate]
Votes = Mapping[str, float]


class Dial(Protocol):
    """What the observers know of the corpus's design."""

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""

    @property
    def seconds(self) -> float:
        """Length of a clip."""

    @property
    def imagined(self) -> int:
        """Scenes imagined per clip."""

    @property
    def in_a_row(self) -> float:
        """Probability that up to three performers are all in columns of their own."""

    def cast(self, rng: np.random.Generator) -> tuple[list[str], list[str]]:
        """Who is seen and which classes are heard."""

    def heard(self, rng: np.random.Generator, seen: list[str]) -> list[str]:
        """Which classes are heard, given who is seen."""


Imagine = Callable[[np.random.Generator, Facts], Facts]


def accuracies_of_observers(
    dial: Dial, scenes: Sequence[Mapping[str, Any]], questions: Sequence[TemplatedQuestion]
) -> dict[str, dict[str, float]]:
    """Observer -> accuracy by kind of question on the test split, 0 to 1."""
    facts = {scene["id"]: Facts.of(scene) for scene in scenes}
    test = [pair for pair in questions if pair[0].split == "test"]
    few = set(list(dict.fromkeys(question.clip for question, _ in questions if question.split == "train"))[:WEIGHED_ON])
    train = [pair for pair in questions if pair[0].clip in few]
    found = {}
    for name, imagine in observers(dial).items():
        weights = _weights(train, list(_votes(dial, name, imagine, facts, train)))
        votes = _votes(dial, name, imagine, facts, test)
        answers = [_answer(candidate, one, weights) for (_, candidate), one in zip(test, votes, strict=True)]
        found[name] = accuracies([question for question, _ in test], answers)
    return found


def observers(dial: Dial) -> dict[str, Imagine]:
    """By name, the function that imagines all of a scene from the part that the observer knows."""
    pool = _pool(dial)

    def who(rng: np.random.Generator, facts: Facts) -> Facts:
        places = _places(rng, [name for name, _ in facts.seen], dial.in_a_row)
        return Facts(places, _parts(rng, [*facts.heard], facts), facts.seconds)

    def picture(rng: np.random.Generator, facts: Facts) -> Facts:
        heard = dial.heard(rng, [name for name, _ in facts.seen])
        return Facts(facts.seen, _parts(rng, heard, facts), facts.seconds)

    def sound(rng: np.random.Generator, facts: Facts) -> Facts:
        seen = _seen_given(rng, pool, [*facts.heard])
        return Facts(_places(rng, seen, dial.in_a_row), facts.heard, facts.seconds)

    return {"who": who, "picture": picture, "sound": sound}


def _pool(dial: Dial) -> dict[int, list[tuple[list[str], list[str]]]]:
    """Casts by how many are heard."""
    rng = rng_of(dial.seed, "observers")
    pool = collections.defaultdict(list)
    for _ in range(POOL):
        seen, heard = dial.cast(rng)
        pool[len(heard)].append((seen, heard))
    return dict(pool)


def _seen_given(rng: np.random.Generator, pool: Mapping[int, Sequence[Any]], heard: list[str]) -> list[str]:
    """Who is seen where these are heard: any cast with as many, its classes renamed (the design treats all alike)."""
    casts = pool[len(heard)]
    seen, others = casts[int(rng.integers(len(casts)))]
    names = dict(zip(others, rng.permutation(heard).tolist(), strict=True))
    rest = rng.permutation([name for name in CLASSES if name not in heard]).tolist()
    return [names[name] if name in names else names.setdefault(name, rest.pop()) for name in seen]


def _places(rng: np.random.Generator, seen: list[str], in_a_row: float) -> tuple[tuple[str, str], ...]:
    cells = random_cells(rng, len(seen), in_a_row)
    return tuple((name, PLACES[cell % len(COLUMNS)]) for name, cell in zip(seen, cells, strict=True))


def _parts(rng: np.random.Generator, heard: list[str], facts: Facts) -> dict[str, Part]:
    times, levels = random_times(rng, len(heard), round(facts.seconds)), random_levels(rng, len(heard))
    return {
        name: Part(start, end, float(level)) for name, (start, end), level in zip(heard, times, levels, strict=True)
    }


def _votes(
    dial: Dial, name: str, imagine: Imagine, facts: Mapping[str, Facts], questions: Iterable[TemplatedQuestion]
) -> Iterator[Votes]:
    """Per question, the share of imagined scenes, of those in which it could be asked, in which an answer is right."""
    scenes: list[Facts] = []
    clip = None
    for question, candidate in questions:
        if question.clip != clip:
            clip, rng = question.clip, rng_of(dial.seed, f"{name}-{question.clip}")
            scenes = [imagine(rng, facts[clip]) for _ in range(dial.imagined)]
        answers = (dict(candidate.template.ask(scene)).get(candidate.filling) for scene in scenes)
        counts = collections.Counter(answer for answer in answers if answer in candidate.template.answers)
        yield {str(answer): count / counts.total() for answer, count in counts.items()}


def _weights(questions: Sequence[TemplatedQuestion], votes: Sequence[Votes]) -> dict[tuple[str, str], float]:
    """(template, answer) -> how often it is right over its share of the votes; of answers that are no classes."""
    right: collections.Counter[tuple[str, str]] = collections.Counter()
    share: collections.Counter[tuple[str, str]] = collections.Counter()
    for (question, candidate), one in zip(questions, votes, strict=True):
        if one and question.answer not in CLASSES:
            right[candidate.template.text, question.answer] += 1
            for answer, vote in one.items():
                share[candidate.template.text, answer] += vote  # type: ignore[assignment]
    return {key: (right[key] + 1) / (share[key] + 1) for key in share}


def _answer(candidate: Candidate, votes: Votes, weights: Mapping[tuple[str, str], float]) -> str:
    """The best answer; of equal ones, and where nothing was imagined, the first of the template's."""
    text = candidate.template.text
    weighed = {answer: vote * weights.get((text, answer), 1.0) for answer, vote in votes.items()}
    options = candidate.filling if candidate.template.of_two else candidate.template.answers
    return max(options, key=lambda answer: weighed.get(answer, 0.0))
