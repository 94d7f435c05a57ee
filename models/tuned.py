"""Small trainable modules beside a frozen backbone, one per case: the interface of prompts, LoRA and
adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.cavmae import CAVMAE


class CaseModule(nn.Module):
    """What is trained for one case. The backbone itself is never changed, so all cases share one copy."""

    def run(self, backbone: CAVMAE, audio: Tensor, visual: Tensor, present: Tensor | None, depth: int | None) -> Tensor:
        """Logits [B, C] of the backbone with this module's parameters in effect; arguments as
        `CAVMAE.forward`.

        Raises:
            ValueError: tokens from behind the first block in which this module acts.
        """
        raise NotImplementedError

    @staticmethod
    def check_depth(depth: int | None, first: int) -> None:
        """Refuse tokens cached before block `depth` by a module that acts from block `first` on."""
        if depth is not None and depth > first:
            raise ValueError(f"tokens of depth {depth}, but this module acts from encoder block {first} on")


class Tuned(nn.Module):
    """A frozen backbone with one case's module, as one module that trains and runs like any other.

    Args:
        backbone: is frozen here (in place).
        module: what trains.
        train_head: train a copy of the classification head too (reported apart; the published method freezes
            it).
    """

    def __init__(self, backbone: CAVMAE, module: CaseModule, train_head: bool = False):
        super().__init__()
        self.backbone, self.module = backbone.requires_grad_(False), module
        self.head = None
        if train_head:
            self.head = nn.Sequential(
                nn.LayerNorm(backbone.config.dim), nn.Linear(backbone.config.dim, backbone.classes)
            )
            self.head.load_state_dict(backbone.mlp_head.state_dict())

    def trained(self) -> dict[str, Tensor]:
        """The parameters that train, by name: what a checkpoint of this case holds."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad and not n.startswith("backbone.")}

    def load_trained(self, weights: dict[str, Tensor]) -> None:
        """Put back what `trained` gave.

        Raises:
            ValueError: names or shapes do not match.
        """
        own = self.trained()
        wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
        if wrong:
            raise ValueError(f"these parameters do not match: {', '.join(wrong)}")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(weights[name])

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor | None = None, depth: int | None = None) -> Tensor:
        """Logits [B, C]; arguments as of the backbone."""
        if self.head is None:
            return self.module.run(self.backbone, audio, visual, present, depth)
        head = self.head
        with replaced_output(self.backbone.mlp_head, lambda x, _: head(x)):
            return self.module.run(self.backbone, audio, visual, present, depth)


@contextmanager
def replaced_output(module: nn.Module, change) -> Iterator[None]:
    """While inside, `module(x)` returns `change(x, module(x))`."""
    handle = module.register_forward_hook(lambda _, inputs, output: change(inputs[0], output))
    try:
        yield
    finally:
        handle.remove()
