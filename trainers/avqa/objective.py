"""What question answering minimises: Eq. 8 of a network with its recovery method, or the method's own losses.

Shapes: B questions, R rows of them, A answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.answerer import Answerer
from models.avqa.batch import AVQABatch
from models.batch import take_away
from models.cavmae import Modality
from trainers.avqa.items import NO_ANSWER
from trainers.metrics import StepOutput, sum_and_count

Metrics = dict[str, Tensor]  # by name a sum and the count that it is over, [2]


class OwnLosses(nn.Module):
    """A recovery method's own losses on those samples that are complete, each with its weight."""

    def __init__(self, answerer: Answerer, weights: Mapping[str, float]):
        super().__init__()
        self.standardise, self.recovery, self.weights = answerer.standardise, answerer.recovery, weights

    def forward(self, batch: AVQABatch) -> StepOutput:
        """Their mean over the samples; there is nothing to classify."""
        total, metrics = self.of(self.standardise(batch))
        return StepOutput(total, None, metrics)

    def of(self, batch: AVQABatch) -> tuple[Tensor, Metrics]:
        """Of a standardised batch the weighted sum of the means, and each one's sum and count; 0 and none
        without a complete sample."""
        total = batch.label.new_zeros((), dtype=torch.float32)
        whole = batch.select(batch.present.all(dim=1))
        metrics: Metrics = {}
        if len(whole):
            for name, loss in self.recovery.losses(whole.audio, whole.visual, whole.question).items():
                metrics[name] = sum_and_count(loss)
                total = total + self.weights[name] * loss.float().mean()
        return total, metrics


class AnswerLoss(nn.Module):
    """Eq. 8: cross-entropy of what is there, and with each of `taken` taken away and recovered, plus the own
    losses of the recovery method and of the network.

    Taking away is `models.batch.take_away`, so the method sees NaN. A sample that has one modality alone
    keeps it, and the network's own losses (match) are those of complete samples. The logits are those of what
    is there. `alternate_missing`: the rows of a batch take turns in which modality they lose, so each term is the mean
    of a part of them: the same expectation for a fraction of the work.
    """

    def __init__(
        self,
        answerer: Answerer,
        taken: Sequence[Modality],
        weights: Mapping[str, float],
        frozen: Sequence[str] = (),
        alternate_missing: bool = False,
    ):
        super().__init__()
        self.answerer, self.taken, self.weights, self.frozen = answerer, taken, weights, frozen
        self.alternate_missing = alternate_missing
        self.own = OwnLosses(answerer, weights)
        for name in frozen:
            getattr(answerer, name).requires_grad_(False)

    def train(self, mode: bool = True) -> AnswerLoss:
        """As usual, but frozen parts stay as in evaluation: no dropout in them."""
        super().train(mode)
        for name in self.frozen:
            getattr(self.answerer, name).eval()
        return self

    def forward(self, batch: AVQABatch) -> StepOutput:
        batch = self.answerer.standardise(batch)
        total, logits, metrics = self._answer(batch, "complete")
        for modality, rows in self._lacking(batch):
            less = replace(take_away(batch.select(rows), modality), negative=None)
            loss, _, more = self._answer(less, f"{modality}_missing")
            total, metrics = total + loss, metrics | more
        if "recovery" not in self.frozen:
            loss, more = self.own.of(batch)
            total, metrics = total + loss, metrics | more
        return StepOutput(total, logits.detach().float(), metrics)

    def _lacking(self, batch: AVQABatch) -> Iterator[tuple[Modality, Tensor]]:
        """What is taken away, and from which complete rows [R]."""
        both = batch.present.all(dim=1).nonzero().squeeze(1)
        for turn, modality in enumerate(self.taken):
            rows = both[turn :: len(self.taken)] if self.alternate_missing else both
            if len(rows):
                yield modality, rows

    def _answer(self, batch: AVQABatch, name: str) -> tuple[Tensor, Tensor, Metrics]:
        logits, aux = self.answerer.answer(batch)
        losses = F.cross_entropy(logits.float(), batch.label, ignore_index=NO_ANSWER, reduction="none")
        metrics = {f"ce_{name}": sum_and_count(losses)}
        total = losses.mean()
        if name != "complete":
            metrics[f"accuracy_{name}"] = sum_and_count(logits.argmax(dim=1) == batch.label)
        both = batch.present.all(dim=1)
        for kind, loss in aux.items() if bool(both.any()) else ():
            metrics[kind] = sum_and_count(loss[both])
            total = total + self.weights[kind] * loss[both].float().mean()
        return total, logits, metrics
