"""Configs of ``avmend evaluate``: of runs that classify, and of runs that answer questions."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pydantic

from configs import Config
from configs.noise import Noise
from models.conditions import ConditionName


class EvaluateConfig(Config):
    """What is evaluated.

    Attributes:
        data: folder of the media shards.
        split: whose samples.
        conditions: names of `models.conditions.CONDITIONS`.
        noise: kinds and severities; None: those that each run was trained with.
        batch_size, loaders: of the forward passes.
    """

    data: Path
    split: str = "test"
    conditions: tuple[ConditionName, ...] = pydantic.Field(default=get_args(ConditionName), min_length=1)
    noise: Noise | None = None
    batch_size: int = pydantic.Field(default=128, ge=1)
    loaders: int = pydantic.Field(default=0, ge=0)


class QuestionEvaluation(Config):
    """What is evaluated.

    Attributes:
        data: folder of the sequence features; None: the first run's.
        questions: questions.jsonl; None: the first run's.
        split: whose questions.
        rates: percent of the clips that lack a modality, besides 0 and 100.
        seed: of the masks.
        batch_size, loaders, resident: of the forward passes.
    """

    data: Path | None = None
    questions: Path | None = None
    split: str = "test"
    rates: tuple[int, ...] = (20, 40, 60, 80)
    seed: int = 0
    batch_size: int = pydantic.Field(default=64, ge=1)
    loaders: int = pydantic.Field(default=0, ge=0)
    resident: bool | None = None

    @pydantic.field_validator("rates")
    @classmethod
    def _percent(cls, rates: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [rate for rate in rates if not 0 <= rate <= 100]:
            raise ValueError(f"a missing rate is 0 to 100 percent, not {wrong[0]}")
        return tuple(sorted({0, *rates, 100}))
