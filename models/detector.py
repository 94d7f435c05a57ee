"""Which modality is ruined? A logistic regression on token statistics, trained on the training split alone.

It replaces the oracle of situation-specific evaluation: its verdict per modality names the case whose prompts
are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.cavmae import MODALITIES, Modality


def token_statistics(tokens: Tensor) -> Tensor:
    """Mean and log standard deviation over a sample's tokens, and of neighbours' differences: [B, N, D] ->
    [B, 3 D]."""
    tokens = tokens.float()
    steps = tokens.diff(dim=1)
    return torch.cat(
        [tokens.mean(dim=1), tokens.std(dim=1).clamp_min(1e-4).log(), steps.std(dim=1).clamp_min(1e-4).log()],
        dim=1,
    )


class QualityDetector(nn.Module):
    """Probability that a modality of a sample is ruined, from its tokens at the cached depth.

    Statistics are measured in standard deviations of the clean samples, and enter with and without sign, cut
    at 5: noise moves them either way (blur calms, grain roughens), and one kind must not drown the others.

    Args:
        dim: token width D.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.probes = nn.ModuleDict({m: nn.Linear(6 * dim, 1) for m in MODALITIES})
        for m in MODALITIES:
            self.register_buffer(f"mean_{m}", torch.zeros(3 * dim))
            self.register_buffer(f"std_{m}", torch.ones(3 * dim))

    def forward(self, modality: Modality, tokens: Tensor) -> Tensor:
        """Tokens [B, N, D] -> logits [B], positive: ruined."""
        return self.probes[modality](self._features(modality, token_statistics(tokens))).squeeze(1)

    def _features(self, modality: Modality, statistics: Tensor) -> Tensor:  # [B, 3 D] -> [B, 6 D]
        x = (statistics - getattr(self, f"mean_{modality}")) / getattr(self, f"std_{modality}")
        return torch.cat([x.clamp(-5, 5), x.abs().clamp(max=5)], dim=1)

    def fit(self, modality: Modality, statistics: Tensor, ruined: Tensor, decay: float = 1e-2) -> float:
        """Fit one probe by L-BFGS on statistics [S, 3 D] and bool [S]; both classes weigh the same.

        Returns:
            accuracy on what it was fitted to, balanced over the classes.

        Raises:
            ValueError: fewer than two clean samples, or no ruined one.
        """
        clean = statistics[~ruined]
        if len(clean) < 2 or len(clean) == len(statistics):
            raise ValueError(f"{len(clean)} clean samples of {len(statistics)}: both classes are needed")
        mean, std = clean.mean(dim=0), clean.std(dim=0).clamp_min(1e-4)
        getattr(self, f"mean_{modality}").copy_(mean)
        getattr(self, f"std_{modality}").copy_(std)
        x, y = self._features(modality, statistics), ruined.float()
        probe = self.probes[modality]
        assert isinstance(probe, nn.Linear)
        weight = torch.where(ruined, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
        optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(probe(x).squeeze(1), y, weight=weight)
            loss = loss + decay * probe.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        with torch.no_grad():
            right = (probe(x).squeeze(1) > 0) == ruined
            return float((right.float() * weight).mean())
