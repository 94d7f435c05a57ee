"""The registry of studies: what the value of a preset's `study` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import Config
from models.registry import Registry


@dataclass(frozen=True)
class Study:
    """One kind of study.

    Attributes:
        config: of all of it.
        run: name, config, folder for data and folder for runs to the folder of the results.
    """

    config: type[Config]
    run: Callable[[str, Any, Path, Path], Path]


STUDIES: Registry[Study] = Registry(
    "kind of study",
    {"classification": "tuning.classification_study:STUDY", "avqa": "tuning.question_study:STUDY"},
)
