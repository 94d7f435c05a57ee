"""Noise of features, training and evaluation, as a config."""

from __future__ import annotations

from typing import Annotated

import pydantic

from configs.loading import Config
from configs.names import Registered
from models.settings import AUDIO_KINDS, VISUAL_KINDS, NoiseConfig


class Noise(Config):
    """Kinds and severities of noise."""

    audio: tuple[Annotated[str, Registered(AUDIO_KINDS)], ...] = NoiseConfig.audio
    """Kinds of noise on the sound, each equally likely per draw."""
    visual: tuple[Annotated[str, Registered(VISUAL_KINDS)], ...] = NoiseConfig.visual
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
