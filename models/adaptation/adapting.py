"""A network that adapts as it answers a stream of batches; the network that it was made of never changes.

Shapes: B samples, C classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.adaptation.contract import Adaptation


class Adapting:
    """Adapts a copy of a network, batch by batch.

    Args:
        source: the trained network, called with sound, picture and `present`.
        method: what adapts it.
        lr: of Adam; None: the method's.
        steps: of every batch.
        episodic: every batch begins with the trained network; else with what the batches before it left.
    """

    def __init__(
        self, source: nn.Module, method: Adaptation, lr: float | None = None, steps: int = 1, episodic: bool = False
    ):
        self.source, self.method, self.steps, self.episodic = source, method, steps, episodic
        self.lr = method.lr if lr is None else lr
        self.begin()

    def begin(self) -> None:
        """Start anew from the trained network."""
        with torch.inference_mode(False):
            self.model = copy.deepcopy(self.source).eval().requires_grad_(False)
            moving = self.method.parameters(self.model)
            for parameter in moving:
                parameter.requires_grad_(True)
            self.optimizer = torch.optim.Adam(moving, lr=self.lr)

    def __call__(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        """Logits [B, C] of a batch, and a step of adaptation to it."""
        if self.episodic:
            self.begin()
        with torch.inference_mode(False), torch.enable_grad():
            inputs = audio.clone(), visual.clone(), present.clone()
            for _ in range(self.steps):
                logits = self.model(*inputs)
                self.optimizer.zero_grad()
                self.method.loss(logits.float()).backward()
                self.optimizer.step()
        if not self.method.answers_after:
            return logits.detach()
        with torch.no_grad():
            return self.model(*inputs)
