"""Noise of features, training and evaluation, as a config."""

from __future__ import annotations

import pydantic

from configs.loading import Config
from models.noise import NoiseConfig


class Noise(Config):
    """Kinds and severities; see `models.noise.NoiseConfig`."""

    audio: tuple[str, ...] = NoiseConfig.audio
    visual: tuple[str, ...] = NoiseConfig.visual
    alone: int = NoiseConfig.alone
    both: int = NoiseConfig.both

    @pydantic.model_validator(mode="after")
    def _known(self) -> Noise:
        self.build()
        return self

    def build(self) -> NoiseConfig:
        """The same as the models take it."""
        return NoiseConfig(self.audio, self.visual, self.alone, self.both)
