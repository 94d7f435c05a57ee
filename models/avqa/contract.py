"""The recovery contract: what a recovery method and a network promise each other.

A batch comes with NaN in the rows that `present` says are absent. A *recovery method* returns what the
network is to see, `Recovered`: what it filled in it marks present; what it leaves out (bypass, masking) stays
absent; it may change features that are present. A *network* attends only to what is marked present and reads
nothing of the rest, so NaN there reaches neither its output nor a gradient. Either may have losses of its own,
per sample, by the names that it declares with their default weights in `loss_names`.

Shapes: B questions, T time steps, P places, L words, A answers, Da and Dv widths; R of the B questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from models.avqa.batch import FeatureSpec

Losses = dict[str, Tensor]


def no_losses() -> Losses:
    """The losses of a method that has none."""
    return {}


@dataclass(frozen=True)
class Recovered:
    """What a recovery method hands to the network.

    Attributes:
        audio: [B, T, Da]; visual: [B, T, rows, Dv]; not read where absent.
        present: bool [B, 2]; no NaN in what it says is there.
        losses: computes the method's own losses, each [R] over the samples that have it (a loss that no
            sample has is left out). Called in training, once, after the network has answered; in use never.
    """

    audio: Tensor
    visual: Tensor
    present: Tensor
    losses: Callable[[], Losses] = no_losses


class Recovery(Protocol):
    """What stands in front of a network: a module built as `Kind(spec, words, **sizes)`.

    It reads nothing of the rows that `present` says are absent, and a sample's result depends on that sample
    alone. Its settings are keyword arguments with defaults; the docstring describes them.

    Attributes:
        loss_names: its losses with their default weights.
        changes_complete: (False where it is left out) it changes features of complete samples, too. Frames of other
            clips, which it does not see, would be told by that alone, so a network gets none.
    """

    loss_names: ClassVar[Mapping[str, float]]

    def __init__(self, spec: FeatureSpec, words: int, **sizes: Any) -> None: ...

    def __call__(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered: ...


@runtime_checkable
class HoldsSamples(Protocol):
    """A recovery method that holds training samples. Before training it gets complete ones, drawn by the run's
    seed; what it keeps of them is among its weights, so a checkpoint needs no training data.

    Attributes:
        samples: how many it has room for.
    """

    samples: int

    def fill(self, audio: Tensor, visual: Tensor, question: Tensor) -> None:
        """Take `samples` standardised samples [N, ...]."""
        ...


class Network(Protocol):
    """A question-answering network: a module built as `Kind(spec, words, answers, **sizes)`.

    One sample's output depends on that sample alone, and on nothing that `present` says is absent. Settings
    as of `Recovery`.

    Attributes:
        loss_names: its losses with their default weights.
        takes_negatives: it has a use for frames of other clips, `negative` [B, T, rows, Dv], in training.
        takes_answers: (False where it is left out) its losses need the right answers: in training it is called with
            `answer`, int64 [B], `NO_ANSWER` where there is none. Its logits do not depend on them.
        incomplete_losses: (none where it is left out) which of its losses count for incomplete samples, too.
    """

    loss_names: ClassVar[Mapping[str, float]]
    takes_negatives: ClassVar[bool]

    def __init__(self, spec: FeatureSpec, words: int, answers: int, **sizes: Any) -> None: ...

    def __call__(
        self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor, negative: Tensor | None = None
    ) -> tuple[Tensor, Losses]:
        """logits [B, A] and its own losses [B], which count for complete samples alone (but see above)."""
        ...
