"""Questions of MUSIC-AVQA's nine kinds about ensembles, answered from the scene's ground truth.

A template asks only what has one answer for a person who sees and hears the clip: no "where" of twins in two
places, no "what" of a column that holds two. Within a kind all templates have answers of one sort, so that a
template does not give away more than its kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.ensembles import PLACES

NUMBERS = ("zero", "one", "two", "three", "four")
YES_NO = ("no", "yes")
AT = dict(zip(PLACES, ("on the left", "in the middle", "on the right"), strict=True))
ORDER = ("first", "second", "third")

Filled = Iterator[tuple[tuple[str, ...], str]]  # what fills the template, the answer


@dataclass(frozen=True)
class Part:
    """When a class plays, in seconds, and how loud while it plays, in dB."""

    start: int
    end: int
    level: float

    @property
    def length(self) -> int:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Facts:
    """What can be seen and heard: (class, place) of every object, class -> part, and the clip's seconds."""

    seen: tuple[tuple[str, str], ...]
    heard: Mapping[str, Part]
    seconds: float

    @classmethod
    def of(cls, scene: Mapping[str, Any]) -> Facts:
        """The facts of a scene."""
        seen = tuple((item["class"], item["place"]) for item in scene["objects"])
        parts = {s["class"]: Part(s["start_s"], s["end_s"], s["playing_db"]) for s in scene["sounds"]}
        return cls(seen, parts, scene["seconds"])

    @property
    def classes(self) -> list[str]:
        """The classes in the picture, sorted."""
        return sorted({name for name, _ in self.seen})

    def count(self, name: str) -> int:
        """How many of a class are in the picture."""
        return sum(name == other for other, _ in self.seen)

    def place(self, name: str) -> str | None:
        """Where the class is, if it is in one place alone."""
        places = {place for other, place in self.seen if other == name}
        return places.pop() if len(places) == 1 else None

    def alone(self) -> dict[str, str]:
        """Place -> class, for the places that hold one performer alone."""
        places = [place for _, place in self.seen]
        return {place: name for name, place in self.seen if places.count(place) == 1}


@dataclass(frozen=True)
class Rank:
    """What one modality alone could take for the answer: where the answer stands among those it would choose from."""

    among: object
    rank: int
    ranks: int


@dataclass(frozen=True)
class Template:
    """One way to ask.

    Attributes:
        kind: of the question.
        text: with ``{}`` for what is filled in.
        answers: all its answers.
        ask: the questions about a clip.
        of_two: the answer is one of the two classes that fill it.
        rank: of an answer, by (facts, filling, answer), where one modality alone must not tell it from the rank.
    """

    kind: str
    text: str
    answers: tuple[str, ...]
    ask: Callable[[Facts], Filled]
    of_two: bool = False
    rank: Callable[[Facts, tuple[str, ...], str], Rank] | None = None


def heard_kinds(facts: Facts) -> Filled:
    """How many classes are heard."""
    yield (), NUMBERS[len(facts.heard)]


def heard_besides(facts: Facts) -> Filled:
    """How many classes are heard besides one that is."""
    for name in facts.heard:
        yield (name,), NUMBERS[len(facts.heard) - 1]


def louder(facts: Facts) -> Filled:
    """Whether one class is louder than another, of any two that are heard."""
    for one, other in itertools.permutations(facts.heard, 2):
        yield (one, other), _yes(facts.heard[one].level > facts.heard[other].level)


def longer(facts: Facts) -> Filled:
    """Whether one class plays longer than another, of any two that are heard and differ."""
    for one, other in itertools.permutations(facts.heard, 2):
        if facts.heard[one].length != facts.heard[other].length:
            yield (one, other), _yes(facts.heard[one].length > facts.heard[other].length)


def seen_of(facts: Facts) -> Filled:
    """How many performers of a class are seen."""
    for name in CLASSES:
        yield (name,), NUMBERS[facts.count(name)]


def seen_performers(facts: Facts) -> Filled:
    """How many performers are seen."""
    yield (), NUMBERS[len(facts.seen)]


def seen_kinds(facts: Facts) -> Filled:
    """How many classes are seen."""
    yield (), NUMBERS[len(facts.classes)]


def beside(facts: Facts) -> Filled:
    """Which class stands left or right of one that is seen once, where only one does."""
    for name in facts.classes:
        place = facts.place(name)
        if place is None:
            continue
        for side, sign in (("left", -1), ("right", 1)):
            there = [other for other, at in facts.seen if sign * (PLACES.index(at) - PLACES.index(place)) > 0]
            if len(there) == 1:
                yield (side, name), there[0]


def at_place(facts: Facts) -> Filled:
    """Which class stands at a place, where it is the only one there."""
    for place, name in facts.alone().items():
        yield (AT[place],), name


def makes_sound(facts: Facts) -> Filled:
    """Whether a class that is seen is heard."""
    for name in facts.classes:
        yield (name,), _yes(name in facts.heard)


def always_playing(facts: Facts) -> Filled:
    """Whether a class that is seen and heard plays all the time."""
    for name in facts.classes:
        if part := facts.heard.get(name):
            yield (name,), _yes(part.length == facts.seconds)


def unseen_sound(facts: Facts) -> Filled:
    """Whether something is heard that is not seen."""
    yield (), _yes(any(name not in facts.classes for name in facts.heard))


def where_by_level(facts: Facts) -> Filled:
    """Where the loudest and the quietest stand, where they are seen at one place."""
    for word, pick in (("loudest", max), ("quietest", min)):
        if len(facts.heard) > 1:
            name = pick(facts.heard, key=lambda name: facts.heard[name].level)
            if place := facts.place(name):
                yield (word,), place


def where_silent(facts: Facts) -> Filled:
    """Where the one silent class stands, where there is only one."""
    silent = [name for name, _ in facts.seen if name not in facts.heard]
    if len(set(silent)) == 1 and (place := facts.place(silent[0])):
        yield (), place


def silent_performers(facts: Facts) -> Filled:
    """How many of the performers that are seen make no sound."""
    yield (), NUMBERS[sum(name not in facts.heard for name, _ in facts.seen)]


def sounding_performers(facts: Facts) -> Filled:
    """How many of the performers that are seen make a sound."""
    yield (), NUMBERS[sum(name in facts.heard for name, _ in facts.seen)]


def sounding_of(facts: Facts) -> Filled:
    """How many performers of a class are seen and heard."""
    for name in sorted({*facts.classes, *facts.heard}):
        yield (name,), NUMBERS[facts.count(name) if name in facts.heard else 0]


def louder_by_place(facts: Facts) -> Filled:
    """Whether the performer at one place is louder than that at another."""
    for places, one, other in pairs_by_place(facts):
        yield places, _yes(one.level > other.level)


def longer_by_place(facts: Facts) -> Filled:
    """Whether the performer at one place plays longer than that at another, where they differ."""
    for places, one, other in pairs_by_place(facts):
        if one.length != other.length:
            yield places, _yes(one.length > other.length)


def comes_in(facts: Facts) -> Filled:
    """Where the first, second, ... and last to come in stands, where all come in at different times."""
    starts = sorted((part.start, name) for name, part in facts.heard.items())
    if len(starts) < 2 or len({start for start, _ in starts}) < len(starts):
        return
    for word, (_, name) in [*zip(ORDER, starts, strict=False), ("last", starts[-1])]:
        if place := facts.place(name):
            yield (word,), place


def comes_in_beside(facts: Facts) -> Filled:
    """Where the one that comes in before or after another stands, where there is only one."""
    for name, part in facts.heard.items():
        earlier = [other for other, its in facts.heard.items() if its.start < part.start]
        later = [other for other, its in facts.heard.items() if its.start > part.start]
        for word, others in (("before", earlier), ("after", later)):
            if len(others) == 1 and (place := facts.place(others[0])):
                yield (word, name), place


TEMPLATES = (
    Template(
        "Audio Counting",
        "How many kinds of performers are heard throughout the video?",
        NUMBERS[1:4],
        heard_kinds,
    ),
    Template(
        "Audio Counting",
        "How many kinds of performers are heard besides the {}?",
        NUMBERS[:3],
        heard_besides,
    ),
    Template("Audio Comparative", "Is the {} louder than the {}?", YES_NO, louder),
    Template("Audio Comparative", "Does the {} play longer than the {}?", YES_NO, longer),
    Template("Visual Counting", "How many {}s are in the video?", NUMBERS[:3], seen_of),
    Template("Visual Counting", "How many performers are in the video?", NUMBERS[1:], seen_performers),
    Template("Visual Counting", "How many kinds of performers are in the video?", NUMBERS[1:4], seen_kinds),
    Template("Visual Location", "What is on the {} of the {}?", CLASSES, beside),
    Template("Visual Location", "What is the performer {}?", CLASSES, at_place),
    Template("Audio-Visual Existential", "Does the {} in the video make a sound?", YES_NO, makes_sound),
    Template("Audio-Visual Existential", "Is the {} in the video playing all the time?", YES_NO, always_playing),
    Template("Audio-Visual Existential", "Is someone heard who is not in the video?", YES_NO, unseen_sound),
    Template("Audio-Visual Location", "Where is the {} performer?", PLACES, where_by_level),
    Template("Audio-Visual Location", "Where is the performer that makes no sound?", PLACES, where_silent),
    Template(
        "Audio-Visual Counting",
        "How many performers in the video make no sound?",
        NUMBERS[:3],
        silent_performers,
    ),
    Template(
        "Audio-Visual Counting",
        "How many of the performers in the video are heard?",
        NUMBERS[1:],
        sounding_performers,
    ),
    Template("Audio-Visual Counting", "How many {}s in the video are heard?", NUMBERS[:3], sounding_of),
    Template(
        "Audio-Visual Comparative",
        "Is the performer {} louder than the performer {}?",
        YES_NO,
        louder_by_place,
    ),
    Template(
        "Audio-Visual Comparative",
        "Does the performer {} play longer than the performer {}?",
        YES_NO,
        longer_by_place,
    ),
    Template("Audio-Visual Temporal", "Where is the performer that comes in {}?", PLACES, comes_in),
    Template("Audio-Visual Temporal", "Where is the performer that comes in {} the {}?", PLACES, comes_in_beside),
)
KINDS = tuple(dict.fromkeys(template.kind for template in TEMPLATES))


def _yes(true: bool) -> str:
    return YES_NO[true]


def pairs_by_place(facts: Facts) -> Iterator[tuple[tuple[str, str], Part, Part]]:
    """Two places of one performer each, both heard, of different classes."""
    heard = {place: name for place, name in facts.alone().items() if name in facts.heard}
    for (at, one), (there, other) in itertools.permutations(heard.items(), 2):
        if one != other:
            yield (AT[at], AT[there]), facts.heard[one], facts.heard[other]
