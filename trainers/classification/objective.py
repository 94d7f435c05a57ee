"""What classification minimises: the loss of the pair and of each modality alone, or of one case's module.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.batch import AVBatch, take_away
from models.cavmae import CAVMAE
from models.fusion.net import FusedNet
from models.host import take
from models.modality import complete
from models.settings import MODALITIES
from models.tuned import Tuned
from trainers.classification.targets import Loss
from trainers.metrics import StepOutput, sum_and_count, weighted

Reduction = Literal["mean", "sum", "none"]


def clip_loss(logits: Tensor, label: Tensor, loss: Loss, reduction: Reduction = "mean") -> Tensor:
    """Over the samples, [], or of each, [B]: cross-entropy (`ce`), or the mean over classes of binary cross-entropies
    (`bce`, as Gong et al. 2023 for clips with several labels).

    Args:
        logits: float32 [B, C].
        label: int64 [B] (of `ce` alone), or float32 [B, C].
    """
    if loss == "ce":
        return F.cross_entropy(logits, label, reduction=reduction)
    losses = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(dim=1)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()


def clip_metrics(logits: Tensor, label: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Accuracy where targets are shares of classes of which one counts most; of an index the loop counts by itself."""
    if loss == "bce" or label.dim() == 1:
        return {}
    return {"accuracy": sum_and_count(logits.argmax(dim=1) == label.argmax(dim=1))}


class CompetentLoss(nn.Module):
    """The loss of the pair plus `weight` times that of each modality alone, over the same encoder outputs.

    The solo terms keep both encoders good on their own, as a pre-trained CAV-MAE's are, and train the
    single-modality path that serves missing modalities. A sample that has one modality contributes that path
    alone.
    """

    def __init__(self, net: CAVMAE, weight: float, loss: Loss = "ce"):
        super().__init__()
        self.net, self.weight, self.loss = net, weight, loss

    def forward(self, batch: AVBatch) -> StepOutput:
        """The loss of what each sample has and, in training, of each modality alone."""
        total = batch.label.new_zeros((), dtype=torch.float32)
        logits = total.new_empty(len(batch), self.net.classes)
        for modalities, rows in batch.groups():
            tokens = {m: self.net.encode(m, self.net.embed(m, getattr(batch, m)[rows])) for m in modalities}
            label, joint = batch.label[rows], self.net.join(tokens).float()
            total = total + clip_loss(joint, label, self.loss, "sum")
            if len(modalities) == 2 and self.weight and self.training:
                for m in modalities:
                    alone = self.net.join({m: tokens[m]}).float()
                    total = total + self.weight * clip_loss(alone, label, self.loss, "sum")
            logits = logits.index_copy(0, rows, joint)
        found = logits.detach()
        return StepOutput(total / len(batch), found, clip_metrics(found, batch.label, self.loss))


class CaseLoss(nn.Module):
    """The loss of a frozen backbone with one case's module, on tokens cached before block `depth`."""

    def __init__(self, tuned: Tuned, depth: int, loss: Loss = "ce"):
        super().__init__()
        self.tuned, self.depth, self.loss = tuned, depth, loss

    def forward(self, batch: AVBatch) -> StepOutput:
        """The loss of the case's module."""
        logits = self.tuned(batch.audio, batch.visual, batch.present, self.depth).float()
        found = logits.detach()
        loss = clip_loss(logits, batch.label, self.loss)
        return StepOutput(loss, found, clip_metrics(found, batch.label, self.loss))


class FuseLoss(nn.Module):
    """The loss of what each sample has plus, in training, `weight` times that of complete samples without either
    modality, over the same encoder outputs, and the method's own losses of what there is, each with its weight.

    Beside `CompetentLoss` the one difference is the method: with `masking` both compute the same.
    """

    def __init__(self, net: FusedNet, weight: float, weights: Mapping[str, float], loss: Loss = "ce"):
        super().__init__()
        self.net, self.weight, self.weights, self.loss = net, weight, weights, loss

    def forward(self, batch: AVBatch) -> StepOutput:
        """Of a batch; logits are those of what is there."""
        audio, visual = self.net.tokens(batch.audio, batch.visual, batch.present)
        tokens = replace(batch, audio=audio, visual=visual)
        fused = self.net.fuse(audio, visual, batch.present)
        total = clip_loss(fused.logits.float(), batch.label, self.loss)
        found = fused.logits.detach().float()
        metrics = clip_metrics(found, batch.label, self.loss)
        if self.training:
            total = total + self.weight * self._without_either(tokens)

            def task(logits: Tensor, rows: np.ndarray) -> Tensor:
                return clip_loss(logits.float(), take(batch.label, rows), self.loss, "none")

            own, more = weighted(fused.losses(task), self.weights, total, len(batch))
            total, metrics = total + own, {**metrics, **more}
        return StepOutput(total, found, metrics)

    def _without_either(self, tokens: AVBatch) -> Tensor:
        """The losses of complete samples without sound and without picture, over all samples: []."""
        total = tokens.label.new_zeros((), dtype=torch.float32)
        both = tokens.select(complete(tokens.present))
        for modality in MODALITIES if self.weight and len(both) else ():
            less = take_away(both, modality)
            logits = self.net.fuse(less.audio, less.visual, less.present).logits.float()
            total = total + clip_loss(logits, less.label, self.loss, "sum")
        return total / len(tokens)
