"""Questions of ``ensembles-2``: those of `question_templates`, and the same facts with the performer as the answer.

A yes/no comparison of two performers is an exclusive-or of the words and the clip, which small networks do not
learn beside easier questions; "which of the two" they learn at once. So comparisons, the order of entering and
the loudest are asked with the class as the answer, too; the yes/no comparisons stay, in kinds of their own. Where
sound alone would tell the answer by its rank among those heard, ranks are balanced, and what it would tell for
certain is not asked.
"""

from __future__ import annotations

import dataclasses
import itertools

from pipelines.corpora.synthetic.design import CLASSES
from pipelines.corpora.synthetic.question_templates import (
    AT,
    TEMPLATES,
    Facts,
    Filled,
    Rank,
    Template,
)

YES_NO_KIND = " (yes/no)"
COMPARISONS = ("Audio Comparative", "Audio-Visual Comparative")
FEWEST = 3  # heard where sound alone must not tell the answer for certain


def louder_of_two(facts: Facts) -> Filled:
    """Which of two classes that are heard is louder."""
    for one, other in itertools.permutations(facts.heard, 2):
        yield (one, other), max(one, other, key=lambda name: facts.heard[name].level)


def longer_of_two(facts: Facts) -> Filled:
    """Which of two classes that are heard plays longer, where they differ."""
    for one, other in itertools.permutations(facts.heard, 2):
        if facts.heard[one].length != facts.heard[other].length:
            yield (one, other), max(one, other, key=lambda name: facts.heard[name].length)


def louder_place(facts: Facts) -> Filled:
    """Which class is louder, that at one place or that at another."""
    at = _heard_at(facts)
    if len(facts.heard) >= FEWEST:
        for one, other in itertools.permutations(at, 2):
            if at[one] != at[other]:
                yield (AT[one], AT[other]), max(at[one], at[other], key=lambda name: facts.heard[name].level)


def louder_rank(facts: Facts, filling: tuple[str, ...], answer: str) -> Rank:
    """How many of those heard are louder; the quietest is never the louder of two."""
    rank = sum(part.level > facts.heard[answer].level for part in facts.heard.values())
    return Rank(len(facts.heard), rank, len(facts.heard) - 1)


def longer_place(facts: Facts) -> Filled:
    """Which class plays longer, that at one place or that at another, where all lengths differ."""
    at = _heard_at(facts)
    lengths = [part.length for part in facts.heard.values()]
    if len(lengths) >= FEWEST and len(set(lengths)) == len(lengths):
        for one, other in itertools.permutations(at, 2):
            if at[one] != at[other]:
                yield (AT[one], AT[other]), max(at[one], at[other], key=lambda name: facts.heard[name].length)


def longer_rank(facts: Facts, filling: tuple[str, ...], answer: str) -> Rank:
    """How many of those heard play longer."""
    rank = sum(part.length > facts.heard[answer].length for part in facts.heard.values())
    return Rank(len(facts.heard), rank, len(facts.heard) - 1)


def extreme(facts: Facts) -> Filled:
    """Which of the classes that are seen and heard is loudest, and which quietest."""
    among = [name for name in facts.classes if name in facts.heard]
    if len(among) > 1:
        yield ("loudest",), max(among, key=lambda name: facts.heard[name].level)
        yield ("quietest",), min(among, key=lambda name: facts.heard[name].level)


def silent(facts: Facts) -> Filled:
    """Which class that is seen makes no sound, where there is only one."""
    names = {name for name in facts.classes if name not in facts.heard}
    if len(names) == 1:
        yield (), names.pop()


def enters(facts: Facts) -> Filled:
    """Which of the classes that are seen comes in first, and which last."""
    order = _order(facts)
    among = [name for name in order if name in facts.classes]
    if len(among) > 1:
        yield ("first",), among[0]
        yield ("last",), among[-1]


def enters_beside(facts: Facts) -> Filled:
    """Which class comes in right before or after the one at a place."""
    order, at = _order(facts), _heard_at(facts)
    if len(order) >= FEWEST:
        for place, name in at.items():
            rank = order.index(name)
            if rank > 0:
                yield ("before", AT[place]), order[rank - 1]
            if rank + 1 < len(order):
                yield ("after", AT[place]), order[rank + 1]


def entering_rank(facts: Facts, filling: tuple[str, ...], answer: str) -> Rank:
    """How many begin earlier; the last is before nobody, the first is after nobody."""
    order = _order(facts)
    rank = order.index(answer) - (filling[0] == "after")
    return Rank((filling[0], len(order)), rank, len(order) - 1)


def _order(facts: Facts) -> list[str]:
    """Those heard in the order in which they begin; empty if two begin at once."""
    starts = sorted((part.start, name) for name, part in facts.heard.items())
    return [name for _, name in starts] if len({start for start, _ in starts}) == len(starts) else []


def _heard_at(facts: Facts) -> dict[str, str]:
    """Place -> class, where one performer alone is and is heard."""
    return {place: name for place, name in sorted(facts.alone().items()) if name in facts.heard}


def _marked(template: Template) -> Template:
    """A yes/no comparison in a kind of its own."""
    kind = template.kind
    return dataclasses.replace(template, kind=kind + YES_NO_KIND if kind in COMPARISONS else kind)


TEMPLATES_2 = (
    *(_marked(template) for template in TEMPLATES),
    Template("Audio Comparative", "Which is louder, the {} or the {}?", CLASSES, louder_of_two, of_two=True),
    Template("Audio Comparative", "Which plays longer, the {} or the {}?", CLASSES, longer_of_two, of_two=True),
    Template(
        "Audio-Visual Comparative",
        "Which is louder, the performer {} or the performer {}?",
        CLASSES,
        louder_place,
        rank=louder_rank,
    ),
    Template(
        "Audio-Visual Comparative",
        "Which plays longer, the performer {} or the performer {}?",
        CLASSES,
        longer_place,
        rank=longer_rank,
    ),
    Template("Audio-Visual Location", "Which performer in the video is the {}?", CLASSES, extreme),
    Template("Audio-Visual Location", "Which performer in the video makes no sound?", CLASSES, silent),
    Template("Audio-Visual Temporal", "Which performer in the video comes in {}?", CLASSES, enters),
    Template(
        "Audio-Visual Temporal",
        "Who comes in right {} the performer {}?",
        CLASSES,
        enters_beside,
        rank=entering_rank,
    ),
)
KINDS_2 = tuple(dict.fromkeys(template.kind for template in TEMPLATES_2))
