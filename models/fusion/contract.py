"""The contract of classification's methods: the recovery contract (`models.avqa.contract`) on encoders' outputs.

A batch's tokens come with NaN in the rows that `present` says are absent. A method returns `Recovered`, as a recovery
method of questions does, and the joint block answers from what that says is present; or it answers by itself and
returns `Fused`. It reads nothing of what is absent, and a sample's result depends on that sample alone.

Shapes: B samples, R of them, N tokens of one modality, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from models.avqa.contract import Losses, Recovered
from models.settings import BackboneConfig

TaskLoss = Callable[[Tensor, np.ndarray], Tensor]  # logits [R, C] of rows int64 [R] to what the task says of them, [R]


@dataclass(frozen=True)
class Fused:
    """An answer.

    Attributes:
        logits: [B, C].
        losses: computes the method's own losses, each [R] over the samples that have it (one that no sample has is
            left out), given the task's loss of further logits. Called in training alone, once.
    """

    logits: Tensor
    losses: Callable[[TaskLoss], Losses]


class Fusion(Protocol):
    """What stands behind the encoders: a module built as `Kind(config, classes, **sizes)`.

    Its settings are keyword arguments with defaults; the docstring describes them.

    Attributes:
        loss_names: its losses with their default weights.
    """

    loss_names: ClassVar[Mapping[str, float]]

    def __init__(self, config: BackboneConfig, classes: int, **sizes: Any) -> None: ...

    def __call__(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered | Fused:
        """Tokens [B, N, D] of either modality, NaN where absent, and `present`, bool [B, 2]. One that answers by
        itself has its `attention`, a module, beside that."""
        ...
