"""Dual-level prompts: learnable tokens at the encoders' input and in the fusion's keys and values.

*Prompt the Missing* (CVPR 2025 workshop TMM-OpenWorld; summer conference of IEIE 2025), built as its text
says; the released model does not construct. One set per case. Input level: `length` tokens are prepended to
each modality's tokens before encoder block `depth` (0: right after the patch embedding, as in the paper), and
leave after the last encoder block; with `deep`, every block from `depth` on gets tokens of its own in their
place (VPT-deep, Jia et al. 2022). Attention level: `length` tokens per direction join the fusion's keys and
values, the queries are a modality's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.cavmae import CAVMAE
from models.settings import MODALITIES, BackboneConfig, Modality, PromptSize
from models.tuned import CaseModule


class DualPrompts(CaseModule):
    """The prompt set of one case; a `models.cavmae.TokenHook`.

    Args:
        config: the backbone's sizes.
        size: the prompt set's sizes.

    Raises:
        ValueError: `depth` is not an encoder block of the backbone.
    """

    def __init__(self, config: BackboneConfig, size: PromptSize):
        super().__init__()
        if not 0 <= size.depth < config.depth:
            raise ValueError(f"prompt depth {size.depth}: the backbone's encoder blocks are 0..{config.depth - 1}")
        self.size = size
        layers = config.depth - size.depth if size.deep else 1

        def tokens(*shape: int) -> nn.ParameterDict:
            return nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(*shape, config.dim)) for m in MODALITIES})

        self.input_tokens = tokens(layers, size.length) if size.input_level else nn.ParameterDict()
        self.attention_tokens = tokens(size.length) if size.attention_level else nn.ParameterDict()

    def enter(self, modality: Modality, block: int, tokens: Tensor) -> Tensor:
        """Before encoder block `block`: tokens [B, N or m + N, D] -> [B, m + N, D] from `depth` on."""
        layer = block - self.size.depth
        if not self.size.input_level or layer < 0 or (layer > 0 and not self.size.deep):
            return tokens
        prompt = self.input_tokens[modality][layer].expand(len(tokens), -1, -1)
        own = tokens if layer == 0 else tokens[:, prompt.shape[1] :]
        return torch.cat([prompt, own], dim=1)

    def leave(self, modality: Modality, tokens: Tensor) -> Tensor:
        """After the last encoder block: [B, m + N, D] -> the modality's own tokens [B, N, D]."""
        return tokens[:, self.input_tokens[modality].shape[1] :] if self.size.input_level else tokens

    def keys(self, modality: Modality, batch: int) -> Tensor | None:
        """Attention-level prompts [B, m, D] for the queries of `modality`, None without that level."""
        return self.attention_tokens[modality].expand(batch, -1, -1) if self.size.attention_level else None

    def run(self, backbone: CAVMAE, audio: Tensor, visual: Tensor, present: Tensor | None, depth: int | None) -> Tensor:
        """The backbone's logits [B, C] with these prompts; arguments as of the backbone."""
        self.check_depth(depth, self.size.depth)
        return backbone(audio, visual, present, depth, hook=self)


def concatenate(sets: Sequence[DualPrompts], config: BackboneConfig) -> DualPrompts:
    """All sets as one, token after token: the published *concat* evaluation, which needs to know no case.

    Raises:
        ValueError: no sets, or sets that differ in more than their length.
    """
    if not sets:
        raise ValueError("no prompt sets to join")
    size = sets[0].size
    if any(replace(s.size, length=size.length) != size for s in sets):
        raise ValueError("these prompt sets differ in more than their length: they can't be joined")
    joined = DualPrompts(config, replace(size, length=sum(s.size.length for s in sets)))
    with torch.no_grad():
        for name, parameter in joined.named_parameters():
            parameter.copy_(torch.cat([s.get_parameter(name) for s in sets], dim=-2))
    return joined
