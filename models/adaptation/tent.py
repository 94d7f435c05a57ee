"""Tent: the norms adapt by the entropy of the answers.

Wang et al., *Tent: Fully Test-Time Adaptation by Entropy Minimization*, ICLR 2021. Scales and shifts of the norms move
(there of BatchNorm, with the batch's statistics; a transformer's LayerNorms have none). A step a batch, which is
answered by the network as it was before the step.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from models.cavmae import CAVMAE
from models.fusion.net import FusedNet


class Tent:
    """Scales and shifts of all norms, by the entropy of the answers (Tent, ICLR 2021)."""

    label: ClassVar[str] = "Tent"
    lr: ClassVar[float] = 1e-3
    answers_after: ClassVar[bool] = False

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Of a network's LayerNorms."""
        if not isinstance(model, (CAVMAE, FusedNet)):
            return []
        return [p for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()]

    def loss(self, logits: Tensor) -> Tensor:
        """Mean entropy of the answers."""
        log_p = logits.log_softmax(dim=1)
        return -(log_p.exp() * log_p).sum(dim=1).mean()
