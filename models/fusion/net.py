"""A CAV-MAE with a method between its encoders and its joint block.

Shapes: B samples, N tokens of one modality, D width, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.cavmae import CAVMAE, Block
from models.fusion.contract import Fused


class FusedNet(nn.Module):
    """Both as one module that trains and runs like any other.

    Args:
        backbone: its joint block goes unused beside a method that answers by itself.
        method: of `models.fusion.FUSIONS`.
    """

    def __init__(self, backbone: CAVMAE, method: nn.Module):
        super().__init__()
        self.backbone, self.method = backbone, method

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        """Logits [B, C] of normalised inputs, NaN where absent."""
        return self.fuse(*self.tokens(audio, visual, present), present).logits

    def tokens(self, audio: Tensor, visual: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The encoders' outputs of both modalities, [B, N, D] each; NaN where absent."""
        return self.backbone.tokens_at(self.backbone.config.depth, audio, visual, present)

    def fuse(self, audio: Tensor, visual: Tensor, present: Tensor) -> Fused:
        """From the encoders' outputs on; the joint block answers unless the method does."""
        found = self.method(audio, visual, present)
        if isinstance(found, Fused):
            return found
        logits = self.backbone(found.audio, found.visual, found.present, self.backbone.config.depth)
        return Fused(logits, lambda _: found.losses())

    @property
    def attentions(self) -> list[nn.Module]:
        """What relates the modalities: the joint blocks' queries, keys and values, or the method's attention."""
        own = getattr(self.method, "attention", None)
        return joint_attentions(self.backbone) if own is None else [own]


def joint_attentions(backbone: CAVMAE) -> list[nn.Module]:
    """Projections to queries, keys and values of the joint blocks."""
    return [block.attn.qkv for block in backbone.blocks_u if isinstance(block, Block)]
