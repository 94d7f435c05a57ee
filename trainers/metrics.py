"""Sums over the batches of an epoch and over all ranks: loss, accuracy, and what else an objective tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from models.batch import AVBatch


class Ranks(Protocol):
    """What all ranks have together; see `trainers.loop.Rank`."""

    def total(self, *values: float) -> list[float]: ...

    def union(self, names: Iterable[str]) -> list[str]: ...


class Tally:
    """Weighted means in the making; a rank may lack figures that others have.

    Args:
        sums: what an interrupted epoch had (`sums`), on one rank alone.
    """

    def __init__(self, sums: Mapping[str, list[float]] | None = None) -> None:
        self._sums = {"loss": [0.0, 0.0], **{name: list(pair) for name, pair in (sums or {}).items()}}

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

    def sums(self, ranks: Ranks) -> dict[str, list[float]]:
        """Sum and count over all ranks by name."""
        names = ranks.union(self._sums)
        flat = ranks.total(*(x for name in names for x in self._sums.get(name, (0.0, 0.0))))
        return {name: list(pair) for name, pair in zip(names, zip(flat[::2], flat[1::2], strict=True), strict=True)}

    def means(self, ranks: Ranks) -> tuple[dict[str, float], float]:
        """Means over all ranks by name, and how many samples; figures with no count are left out."""
        sums = self.sums(ranks)
        return {name: value / count for name, (value, count) in sums.items() if count}, sums["loss"][1]
