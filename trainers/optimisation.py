"""How a stage's weights are moved: groups of rates, schedules, and the mean of the weights over epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def same_rate(name: str) -> float:
    """Every parameter at the config's rate."""
    return 1.0


@dataclass(frozen=True)
class Optimisation:
    """What a stage asks of the optimizer besides its config's rate and decay.

    Attributes:
        betas: of AdamW.
        faster: factor of the learning rate by a parameter's name.
        halve_after: epochs at the full rate, each later one at half of the one before; None: warm-up and cosine.
        average_from: first epoch (from 1) of those whose weights are averaged; None: the last epoch's weights.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    faster: Callable[[str], float] = same_rate
    halve_after: int | None = None
    average_from: int | None = None

    def groups(self, objective: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The parameters that train, by rate."""
        found: dict[float, list[nn.Parameter]] = {}
        for name, parameter in objective.named_parameters():
            if parameter.requires_grad:
                found.setdefault(self.faster(name), []).append(parameter)
        return [{"params": parameters, "lr": factor * lr} for factor, parameters in found.items()]


def halving(steps: int, after: int) -> Callable[[int], float]:
    """Learning-rate factor by step: 1 over the first `after` epochs of `steps` steps, then half of the epoch before's
    (the released fine-tuning of CAV-MAE, `MultiStepLR`)."""
    return lambda step: 0.5 ** max(0, step // steps - after + 1)


class MeanWeights:
    """The mean of a stage's weights over epochs, not of its answers: what the released CAV-MAE checkpoints are.

    Args:
        weights, load: of the stage.
        first: epoch (from 1) that begins it; None: there is none.
    """

    def __init__(
        self, weights: Callable[[], dict[str, Tensor]], load: Callable[[dict[str, Tensor]], None], first: int | None
    ):
        self._weights, self._load, self.first = weights, load, first
        self._count, self._sums = 0, dict[str, Tensor]()

    def add(self, epoch: int) -> None:
        """Count an epoch's weights in (from 1), where it is one of those that are averaged."""
        if self.first is None or epoch < self.first:
            return
        for name, x in self._weights().items():
            own = x.detach().cpu()
            begun = self._count and own.is_floating_point()  # counters are the last epoch's
            self._sums[name] = self._sums[name] + own if begun else own.clone()
        self._count += 1

    def state(self) -> dict[str, Any]:
        """For a resumable checkpoint; empty where nothing is averaged."""
        return {"averaged": {"count": self._count, "sums": self._sums}} if self._count else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to what `state` said."""
        if (saved := state.get("averaged")) is not None:
            self._count, self._sums = saved["count"], dict(saved["sums"])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While inside, the stage has the mean (where an epoch was counted)."""
        if not self._count:
            yield
            return
        own = {name: x.detach().clone() for name, x in self._weights().items()}
        self.settle()
        try:
            yield
        finally:
            self._load(own)

    @torch.no_grad()
    def settle(self) -> None:
        """Give the stage the mean for good."""
        if self._count:
            self._load({n: x / self._count if x.is_floating_point() else x for n, x in self._sums.items()})
