"""Noise of features, training and evaluation, as a config."""

from __future__ import annotations

import pydantic

from configs.loading import Config
from models.settings import NoiseConfig


class Noise(Config):
    """Kinds and severities of noise."""

    audio: tuple[str, ...] = NoiseConfig.audio
    """Kinds of noise on the sound, each equally likely per draw."""
    visual: tuple[str, ...] = NoiseConfig.visual
    """Kinds of noise on the picture, each equally likely per draw."""
    alone: int = NoiseConfig.alone
    """Severity, 1 to 5, when one modality is noisy (published protocol: 5)."""
    both: int = NoiseConfig.both
    """Severity, 1 to 5, when both are (published protocol: 2)."""

    @pydantic.model_validator(mode="after")
    def _known(self) -> Noise:
        self.build()
        return self

    def build(self) -> NoiseConfig:
        """The same as the models take it."""
        return NoiseConfig(self.audio, self.visual, self.alone, self.both)
