"""Who looks and sounds like whom in ``scenes``, and how well either sense alone can do.

Each class has a look and a sound of its own. With probability ``own`` a clip shows them, each modality
drawn apart; otherwise the look (sound) is one that the class shares with exactly one other class. The
partner differs between the modalities, so both together always name the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = ("bell", "drum", "flute", "guitar", "horn", "cat", "bird", "frog")
# (look or sound, the two classes that share it); no two classes share both, or the class would be uncertain.
SHARED_LOOKS = (
    ("crate", ("bell", "drum")),
    ("sack", ("flute", "guitar")),
    ("tent", ("horn", "cat")),
    ("basket", ("bird", "frog")),
)
SHARED_SOUNDS = (
    ("knock", ("drum", "flute")),
    ("hum", ("guitar", "horn")),
    ("hiss", ("cat", "bird")),
    ("siren", ("frog", "bell")),
)
OWN = 0.5  # probability that a clip shows the class's own look (sound)


@dataclass(frozen=True)
class Ceilings:
    """The best accuracy that anything can reach on balanced classes, knowing the look, the sound, or both."""

    visual: float
    audio: float
    both: float
    chance: float


def appearances(shared: tuple[tuple[str, tuple[str, str]], ...]) -> dict[str, str]:
    """Class -> the look (sound) that it shares."""
    return {name: appearance for appearance, pair in shared for name in pair}


def likelihood(shared: tuple[tuple[str, tuple[str, str]], ...], own: float = OWN) -> np.ndarray:
    """P(look | class) (or sound): float [classes, looks], the own looks first, then the shared ones."""
    table = np.zeros((len(CLASSES), len(CLASSES) + len(shared)))
    table[np.arange(len(CLASSES)), np.arange(len(CLASSES))] = own
    for column, (_, pair) in enumerate(shared, start=len(CLASSES)):
        for name in pair:
            table[CLASSES.index(name), column] = 1 - own
    return table


def ceilings(own: float = OWN) -> Ceilings:
    """Bayes accuracies: the sum over what can be seen (heard) of the likeliest class's joint probability."""
    looks, sounds = likelihood(SHARED_LOOKS, own), likelihood(SHARED_SOUNDS, own)
    prior = 1 / len(CLASSES)
    pairs = looks[:, :, None] * sounds[:, None, :]  # [classes, looks, sounds], drawn apart given the class
    return Ceilings(
        visual=float(prior * looks.max(0).sum()),
        audio=float(prior * sounds.max(0).sum()),
        both=float(prior * pairs.max(0).sum()),
        chance=prior,
    )
