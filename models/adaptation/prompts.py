"""Prompts that adapt at test time: READ's loss moves the prompt tokens of the complete case, the backbone stays.

Ours, beside *detected* prompts: neither an oracle nor a detector chooses a set.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from models.adaptation.read import confidence_aware
from models.prompts import DualPrompts
from models.tuned import Tuned


class READPrompts:
    """The prompts of the complete case, by READ's loss."""

    label: ClassVar[str] = "READ of prompts"
    lr: ClassVar[float] = 1e-3
    answers_after: ClassVar[bool] = True

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """All tokens of a prompt set."""
        prompted = isinstance(model, Tuned) and isinstance(model.module, DualPrompts)
        return list(model.module.parameters()) if prompted else []  # type: ignore[union-attr]

    def loss(self, logits: Tensor) -> Tensor:
        """As `models.adaptation.read.confidence_aware`."""
        return confidence_aware(logits)
