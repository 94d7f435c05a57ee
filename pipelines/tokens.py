"""Token features: what a backbone's encoders hold at some depth, of each sample clean and with seeded noise.

Shapes: V variants of one sample, F fbank frames, N tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from configs.backbone import load_backbone, load_classifier
from models.backbone import Backbone
from models.conditions import variant_names
from models.noise import ruin
from models.settings import Modality
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.reader import Sample
from shards.schema import BackboneInfo, token_folder


class TokenExtractor:
    """Members [V, N, D] before encoder block `config.depth`, V as in `models.conditions.variant_names`.

    Args:
        backbone: in evaluation mode.
    """

    statistics = False

    def __init__(self, backbone: Backbone, config: FeatureConfig):
        self.backbone, self.config = backbone, config
        self.fingerprint = backbone.fingerprint
        self.folder = token_folder(backbone.fingerprint, config.depth)
        self.noise = config.noise.build()
        self.black = backbone.normalisation.black
        self.names = {True: variant_names(config.draws), False: variant_names(config.eval_draws)}

    def to(self, device: str) -> None:
        """Move the network."""
        self.backbone.net.to(device)
        self.device = device

    def together(self, split: str) -> int:
        """Samples that go through the network together: as many as fill a batch."""
        return max(1, self.config.batch_size // len(self.names[split == "train"]))

    def inputs(self, modality: Modality, sample: Sample) -> Tensor:
        """All variants of one sample's normalised input: [V, F, 128] or [V, 3, H, W]."""
        x, key, noise = self._clean(modality, sample), sample.meta.key, self.noise
        variants = self.names[sample.meta.split == "train"]
        out = x.new_empty(len(variants), *x.shape)
        out[0] = x
        for row, name in enumerate(variants[1:], start=1):
            kind, _, draw = name.partition("-")
            severity = noise.both if kind == "both" else noise.alone
            out[row], _ = ruin(x, modality, severity, noise, self.config.seed, key, int(draw), floor=self.black)
        return out

    def _clean(self, modality: Modality, sample: Sample) -> Tensor:
        sizes, norm = self.backbone.net.config, self.backbone.normalisation
        if modality == "audio":
            return norm.fbank(sample.arrays["audio"], sizes.target_length)
        frames = sample.arrays["frames"]
        return norm.picture(frames, len(frames) // 2, sizes.image_size)

    def forward(self, modality: Modality, rows: Tensor) -> Tensor:
        """Tokens of inputs."""
        net = self.backbone.net
        return net.encode(modality, net.embed(modality, rows.to(self.device)), 0, self.config.depth)

    def preprocessing(self) -> dict[str, Any]:
        """For dataset.json."""
        sizes = self.backbone.net.config
        return {
            "frame": "middle",
            "tokens": {modality: [count, sizes.dim] for modality, count in sizes.tokens.items()},
            "normalisation": self.backbone.normalisation.as_dict(),
        }

    def info(self) -> BackboneInfo:
        """For dataset.json."""
        return BackboneInfo(
            id=self.fingerprint[:12],
            fingerprint=self.fingerprint,
            depth=self.config.depth,
            variants=tuple(self.names[True]),
        )


def frozen_backbone(folder: Path, depth: int = 0, classifies: bool = False) -> Backbone:
    """The backbone of a run or checkpoint, frozen and in evaluation mode.

    Args:
        classifies: all of it must have learnt to, as what is trained on its tokens needs its joint encoder and head.

    Raises:
        InputError: as `load_backbone` or `load_classifier`; or one with fewer than ``depth`` blocks.
    """
    backbone = load_classifier(folder, "backbone") if classifies else load_backbone(folder)
    if depth > (blocks := backbone.net.config.depth):
        message = f"depth {depth} is beyond the {blocks} blocks of its encoders"
        raise InputError(message, file=folder, field="depth", remedy=f"choose 0 to {blocks}")
    backbone.net.eval().requires_grad_(False)
    if backbone.bands is not None:
        backbone.bands.requires_grad_(False)
    return backbone
