"""What a run answered to the samples of a split, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """Answers by one way of choosing the module; N samples, C answers.

    Attributes:
        index: positions in the split, int64 [N].
        logits: float32 [N, C].
        label: int64 [N]; negative: none of the answers. Of clips with several labels float32 [N, C].
        right: bool [N]; of several labels, the best answer is one of them.
        observed: what can be told of each sample without an oracle, [N]; see `models.conditions.observed_condition`.
    """

    index: np.ndarray
    logits: np.ndarray
    label: np.ndarray
    right: np.ndarray
    observed: tuple[str, ...]

    @classmethod
    def of(cls, index: Tensor, logits: Tensor, label: Tensor, observed: Sequence[str]) -> Answers:
        """Of a batch."""
        best = logits.argmax(dim=1)
        right = best == label if label.dim() == 1 else label.gather(1, best[:, None])[:, 0] > 0
        values = {"index": index, "logits": logits.float(), "label": label, "right": right}
        return cls(**{name: x.cpu().numpy() for name, x in values.items()}, observed=tuple(observed))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Those of several batches, one after the other."""
        names = ("index", "logits", "label", "right")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(**arrays, observed=tuple(name for part in parts for name in part.observed))
