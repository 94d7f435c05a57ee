"""The registry of studies: what the value of a preset's `study` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import Config
from models.registry import Registry, deferred
from shards.store import Place
from tuning.study_config import ClassificationStudyConfig, QuestionStudyConfig


@dataclass(frozen=True)
class Study:
    """One kind of study.

    Attributes:
        config: of all of it.
        run: name, config, folder for data and folder (or address) for runs to the folder (or address) of the results.
        describe: config, folder for data and folder for runs to the lines of a dry run.
    """

    config: type[Config]
    run: Callable[[str, Any, Path, Any], Any]
    describe: Callable[[Any, Path, Place], list[str]]


STUDIES: Registry[Study] = Registry(
    "kind of study",
    {
        "classification": Study(
            ClassificationStudyConfig,
            deferred("tuning.classification_study:classification_study"),
            deferred("tuning.dry_run:classification_lines"),
        ),
        "avqa": Study(
            QuestionStudyConfig,
            deferred("tuning.question_study:question_study"),
            deferred("tuning.dry_run:question_lines"),
        ),
    },
)


def study_of(values: dict[str, Any]) -> str:
    """The kind of study that a preset's values name."""
    return str(values.get("study", "classification"))
