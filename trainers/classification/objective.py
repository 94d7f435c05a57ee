"""What classification minimises: cross-entropy of the pair and of each modality alone, or of one case's module.

Shapes: B samples, C classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.batch import AVBatch
from models.cavmae import CAVMAE
from models.tuned import Tuned
from trainers.metrics import StepOutput


class CompetentLoss(nn.Module):
    """Cross-entropy of the pair plus `weight` times that of each modality alone, over the same encoder
    outputs.

    The solo terms keep both encoders good on their own, as a pre-trained CAV-MAE's are, and train the
    single-modality path that serves missing modalities. A sample that has one modality contributes that path
    alone.
    """

    def __init__(self, net: CAVMAE, weight: float):
        super().__init__()
        self.net, self.weight = net, weight

    def forward(self, batch: AVBatch) -> StepOutput:
        """Cross-entropy of what each sample has and, in training, of each modality alone."""
        total = batch.label.new_zeros((), dtype=torch.float32)
        logits = total.new_empty(len(batch), self.net.classes)
        for modalities, rows in batch.groups():
            tokens = {m: self.net.encode(m, self.net.embed(m, getattr(batch, m)[rows])) for m in modalities}
            label, joint = batch.label[rows], self.net.join(tokens).float()
            total = total + F.cross_entropy(joint, label, reduction="sum")
            if len(modalities) == 2 and self.weight and self.training:
                for m in modalities:
                    alone = self.net.join({m: tokens[m]}).float()
                    total = total + self.weight * F.cross_entropy(alone, label, reduction="sum")
            logits = logits.index_copy(0, rows, joint)
        return StepOutput(total / len(batch), logits.detach())


class CaseLoss(nn.Module):
    """Cross-entropy of a frozen backbone with one case's module, on tokens cached before block `depth`."""

    def __init__(self, tuned: Tuned, depth: int):
        super().__init__()
        self.tuned, self.depth = tuned, depth

    def forward(self, batch: AVBatch) -> StepOutput:
        """Cross-entropy of the case's module."""
        logits = self.tuned(batch.audio, batch.visual, batch.present, self.depth).float()
        return StepOutput(F.cross_entropy(logits, batch.label), logits.detach())
