"""CAV-MAE: an audio encoder, a visual encoder and a joint encoder over their tokens.

Gong et al., *Contrastive Audio-Visual Masked Autoencoder*, ICLR 2023 (`CAVMAEFT` of YuanGongND/cav-mae).
Module names are the published ones, so that public checkpoints load by name. Between the encoders and the
joint block stands a bidirectional cross-attention (`fusion`), which the prompt method needs; its output
projections start at zero, so a freshly imported public checkpoint computes exactly the published function. A public
network that stays frozen has the fusion `prompts` (`models.settings.BackboneConfig`), which adds what prompts change
of the attention and nothing else, and begins as the joint block's own attention (`start_fusion`).

Shapes: B samples, F fbank frames, N tokens of one modality, D width, C classes, P prompt tokens.
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.modality import by_group, having
from models.settings import MEL_BINS, MODALITIES, PATCH, BackboneConfig, Modality

_SUFFIX: dict[str | None, str] = {None: "", "audio": "_a", "visual": "_v"}


class TokenHook(Protocol):
    """What a recovery method may change while the backbone runs; see `models.prompts`."""

    def enter(self, modality: Modality, block: int, tokens: Tensor) -> Tensor: ...

    def leave(self, modality: Modality, tokens: Tensor) -> Tensor: ...

    def keys(self, modality: Modality, batch: int) -> Tensor | None: ...


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv projection."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        """Tokens [B, N, D] to [B, N, D]."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with three norm sets: joint, audio (`_a`) and visual (`_v`)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float):
        super().__init__()
        for name in ("norm1", "norm2"):
            for suffix in _SUFFIX.values():
                setattr(self, name + suffix, nn.LayerNorm(dim))
        self.attn = Attention(dim, heads)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, norms: Modality | None = None) -> Tensor:  # [B, N, D]
        """Tokens [B, N, D] to [B, N, D]; `norms`: a modality's own norms in a joint block."""
        suffix = _SUFFIX[norms]
        x = x + self.attn(getattr(self, "norm1" + suffix)(x))
        return x + self.mlp(getattr(self, "norm2" + suffix)(x))


class CrossAttention(nn.Module):
    """One direction of the fusion: queries from a modality's own tokens, keys and values from [prompts ;
    other's tokens].

    The output projection starts at zero (identity), see the module's note on imported checkpoints.

    Args:
        difference: add only what the prompts change: the attention with them less that without.
    """

    def __init__(self, dim: int, heads: int, difference: bool = False):
        super().__init__()
        self.heads, self.difference = heads, difference
        self.norm_q, self.norm_kv = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, prompts: Tensor | None, other: Tensor | None) -> Tensor:
        """Queries [B, N, D], prompts [B, P, D] and the other modality's tokens [B, M, D], where there are any, to
        [B, N, D]."""
        keys = [k for k in (prompts, other) if k is not None]
        if not keys or (self.difference and prompts is None):  # nothing to attend to, or nothing that changes it
            return x
        found = self._attend(x, torch.cat(keys, dim=1))
        if not self.difference:
            return x + self.proj(found)
        found = found if other is None else found - self._attend(x, other)
        return x + F.linear(found, self.proj.weight)

    def _attend(self, x: Tensor, keys: Tensor) -> Tensor:
        """Queries [B, N, D] and keys [B, M, D] to [B, N, D], before the output projection."""
        b, n, d = x.shape
        q = self.q(self.norm_q(x)).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv(self.norm_kv(keys)).view(b, -1, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)


class PatchEmbed(nn.Module):
    """Patches of 16 x 16 to tokens."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:  # [B, channels, H, W] -> [B, N, D]
        """[B, channels, H, W] to [B, N, D]."""
        return self.proj(x).flatten(2).transpose(1, 2)


class CAVMAE(nn.Module):
    """The classifier `CAVMAEFT` with a bidirectional cross-attention fusion.

    Args:
        config: sizes.
        classes: number of labels C.
    """

    def __init__(self, config: BackboneConfig, classes: int):
        super().__init__()
        self.config, self.classes, self.alone = config, classes, config.alone
        dim, heads = config.dim, config.heads

        def blocks(n: int) -> nn.ModuleList:
            return nn.ModuleList(Block(dim, heads, config.mlp_ratio) for _ in range(n))

        self.patch_embed_a, self.patch_embed_v = PatchEmbed(1, dim), PatchEmbed(3, dim)
        self.modality_a, self.modality_v = (nn.Parameter(torch.zeros(1, 1, dim)) for _ in range(2))
        side, time = config.image_size // PATCH, config.target_length // PATCH
        self.pos_embed_a = nn.Parameter(sincos_positions(dim, MEL_BINS // PATCH, time))
        self.pos_embed_v = nn.Parameter(sincos_positions(dim, side, side))
        self.blocks_a, self.blocks_v = blocks(config.depth), blocks(config.depth)
        difference = config.fusion == "prompts"
        self.fusion_a, self.fusion_v = (CrossAttention(dim, heads, difference) for _ in range(2))
        self.blocks_u = blocks(config.joint_depth)
        self.norm_a, self.norm_v, self.norm = (nn.LayerNorm(dim) for _ in range(3))
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for suffix in ("a", "v"):
            weight = getattr(self, f"patch_embed_{suffix}").proj.weight
            nn.init.xavier_uniform_(weight.data.view(weight.shape[0], -1))
            nn.init.normal_(getattr(self, f"modality_{suffix}"), std=0.02)
            nn.init.zeros_(getattr(self, f"fusion_{suffix}").proj.weight)

    def _part(self, name: str, modality: Modality):
        return getattr(self, name + _SUFFIX[modality])

    def embed(self, modality: Modality, x: Tensor) -> Tensor:
        """Depth 0: patches + position + modality embedding.

        Args:
            x: normalised fbank [B, F, 128], or normalised picture [B, 3, H, W].

        Returns:
            tokens [B, N, D].
        """
        if modality == "audio":
            x = x.unsqueeze(1).transpose(2, 3)  # [B, 1, 128, F]
        return (
            self._part("patch_embed", modality)(x)
            + self._part("pos_embed", modality)
            + self._part("modality", modality)
        )

    def encode(
        self,
        modality: Modality,
        x: Tensor,
        start: int = 0,
        stop: int | None = None,
        hook: TokenHook | None = None,
    ) -> Tensor:
        """Run encoder blocks `start` .. `stop` - 1 on tokens [B, N, D]."""
        for index, block in enumerate(self._part("blocks", modality)[start:stop], start):
            if hook is not None:
                x = hook.enter(modality, index, x)
            x = block(x)
        return hook.leave(modality, x) if hook is not None else x

    def join(self, tokens: dict[Modality, Tensor], hook: TokenHook | None = None) -> Tensor:
        """Fusion, joint blocks, pooling and head, for the modalities that are there.

        Args:
            tokens: encoder outputs [B, N, D]; one modality alone takes a published single-modality path
                (`BackboneConfig.alone`).

        Returns:
            logits [B, C].
        """
        alone = next(iter(tokens)) if len(tokens) == 1 else None
        fused = []
        for modality in tokens:
            prompts = hook.keys(modality, len(tokens[modality])) if hook is not None else None
            other = next((x for name, x in tokens.items() if name != modality), None)
            fused.append(self._part("fusion", modality)(tokens[modality], prompts, other))
        x = torch.cat(fused, dim=1)
        pooled = self._pool(x, alone)
        if alone is not None and self.alone == "averaged":
            pooled = (self._pool(x, None) + pooled) / 2
        return self.mlp_head(pooled)

    def _pool(self, x: Tensor, norms: Modality | None) -> Tensor:
        """Joint blocks with one set of norms, and the mean over tokens: [B, N, D] -> [B, D]."""
        for block in self.blocks_u:
            x = block(x, norms)
        return getattr(self, "norm" + _SUFFIX[norms])(x).mean(dim=1)

    @torch.no_grad()
    def start_fusion(self) -> None:
        """Let the cross-attentions begin as the first joint block's attention: there the published network relates
        the modalities, so prompts meet trained queries, keys and values."""
        block, dim = cast(Block, self.blocks_u[0]), self.config.dim
        for fusion in (self.fusion_a, self.fusion_v):
            for norm in (fusion.norm_q, fusion.norm_kv):
                norm.load_state_dict(cast(nn.LayerNorm, block.norm1).state_dict())
            for part, rows in ((fusion.q, slice(dim)), (fusion.kv, slice(dim, None))):
                part.weight.copy_(block.attn.qkv.weight[rows])
                part.bias.copy_(block.attn.qkv.bias[rows])
            fusion.proj.weight.copy_(block.attn.proj.weight)
            fusion.proj.bias.copy_(block.attn.proj.bias)

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        present: Tensor | None = None,
        depth: int | None = None,
        hook: TokenHook | None = None,
    ) -> Tensor:
        """Classify a batch in which each sample may lack one modality.

        Samples are grouped by which modalities they have (`models.modality.by_group`), and an absent modality is
        never computed: it is bypassed, so nothing of its content (NaN by contract) can reach the output.

        Args:
            audio, visual: normalised inputs (`depth` None), or cached tokens [B, N, D] taken before encoder
                block `depth`.
            present: bool [B, 2] in the order of `MODALITIES`; None means all there.
            hook: a recovery method's prompts.

        Returns:
            logits [B, C].

        Raises:
            ValueError: a sample has neither modality.
        """
        inputs = dict(zip(MODALITIES, (audio, visual), strict=True))
        if present is None:
            return self._forward_group(inputs, depth, hook)

        def classify(there: tuple[Modality, ...], rows: Tensor | None) -> Tensor:
            group = {m: inputs[m] if rows is None else inputs[m][rows] for m in there}
            return self._forward_group(group, depth, hook)

        return by_group(present, classify)

    def drop_before(self, depth: int) -> None:
        """Free what cached tokens make needless: patch embeddings and the encoder blocks before `depth`.

        The network then runs from tokens at `depth` or later only.
        """
        for modality in MODALITIES:
            blocks = self._part("blocks", modality)
            for index in range(depth):
                blocks[index] = nn.Identity()
        del self.patch_embed_a, self.patch_embed_v, self.pos_embed_a, self.pos_embed_v

    def tokens_at(self, depth: int, audio: Tensor, visual: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens before encoder block `depth` of both modalities, [B, N, D] each; NaN where absent."""
        out = []
        for column, (modality, x) in enumerate(zip(MODALITIES, (audio, visual), strict=True)):
            there = having(present, column)
            shape = (len(x), self.config.tokens[modality], self.config.dim)
            tokens = torch.full(shape, float("nan"), device=x.device)
            if len(there):
                tokens[there] = self.encode(modality, self.embed(modality, x[there]), 0, depth).float()
            out.append(tokens)
        return out[0], out[1]

    def _forward_group(self, inputs: dict[Modality, Tensor], depth: int | None, hook: TokenHook | None) -> Tensor:
        tokens = {}
        for modality, x in inputs.items():
            x = self.embed(modality, x) if depth is None else x
            tokens[modality] = self.encode(modality, x, depth or 0, hook=hook)
        return self.join(tokens, hook)


def sincos_positions(dim: int, rows: int, columns: int) -> Tensor:
    """Two-dimensional sin-cos position embedding, [1, rows * columns, dim]; the first half of `dim` encodes
    the column.

    Tokens are numbered row by row; for the spectrogram a row is one of 8 mel bands, a column 16 frames. The
    values are those of `get_2d_sincos_pos_embed` of cav-mae, so that training from scratch matches too.
    """
    omega = 1.0 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    index = torch.arange(rows * columns, dtype=torch.float64)
    first, second = index % columns, index.div(columns, rounding_mode="floor")

    def encode(position: Tensor) -> Tensor:
        angle = position[:, None] * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    return torch.cat([encode(first), encode(second)], dim=1).float().unsqueeze(0)
