"""READ: the joint block's attention adapts by a loss that trusts confident answers.

Yang et al., *Test-time Adaptation against Multi-modal Reliability Bias*, ICLR 2024 (XLearning-SCU/2024-ICLR-READ).
Queries, keys and values of the joint block move, nothing else does. With p the highest probability of a sample and
gamma = 1 / e, the confidence-aware loss is the mean of p log(e gamma / p), whose slope log(gamma / p) makes confident
answers more confident and unconfident ones less; the balance term, the negative entropy of the mean prediction, keeps
all samples from one class. Adam, 1e-4, a step a batch of 64; the batch is answered after the step.

The released balance term is the entropy of a softmax of the batch's *sum* of probabilities; ours is the paper's. Where
a method answers by itself (DrFuse), its own attention moves.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from models.cavmae import CAVMAE
from models.fusion.net import FusedNet, joint_attentions

LOG_GAMMA = -1.0  # the confidence above which an answer gains: 1 / e


def confidence_aware(logits: Tensor) -> Tensor:
    """READ's loss of logits [B, C]: []."""
    log_p = logits.log_softmax(dim=1)
    highest = log_p.max(dim=1).values
    mean = log_p.exp().mean(dim=0)
    balance = (mean * mean.clamp(min=1e-30).log()).sum()
    return (highest.exp() * (1 + LOG_GAMMA - highest)).mean() + balance


class READ:
    """The attention that relates the modalities, by the confidence-aware loss (READ, ICLR 2024)."""

    label: ClassVar[str] = "READ"
    lr: ClassVar[float] = 1e-4
    answers_after: ClassVar[bool] = True

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Queries, keys and values of a network's joint blocks."""
        if isinstance(model, FusedNet):
            return [p for module in model.attentions for p in module.parameters()]
        return [p for m in joint_attentions(model) for p in m.parameters()] if isinstance(model, CAVMAE) else []

    def loss(self, logits: Tensor) -> Tensor:
        """As `confidence_aware`."""
        return confidence_aware(logits)
