"""Sums over the batches of an epoch and over all ranks: loss, accuracy, and what else an objective tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from models.batch import AVBatch


class Ranks(Protocol):
    """What all ranks have together; see `trainers.fit.Place`."""

    def total(self, *values: float) -> list[float]: ...

    def union(self, names: Iterable[str]) -> list[str]: ...


class Tally:
    """Weighted means in the making; a rank may lack figures that others have."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {"loss": [0.0, 0.0]}

    def add(self, loss: float, batch: AVBatch, logits: Tensor | None, told: Mapping[str, Tensor]) -> None:
        """One batch: its mean loss, logits [B, C] if it has any, and sums told with their counts [2]."""
        self._add("loss", loss * len(batch), len(batch))
        if logits is not None:
            self._add("accuracy", (logits.argmax(dim=1) == batch.label).sum().item(), len(batch))
        for name, figure in told.items():
            self._add(name, *figure.tolist())

    def _add(self, name: str, value: float, count: float) -> None:
        sums = self._sums.setdefault(name, [0.0, 0.0])
        sums[0] += value
        sums[1] += count

    def means(self, ranks: Ranks) -> tuple[dict[str, float], float]:
        """Means over all ranks by name, and how many samples; figures with no count are left out."""
        names = ranks.union(self._sums)
        flat = ranks.total(*(x for name in names for x in self._sums.get(name, (0.0, 0.0))))
        pairs = dict(zip(names, zip(flat[::2], flat[1::2], strict=True), strict=True))
        return {name: value / count for name, (value, count) in pairs.items() if count}, pairs["loss"][1]
