"""The record of a corpus: its config class, the function that builds it, and the summary of a build."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pydantic

from configs import Config
from shards.progress import Progress

StartProgress = Callable[[int], Progress]  # from the number of clips; used as a context
EXECUTION = {"jobs"}  # fields that say how a corpus is made, not what


class CorpusConfig(Config):
    """Base of the settings of all corpora; the docstring below a field is its help text."""

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    def content(self) -> dict[str, Any]:
        """The fields, as JSON types, that decide what is made."""
        return self.model_dump(mode="json", exclude=EXECUTION)


class EncodedConfig(CorpusConfig):
    """Settings of a corpus whose clips are encoded here."""

    jobs: int | None = pydantic.Field(default=None, ge=1)
    """Processes that encode clips; none: one per core. Any number gives the same bytes."""


@dataclass(frozen=True)
class Summary:
    """What a build made.

    Attributes:
        clips: how many are in the manifests, or asked about where there are none.
        manifests: split (of `Corpus.splits`) -> manifest; empty where the media are not here.
        questions: split -> file of questions.
        lines: what to print about it.
        targets: file of dense targets of all clips, see `shards.dense_targets`.
    """

    clips: int
    manifests: Mapping[str, Path] = field(default_factory=dict)
    questions: Mapping[str, Path] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    targets: Path | None = None


ConfigT = TypeVar("ConfigT", bound=CorpusConfig)


@dataclass(frozen=True)
class Corpus(Generic[ConfigT]):
    """One corpus.

    Attributes:
        config: the class of its settings; its docstring says what the corpus is.
        build: ``build(config, out, progress)`` makes the corpus in the folder ``out``, keeps what an earlier call
            finished, and raises `shards.errors.InputError` for a source that is none.
        splits: the ways in which its clips are split, the usual one first; each has a manifest.
        asks: it has questions about the clips, split likewise.
        dense: it has dense targets of the clips.
    """

    config: type[ConfigT]
    build: Callable[[ConfigT, Path, StartProgress], Summary]
    splits: tuple[str, ...] = ("default",)
    asks: bool = False
    dense: bool = False

    @property
    def about(self) -> str:
        """What it is, in one line."""
        return (inspect.getdoc(self.config) or "").partition("\n")[0].rstrip(".")
