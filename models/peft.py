"""LoRA and bottleneck adapters, the parameter-efficient competitors of prompts.

Both add to a frozen module's output through a forward hook, so the backbone stays untouched, and both start
as the identity. LoRA: Hu et al., ICLR 2022, on the qkv projections. Adapter: Houlsby et al., ICML 2019, one
after each MLP, in the residual form.
"""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor, nn
from torch.nn import functional as F

from models.cavmae import CAVMAE, Block
from models.tuned import CaseModule, replaced_output


class _Bypass(nn.Module):
    """x -> up(act(down(x))), `up` starting at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int, nonlinear: bool):
        super().__init__()
        self.down, self.up = (
            nn.Linear(inputs, hidden, bias=nonlinear),
            nn.Linear(hidden, outputs, bias=nonlinear),
        )
        self.nonlinear = nonlinear
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(x)
        return self.up(F.gelu(hidden) if self.nonlinear else hidden)


class _Bypasses(CaseModule):
    """One bypass beside each chosen module of the backbone, from encoder block `depth` on."""

    def __init__(self, depth: int):
        super().__init__()
        self.depth = depth
        self.bypass = nn.ModuleDict()

    def run(self, backbone: CAVMAE, audio: Tensor, visual: Tensor, present: Tensor | None, depth: int | None) -> Tensor:
        self.check_depth(depth, self.depth)
        with ExitStack() as stack:
            for name, bypass in self.bypass.items():
                stack.enter_context(self._beside(backbone, name, bypass))
            return backbone(audio, visual, present, depth)

    def _beside(self, backbone: CAVMAE, name: str, bypass: nn.Module):
        raise NotImplementedError


def _blocks(backbone: CAVMAE, depth: int) -> dict[str, Block]:
    """Blocks that run live when features are cached at `depth`, by state-dict name with dots as dashes."""
    if not 0 <= depth < backbone.config.depth:
        raise ValueError(f"depth {depth}: the backbone's encoder blocks are 0..{backbone.config.depth - 1}")
    return {
        f"{stack}-{i}": block
        for stack, first in (("blocks_a", depth), ("blocks_v", depth), ("blocks_u", 0))
        for i, block in enumerate(getattr(backbone, stack))
        if i >= first
    }


def _at(backbone: CAVMAE, name: str) -> Block:
    stack, index = name.split("-")
    return getattr(backbone, stack)[int(index)]


class LoRA(_Bypasses):
    """Low-rank updates of rank `rank` to the qkv projections, scaled by `alpha / rank`."""

    def __init__(self, backbone: CAVMAE, rank: int = 2, alpha: float = 4.0, depth: int = 0):
        super().__init__(depth)
        self.scale = alpha / rank
        dim = backbone.config.dim
        for name in _blocks(backbone, depth):
            self.bypass[name] = _Bypass(dim, rank, 3 * dim, nonlinear=False)

    def _beside(self, backbone, name, bypass):
        return replaced_output(_at(backbone, name).attn.qkv, lambda x, y: y + self.scale * bypass(x))


class Adapter(_Bypasses):
    """A bottleneck of `width` after each block's MLP, added to its output."""

    def __init__(self, backbone: CAVMAE, width: int = 4, depth: int = 0):
        super().__init__(depth)
        dim = backbone.config.dim
        for name in _blocks(backbone, depth):
            self.bypass[name] = _Bypass(dim, width, dim, nonlinear=True)

    def _beside(self, backbone, name, bypass):
        return replaced_output(_at(backbone, name).mlp, lambda _, y: y + bypass(y))


def parameter_share(module: nn.Module, backbone: CAVMAE) -> float:
    """Trained parameters over the backbone's, 0..1."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trained / sum(p.numel() for p in backbone.parameters())
