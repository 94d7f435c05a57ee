"""Noise of features, training and evaluation, as a config."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import pydantic
from pydantic_core import PydanticCustomError

from configs.loading import Config
from configs.names import Registered
from models.settings import AUDIO_KINDS, NOISE_PRESETS, VISUAL_KINDS, NoiseConfig


class Noise(Config):
    """Kinds and severities of noise; or the name of a preset (`noise=released`)."""

    audio: tuple[Annotated[str, Registered(AUDIO_KINDS)], ...] = NoiseConfig.audio
    """Kinds of noise on the sound, each equally likely per draw."""
    visual: tuple[Annotated[str, Registered(VISUAL_KINDS)], ...] = NoiseConfig.visual
    """Kinds of noise on the picture, each equally likely per draw."""
    alone: int = NoiseConfig.alone
    """Severity, 1 to 5, when one modality is noisy."""
    both: int = NoiseConfig.both
    """Severity, 1 to 5, when both are."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, str):
            return values
        if values not in NOISE_PRESETS:
            names = ", ".join(f"'{name}'" for name in NOISE_PRESETS)
            raise PydanticCustomError("unknown_name", "Input should be one of {expected}", {"expected": names})
        return asdict(NOISE_PRESETS[values])

    @pydantic.model_validator(mode="after")
    def _known(self) -> Noise:
        self.build()
        return self

    def build(self) -> NoiseConfig:
        """The same as the models take it."""
        return NoiseConfig(self.audio, self.visual, self.alone, self.both)
