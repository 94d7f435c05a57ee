"""What question answering minimises: Eq. 8 of a network with its recovery method, or the method's own losses.

Shapes: B questions, R rows of them, A answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.answerer import Answered, Answerer
from models.avqa.batch import NO_ANSWER, AVQABatch
from models.batch import take_away
from models.host import take
from models.modality import complete
from models.settings import Modality
from trainers.metrics import StepOutput, sum_and_count, weighted

Metrics = dict[str, Tensor]  # by name a sum and the count that it is over, [2]


def added(metrics: Metrics, more: Metrics) -> Metrics:
    """Metrics of both, those of one name as one."""
    return metrics | {name: metrics[name] + x if name in metrics else x for name, x in more.items()}


def divergence(complete: Tensor, without: Tensor) -> Tensor:
    """Kullback-Leibler divergence [R], in nats, of the answers `without` a modality from the `complete` ones.

    Args:
        complete, without: logits [R, A], -inf in both where an answer is not allowed.
    """
    expected, given = (x.float().log_softmax(dim=1) for x in (complete, without))
    barred = expected == float("-inf")  # which adds 0, not 0 times infinity
    return (expected.exp() * (expected - given).masked_fill(barred, 0)).sum(dim=1)


class OwnLosses(nn.Module):
    """A recovery method's own losses on complete samples, each with its weight."""

    def __init__(self, answerer: Answerer, weights: Mapping[str, float]):
        super().__init__()
        self.standardise, self.recovery, self.weights = answerer.standardise, answerer.recovery, weights

    def forward(self, batch: AVQABatch) -> StepOutput:
        """Their mean over the samples; there is nothing to classify."""
        batch = self.standardise(batch)
        losses = self.recovery(batch.audio, batch.visual, batch.present, batch.question).losses()
        total, metrics = weighted(losses, self.weights, batch.label, len(batch))
        return StepOutput(total, None, metrics)


class AnswerLoss(nn.Module):
    """Eq. 8: cross-entropy of what is there, and with each of `taken` taken away and recovered, plus the own
    losses of the recovery method and of the network.

    Taking away is `models.batch.take_away`, so the method sees NaN. A sample that has one modality alone
    keeps it, and the network's own losses (match) are those of complete samples. The logits, and the recovery
    method's losses, are those of what is there. A term that some of the samples have counts by their share of the
    batch, so every sample weighs the same however few are complete. `alternate_missing`: the complete rows
    of a batch take turns in which modality they lose, and count once for each turn: the same expectation for a
    fraction of the work. Where the turns do not come out even, the step's generator draws whose is first. Nothing
    here waits for the device: row sets are known to the host (`models.host`).

    `distillation` (ours; Hinton et al., 2015) adds, so weighted, how far the answers without a modality are from
    those of the complete sample (`divergence`), which it does not change.
    """

    def __init__(
        self,
        answerer: Answerer,
        taken: Sequence[Modality],
        weights: Mapping[str, float],
        frozen: Sequence[str] = (),
        alternate_missing: bool = False,
        distillation: float = 0.0,
    ):
        super().__init__()
        self.answerer, self.taken, self.weights, self.frozen = answerer, taken, weights, frozen
        self.alternate_missing, self.distillation = alternate_missing, distillation
        for name in frozen:
            getattr(answerer, name).requires_grad_(False)

    def train(self, mode: bool = True) -> AnswerLoss:
        """As usual, but frozen parts stay as in evaluation: no dropout in them."""
        super().train(mode)
        for name in self.frozen:
            getattr(self.answerer, name).eval()
        return self

    def forward(self, batch: AVQABatch) -> StepOutput:
        """Eq. 8 of a batch; logits and the method's losses are those of what is there."""
        batch = self.answerer.standardise(batch)
        total, metrics, there = self._answer(batch, "complete")
        both = complete(batch.present)
        turns = len(self.taken) if self.alternate_missing else 1
        for modality, rows in self._lacking(both, turns):
            less = replace(take_away(batch.select(rows), modality), negative=None)
            loss, more, without = self._answer(less, f"{modality}_missing")
            metrics = added(metrics, more)
            if self.distillation > 0:
                apart = divergence(take(there.logits.detach(), rows), without.logits)
                loss = loss + self.distillation * apart.mean()
                metrics = added(metrics, {"distillation": sum_and_count(apart)})
            total = total + loss * (len(rows) * turns / len(batch))
        if "recovery" not in self.frozen:
            loss, more = weighted(there.recovered.losses(), self.weights, batch.label, len(batch))
            total, metrics = total + loss, metrics | more
        return StepOutput(total, there.logits.detach().float(), metrics)

    def _lacking(self, both: np.ndarray, turns: int) -> Iterator[tuple[Modality, np.ndarray]]:
        """What is taken away, and from which of the complete rows [R]: from every one of `turns`, or from all."""
        first = int(torch.randint(turns, ())) if self.taken and len(both) % turns else 0
        for turn, modality in enumerate(self.taken, first):
            rows = both[turn % turns :: turns]
            if len(rows):
                yield modality, rows

    def _answer(self, batch: AVQABatch, name: str) -> tuple[Tensor, Metrics, Answered]:
        answered = self.answerer.answer(batch)
        logits = answered.logits
        losses = F.cross_entropy(logits.float(), batch.label, ignore_index=NO_ANSWER, reduction="none")
        metrics = {f"ce_{name}": sum_and_count(losses)}
        total = losses.mean()
        if name != "complete":
            metrics[f"accuracy_{name}"] = sum_and_count(logits.argmax(dim=1) == batch.label)
        both = np.intersect1d(complete(batch.present), complete(answered.recovered.present))
        of_all = getattr(self.answerer.network, "incomplete_losses", ())
        for kind, loss in answered.losses.items():
            own = loss if kind in of_all else take(loss, both)
            if len(own):
                term, figure = weighted({kind: own}, self.weights, batch.label, len(batch))
                total, metrics = total + term, metrics | figure
        return total, metrics, answered
