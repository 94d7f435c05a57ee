"""Multiplications and additions of one training step per sample, counted from the sizes alone.

A product of [n, i] and [i, o] counts 2 n i o. Norms, softmax, GELU and sums are left out (they cost memory
traffic, not arithmetic). A linear layer costs its forward once more for the gradient of its input and once
more for that of its weights; attention has no weights, its backward is twice its forward, frozen or not.

Shapes: N tokens, M keys, D width, R MLP ratio, L encoder depth, k first live block, m prompt tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

from models.settings import MODALITIES, PATCH, BackboneConfig

CHANNELS = {"audio": 1, "visual": 3}


@dataclass(frozen=True)
class Cost:
    """FLOPs of matrix products with weights, and of those of attention (no weights)."""

    linear: float = 0.0
    attention: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.linear + other.linear, self.attention + other.attention)

    def times(self, linear: float, attention: float) -> float:
        return linear * self.linear + attention * self.attention

    @property
    def total(self) -> float:
        return self.linear + self.attention


def block(config: BackboneConfig, tokens: int) -> Cost:
    """Forward of one transformer block over N tokens: qkv 3 D^2, projection D^2, MLP 2 R D^2 per token."""
    d, hidden = config.dim, int(config.dim * config.mlp_ratio)
    return Cost(2 * tokens * (4 * d * d + 2 * d * hidden), 4 * tokens * tokens * d)


def fusion(config: BackboneConfig, tokens: int, keys: int) -> Cost:
    """Forward of one direction of the cross-attention: N queries over M keys."""
    d = config.dim
    return Cost(4 * tokens * d * d + 4 * keys * d * d, 4 * tokens * keys * d)


def embedding(config: BackboneConfig) -> float:
    """Both patch embeddings."""
    return sum(2 * config.tokens[m] * PATCH * PATCH * CHANNELS[m] * config.dim for m in MODALITIES)


def _encoders(config: BackboneConfig, blocks: int, prompts: int = 0) -> Cost:
    costs = [block(config, config.tokens[m] + prompts) for m in MODALITIES for _ in range(blocks)]
    return reduce(add, costs, Cost())


def _rest(config: BackboneConfig, classes: int, prompts: int = 0) -> Cost:
    """Fusion, joint blocks and head on the pair."""
    a, v = (config.tokens[m] for m in MODALITIES)
    parts = [fusion(config, a, v + prompts), fusion(config, v, a + prompts), _head(config, classes)]
    return reduce(add, [*parts, *(block(config, a + v) for _ in range(config.joint_depth))])


def _head(config: BackboneConfig, classes: int) -> Cost:
    return Cost(2 * config.dim * classes)


def _solo(config: BackboneConfig, classes: int) -> Cost:
    """The passes of each modality alone that fine-tuning's loss adds: joint blocks and head, no fusion."""
    parts = [block(config, config.tokens[m]) for m in MODALITIES for _ in range(config.joint_depth)]
    return reduce(add, [*parts, *(_head(config, classes) for _ in MODALITIES)])


def forward(config: BackboneConfig, classes: int) -> float:
    """One forward of the pair."""
    return embedding(config) + (_encoders(config, config.depth) + _rest(config, classes)).total


def finetune_step(config: BackboneConfig, classes: int) -> float:
    """Forward, and backward to inputs and weights; the patch embeddings need no gradient of their input."""
    live = _encoders(config, config.depth) + _rest(config, classes) + _solo(config, classes)
    return 2 * embedding(config) + live.times(3, 3)


def prompt_step(config: BackboneConfig, classes: int, depth: int, length: int) -> float:
    """Forward of the live blocks, and gradients of activations alone, from the logits down to block k."""
    live = _encoders(config, config.depth - depth, length) + _rest(config, classes, length)
    return live.times(2, 3)


def lora_step(config: BackboneConfig, classes: int, depth: int, rank: int) -> float:
    """As prompts without their tokens, less the input gradient of the first qkv, plus the bypasses."""
    live = _encoders(config, config.depth - depth) + _rest(config, classes)
    tokens = sum(config.tokens.values())
    first = 2 * tokens * 3 * config.dim**2  # nothing that trains lies before it
    width = config.dim * rank + rank * 3 * config.dim
    return live.times(2, 3) - first + _bypasses(config, depth, 2 * tokens * width, 2 * tokens * config.dim * rank)


def adapter_step(config: BackboneConfig, classes: int, depth: int, width: int) -> float:
    """As LoRA, but the first live block needs no backward at all: its adapter comes after its MLP."""
    behind = _encoders(config, config.depth - depth - 1) + _rest(config, classes)
    tokens = sum(config.tokens.values())
    each = 2 * tokens * 2 * config.dim * width
    spared = 2 * tokens * config.dim * width
    return _encoders(config, 1).total + behind.times(2, 3) + _bypasses(config, depth, each, spared)


def _bypasses(config: BackboneConfig, depth: int, each: float, spared: float) -> float:
    """Bypasses train: three times their forward, less the first pair's input gradient."""
    return 3 * each * (config.depth - depth + config.joint_depth) - spared


def step(method: str, config: BackboneConfig, classes: int, depth: int = 0, size: int = 0) -> float:
    """FLOPs per sample of a training step; `size` is prompt length, LoRA rank or adapter width."""
    if method == "finetune":
        return finetune_step(config, classes)
    counts = {"prompt": prompt_step, "lora": lora_step, "adapter": adapter_step}
    return counts[method](config, classes, depth, size)
