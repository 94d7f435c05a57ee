"""Metrics of an epoch: summed on the device step by step, over all ranks at the end, and read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.batch import AVBatch
from trainers.multilabel_metrics import mean_average_precision
from trainers.tables import MEAN_AP


@dataclass(frozen=True)
class StepOutput:
    """What an objective computes of a batch.

    Attributes:
        loss: [], mean over the samples; what is minimised.
        logits: [B, C], None where there is nothing to classify.
        metrics: by name a sum and the count that it is over, [2].
    """

    loss: Tensor
    logits: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def sum_and_count(values: Tensor) -> Tensor:
    """A metric per sample [R] as its sum and count, [2]."""
    flat = values.detach().float()
    return torch.stack([flat.sum(), flat.new_full((), len(flat))])


def weighted(
    losses: Mapping[str, Tensor], weights: Mapping[str, float], like: Tensor, samples: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of losses [R], over all `samples`, and each one's sum and count; 0 and none without any.

    Args:
        like: of the device that they are on.
        samples: of which R have the loss, so each one weighs the same however few have it.
    """
    total = like.new_zeros((), dtype=torch.float32)
    for name, loss in losses.items():
        total = total + weights[name] * loss.float().mean() * (len(loss) / samples)
    return total, {name: sum_and_count(loss) for name, loss in losses.items()}


class Ranks(Protocol):
    """What all ranks have together; see `trainers.loop.Rank`."""

    def total(self, *values: float) -> list[float]: ...

    def union(self, names: Iterable[str]) -> list[str]: ...

    def parts(self, own: Sequence[np.ndarray]) -> list[np.ndarray]: ...


class MeanMetrics:
    """Weighted means; a rank may lack metrics that others have.

    Args:
        device: where they are summed, in float64.
        sums: of an interrupted epoch (`sums`), on one rank alone.
    """

    def __init__(self, device: torch.device, sums: Mapping[str, list[float]] | None = None) -> None:
        self.device = device
        start = {"loss": [0.0, 0.0], **(sums or {})}
        self._sums = {name: torch.tensor(pair, dtype=torch.float64, device=device) for name, pair in start.items()}

    def add(self, batch: AVBatch, output: StepOutput) -> None:
        """One batch; nothing is read back from the device."""
        count = len(batch)
        self._add("loss", output.loss.detach().double() * count, count)
        if output.logits is not None and batch.label.dim() == 1:
            self._add("accuracy", (output.logits.argmax(dim=1) == batch.label).sum().double(), count)
        for name, pair in output.metrics.items():
            self._sums[name] = self._sums.get(name, 0) + pair.double()

    def _add(self, name: str, value: Tensor, count: int) -> None:
        self._sums[name] = self._sums.get(name, 0) + torch.stack([value, value.new_full((), count)])

    def sums(self, ranks: Ranks) -> dict[str, list[float]]:
        """Sum and count over all ranks by name."""
        read = torch.stack(list(self._sums.values())).tolist()
        mine = dict(zip(self._sums, read, strict=True))
        names = ranks.union(mine)
        flat = ranks.total(*(x for name in names for x in mine.get(name, (0.0, 0.0))))
        return {name: list(pair) for name, pair in zip(names, zip(flat[::2], flat[1::2], strict=True), strict=True)}

    def means(self, ranks: Ranks) -> tuple[dict[str, float], float]:
        """Means over all ranks by name, and the number of samples; metrics without a count are left out."""
        sums = self.sums(ranks)
        return {name: value / count for name, (value, count) in sums.items() if count}, sums["loss"][1]


class RankedClips:
    """Mean average precision of clips with several labels: it needs the scores of all of them at once."""

    def __init__(self) -> None:
        self._true: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    def add(self, batch: AVBatch, output: StepOutput) -> None:
        """One batch; nothing where its labels are an index, or nothing is classified."""
        if output.logits is not None and batch.label.dim() == 2:
            self._true.append((batch.label > 0).cpu().numpy())
            self._scores.append(output.logits.float().cpu().numpy())

    def means(self, ranks: Ranks) -> dict[str, float]:
        """The published mean over all classes, by name; empty where no clip came to any rank. Every rank asks, those to
        which none came, too."""
        true, scores = (ranks.parts(own) for own in (self._true, self._scores))
        if not true:
            return {}
        return {MEAN_AP: mean_average_precision(np.concatenate(true), np.concatenate(scores))[0]}
