"""What an import must know of a published network, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.avqa.batch import FeatureSpec
from shards.questions import Rule, Vocabulary
from trainers.imports.names import Names
from trainers.imports.weights import State


@dataclass(frozen=True)
class PublishedNetwork:
    """A published network read off its file.

    Attributes:
        what: its name, for messages.
        network, sizes: in `NETWORKS`.
        state: its tensors by published names, brought to our shapes.
        names: published to ours.
        spec: features that it was made for; their numbers of steps and places may be others.
        words, answers: sizes of its vocabularies.
        rule: how a text becomes ids.
        length: of a question in words, to which shorter ones are padded.
        steps, steps_at: time steps that its loader takes; None: all.
        recovery: stands in front of it.
        vocabulary: where it is not that of the questions.
        extra: weights of our network that lie elsewhere (CLIP's text tower), by our names.
    """

    what: str
    network: str
    sizes: Mapping[str, Any]
    state: State
    names: Names
    spec: FeatureSpec
    words: int
    answers: int
    rule: Rule = "released"
    length: int = 14
    steps: int | None = None
    steps_at: str = "middles"
    recovery: str = "zero"
    vocabulary: Vocabulary | None = None
    extra: State = field(default_factory=dict)
