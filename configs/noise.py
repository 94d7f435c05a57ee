"""Noise of features, training and evaluation, as a config."""

from __future__ import annotations

from typing import Annotated

import pydantic

from configs.loading import Config
from configs.names import Registered
from models.noise import AUDIO_KINDS, VISUAL_KINDS, NoiseConfig


class Noise(Config):
    """Kinds and severities; see `models.noise.NoiseConfig`."""

    audio: tuple[Annotated[str, Registered(AUDIO_KINDS)], ...] = NoiseConfig.audio
    visual: tuple[Annotated[str, Registered(VISUAL_KINDS)], ...] = NoiseConfig.visual
    alone: int = NoiseConfig.alone
    both: int = NoiseConfig.both

    @pydantic.model_validator(mode="after")
    def _known(self) -> Noise:
        self.build()
        return self

    def build(self) -> NoiseConfig:
        """The same as the models take it."""
        return NoiseConfig(self.audio, self.visual, self.alone, self.both)
