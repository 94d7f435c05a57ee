"""What a test-time adaptation is: which parameters of a network move, by which loss of its answers, how.

It sees answers to unlabelled batches, never labels. Its loss is of a batch, so a sample's answer depends on those that
come with it and before it: here, and nowhere else in this project, samples see each other.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor, nn


class Adaptation(Protocol):
    """One way of adapting.

    Attributes:
        label: name in tables, behind the run's: "finetune + READ".
        lr: learning rate of Adam, unless a setting names another.
        answers_after: a batch is answered by the network that was adapted to it, not by the one before.
    """

    label: ClassVar[str]
    lr: ClassVar[float]
    answers_after: ClassVar[bool]

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """What moves in a network; empty: there is nothing in it that this adapts."""
        ...

    def loss(self, logits: Tensor) -> Tensor:
        """Of a batch's logits, float32 [B, C]: []."""
        ...
