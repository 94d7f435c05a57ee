"""Retrieval: a missing modality from the training samples that are nearest by what is present and by the question.

Ours, in the spirit of R2ScP (2026), whose code is not public: the one method here that needs no generator. The
module holds a bank of complete training samples, standardised like its input. A sample's keys are its sound
(mean over the steps), its picture (mean over steps and places) and its question (how often each word of the
vocabulary stands in it), each scaled to length 1; similarity is the cosine of the present modality's keys plus
`question` times that of the questions'. The missing modality is the mean of the `neighbours` most similar
samples', weighted by a softmax of similarity over `temperature`.

A sample must not find itself, or what it lacks would be there: samples of the bank whose present modality has a
cosine of 1 (all questions about the same clip) are left out, in training and in use (a clip may be asked about in
the train split and in others; a part that is frozen trains in evaluation mode).

Shapes: B questions, T time steps, N samples of the bank, K neighbours, R rows of a visual step, W words of the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.batch import FeatureSpec
from models.avqa.contract import Recovered
from models.avqa.recovery.filling import filled
from models.modality import OTHER, all_present, lacking
from models.settings import MODALITIES, Modality

ITSELF = 1 - 1e-4  # cosine from which on a sample is the same clip (the bank is stored in float16)


class Retrieval(nn.Module):
    """Fills in from its bank; what is present stays as it is. Nothing here trains.

    Args:
        spec: sizes of the features.
        words: size of the vocabulary.
        samples: N, drawn from the complete training samples; they are part of the checkpoint, in float16:
            T (Da + rows Dv) values each.
        neighbours: K.
        temperature: of the softmax over the neighbours' similarities.
        question: weight of the question's similarity beside that of the present modality.

    Raises:
        ValueError: more neighbours than samples, none of either, or a temperature that is not above 0.
    """

    loss_names: ClassVar[Mapping[str, float]] = {}

    def __init__(
        self,
        spec: FeatureSpec,
        words: int,
        *,
        samples: int = 512,
        neighbours: int = 8,
        temperature: float = 0.1,
        question: float = 0.5,
    ):
        super().__init__()
        if not 1 <= neighbours <= samples:
            raise ValueError(f"neighbours {neighbours}: from 1 to the number of samples ({samples})")
        if temperature <= 0:
            raise ValueError(f"temperature {temperature}: above 0")
        self.samples, self.neighbours, self.temperature, self.question = samples, neighbours, temperature, question
        self.words = words
        shapes = {"audio": (spec.steps, spec.audio), "visual": (spec.steps, spec.rows, spec.visual)}
        self.bank = nn.ParameterDict({m: self._fixed(samples, *shape) for m, shape in shapes.items()})
        self.asked = self._fixed(samples, words)

    @staticmethod
    def _fixed(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, dtype=torch.float16), requires_grad=False)

    @torch.no_grad()
    def fill(self, audio: Tensor, visual: Tensor, question: Tensor) -> None:
        """Put N standardised, complete training samples in the bank, [N, T, ...]."""
        for m, x in zip(MODALITIES, (audio, visual), strict=True):
            self.bank[m].copy_(x)
        self.asked.copy_(self._counts(question))

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor, question: Tensor) -> Recovered:
        """Both modalities, what is absent taken from the training samples most like the one that is there."""
        values: dict[str, Tensor] = {"audio": audio, "visual": visual}
        found: dict[str, Tensor] = {
            m: filled(values[m], rows, self.retrieve(m, values[OTHER[m]][rows], question[rows]))
            for m, rows in lacking(present).items()
        }
        values |= found
        return Recovered(values["audio"], values["visual"], all_present(len(present), present.device))

    @torch.no_grad()
    def retrieve(self, modality: Modality, other: Tensor, question: Tensor) -> Tensor:
        """`modality` [B, T, ...] from the other one's features and the words [B, L] of the question."""
        weights, chosen = self.nearest(modality, other, question)
        return torch.einsum("bk,bk...->b...", weights, self.bank[modality][chosen].float())

    def nearest(self, modality: Modality, other: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [B, K] of the nearest samples, and which these are, int64 [B, K]; weights sum to 1, or to 0 where the
        bank holds nothing but the sample itself."""
        alike = _key(other) @ _key(self.bank[OTHER[modality]]).T  # [B, N]
        asked = F.normalize(self._counts(question), dim=-1) @ F.normalize(self.asked.double(), dim=-1).T
        similarity = alike + self.question * asked
        similarity = similarity.masked_fill(alike >= ITSELF, -torch.inf)
        best = similarity.sort(dim=1, descending=True, stable=True)
        values, chosen = best.values[:, : self.neighbours], best.indices[:, : self.neighbours]
        lowest = -2.0 - self.question
        weights = (values.clamp_min(lowest) / self.temperature).softmax(dim=1)
        return weights.masked_fill(values == -torch.inf, 0.0).float(), chosen

    def _counts(self, question: Tensor) -> Tensor:
        """How often each word stands in a question, [B, W]; padding does not count."""
        counts = torch.zeros(len(question), self.words, dtype=torch.float64, device=question.device)
        return counts.scatter_add(1, question, (question != 0).double())


def _key(x: Tensor) -> Tensor:
    """Means over steps and places, scaled to length 1: [B, T, ..., D] -> float64 [B, D], which autocast leaves
    alone: bfloat16 can't tell a clip from its neighbours."""
    return F.normalize(x.float().flatten(1, -2).mean(dim=1).double(), dim=-1)
