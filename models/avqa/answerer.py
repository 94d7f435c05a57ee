"""A recovery method with a network behind it, as one module that takes features as stored.

Shapes: B questions, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from models.avqa.batch import AVQABatch, FeatureSpec
from models.avqa.contract import Losses, Network, Recovered, Recovery
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.avqa.scale import Scale, Standardise


@dataclass(frozen=True)
class Design:
    """All that rebuilding the module takes besides its weights.

    Attributes:
        spec: sizes of the features.
        words, answers: sizes of the vocabularies.
        network: its name in `NETWORKS`; None: the recovery method stands alone.
        sizes: of the network, over the paper's.
        recovery: its name in `RECOVERIES`.
        recovery_sizes: of the method, over its defaults.
    """

    spec: FeatureSpec
    words: int
    answers: int
    network: str | None
    sizes: Mapping[str, Any]
    recovery: str
    recovery_sizes: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint's JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Design:
        """The design that `as_dict` wrote."""
        return cls(**{**values, "spec": FeatureSpec(**values["spec"])})


@dataclass(frozen=True)
class Answered:
    """What comes of a batch.

    Attributes:
        logits: [B, A], -inf where the batch does not allow an answer.
        losses: of the network, [B] each.
        recovered: what the network saw.
    """

    logits: Tensor
    losses: Losses
    recovered: Recovered


class Answerer(nn.Module):
    """Standardises a batch, recovers what it lacks, then answers; parts are `recovery` and `network`.

    Args:
        design: of the parts.
        scale: of the features.

    Raises:
        ValueError: a size that a part can't have.
    """

    def __init__(self, design: Design, scale: Scale):
        super().__init__()
        self.design, self.scale = design, scale
        self.standardise = Standardise(scale)
        self.recovery = as_module(RECOVERIES[design.recovery](design.spec, design.words, **design.recovery_sizes))
        self.network: nn.Module | None = None
        if design.network is not None:
            kind = NETWORKS[design.network]
            self.network = as_module(kind(design.spec, design.words, design.answers, **design.sizes))

    def forward(self, batch: AVQABatch) -> tuple[Tensor, Losses]:
        """Logits [B, A], -inf where the batch does not allow an answer, and the network's own losses [B]."""
        answered = self.answer(self.standardise(batch))
        return answered.logits, answered.losses

    def answer(self, batch: AVQABatch) -> Answered:
        """The same of a batch that is standardised already."""
        assert self.network is not None, "a recovery method alone has no answers"
        found: Recovered = self.recovery(batch.audio, batch.visual, batch.present, batch.question)
        seen = (found.audio, found.visual, found.present, batch.question, batch.negative)
        taught = self.network.training and getattr(self.network, "takes_answers", False)
        logits, losses = self.network(*seen, **({"answer": batch.label} if taught else {}))
        if batch.allowed is not None:
            logits = logits.masked_fill(~batch.allowed, float("-inf"))
        return Answered(logits, losses, found)


def as_module(part: Network | Recovery) -> nn.Module:
    """A network or a recovery method as the module that it is."""
    if not isinstance(part, nn.Module):
        raise TypeError(f"{type(part).__name__} is no torch module")
    return part
