"""Sequence features: each time step's sound and picture through frozen encoders, one row per step.

The steps are the equal parts of the clip whose middles' frames the media shards hold; sound is a window
around the same middle. Nothing outside the sample's own members is ever read.

Shapes: T steps, P places, D width, S sound samples at 16 kHz.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.steps import middles, pictures, sounds
from models import clip, resnet, vggish
from models.backbone import Backbone, weights_fingerprint
from models.inputs import Normalisation
from models.sequence import SoundRows, picture_rows, pooled
from models.settings import Modality
from shards.errors import InputError
from shards.reader import Sample
from shards.schema import BackboneInfo
from shards.sequence import SEQUENCE, SequenceSpec, sequence_folder


class Encoder(Protocol):
    """One modality's network and how it is fed.

    Attributes:
        net: frozen, in evaluation mode.
        fingerprint: sha256 of weights and sizes.
        dim: width D of a row.
        says: about its input, for dataset.json.
    """

    net: nn.Module
    fingerprint: str
    dim: int
    says: dict[str, Any]

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """One row per step: [T, ...]."""
        ...

    def forward(self, rows: Tensor) -> Tensor:
        """[T, D] of sound, [T, rows, D] of pictures."""
        ...


class CavmaeAudio:
    """The audio encoder's tokens of the fbank frames around each step's middle, as the backbone has it: [T, D]."""

    def __init__(self, backbone: Backbone):
        self.net, self.normalisation = SoundRows(backbone.net, backbone.bands), backbone.normalisation
        self.fingerprint, self.dim = backbone.fingerprint, backbone.net.config.dim
        self.length = backbone.net.config.target_length
        self.says = {
            "network": "cavmae",
            "window": self.length,
            "normalisation": backbone.normalisation.as_dict(),
        } | ({"sound": "bands"} if backbone.dense else {})

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """[T, F, 128], padded beyond the clip's ends."""
        return sounds(sample, steps, self.length, self.normalisation)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of fbank [N, F, 128] to rows [N, D]."""
        return self.net(rows)


class CavmaeVisual:
    """The visual encoder's tokens of each step's frame: [T, P, D]."""

    frame_token = False

    def __init__(self, backbone: Backbone):
        self.net, self.normalisation = backbone.net, backbone.normalisation
        self.fingerprint, self.dim = backbone.fingerprint, backbone.net.config.dim
        self.places, self.size = backbone.net.config.tokens["visual"], backbone.net.config.image_size
        self.says = {"network": "cavmae", "normalisation": backbone.normalisation.as_dict()}

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """A sample's frames as normalised pictures [steps, 3, H, W]."""
        return pictures(sample, steps, self.size, self.normalisation)

    def forward(self, rows: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] to tokens [N, P, D]."""
        return picture_rows(self.net, rows)


class VGGishAudio:
    """VGGish of 0.96 s (96 frames of log-mel) around each step's middle: [T, 128]."""

    def __init__(self, net: vggish.VGGish):
        self.net, self.dim = net, net.dim
        self.says = {"network": "vggish", "window": vggish.FRAMES, "pca": net.pca_matrix is not None}
        self.fingerprint = _fingerprint(net, self.says)

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """Log-mel [T, 96, 64]; silence beyond the clip's ends."""
        if "wave" not in sample.arrays:
            message = f"sample '{sample.meta.id}' has no waveform"
            raise InputError(message, field="extractor", remedy="ingest the clips with keep_wave=true")
        half = vggish.SAMPLES // 2
        sound = torch.from_numpy(sample.arrays["wave"].astype(np.float32) / 32768.0)
        centres = [round(m * vggish.SAMPLE_RATE) for m in middles(sample.meta, steps)]
        sound = F.pad(sound, (half, max(0, max(centres) + half - len(sound))))
        windows = torch.stack([sound[c : c + vggish.SAMPLES] for c in centres])
        return vggish.log_mel(windows)

    def forward(self, rows: Tensor) -> Tensor:
        """Log-mel examples, one a row, to embeddings [N, 128]."""
        return self.net(rows)


class ResNetVisual:
    """ResNet-18's last maps of each step's frame: [T, 196, 512]."""

    frame_token, places, dim, size = False, resnet.PLACES, resnet.DIM, resnet.SIZE
    normalisation = Normalisation()  # ImageNet's

    def __init__(self, net: nn.Module):
        self.net = net
        self.says = {"network": "resnet18", "size": resnet.SIZE, "stage4_stride": 1}
        self.fingerprint = _fingerprint(net, self.says)

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """A sample's frames as normalised pictures [steps, 3, H, W]."""
        return pictures(sample, steps, self.size, self.normalisation)

    def forward(self, rows: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] to maps [N, P, 512]."""
        return resnet.maps(self.net, rows)


class ClipVisual:
    """CLIP's frame token and patches of each step's frame, projected: [T, 1 + P, 512]."""

    frame_token = True
    normalisation = Normalisation(visual_mean=clip.MEAN, visual_std=clip.STD)

    def __init__(self, net: Any):
        self.net = net
        self.size, self.places, self.dim = clip.sizes(net)
        self.says = {"network": "clip", "size": self.size}
        self.fingerprint = _fingerprint(net.visual, self.says)

    def inputs(self, sample: Sample, steps: int) -> Tensor:
        """A sample's frames as normalised pictures [steps, 3, H, W]."""
        return pictures(sample, steps, self.size, self.normalisation)

    def forward(self, rows: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] to the class token and places [N, 1 + P, D]."""
        return clip.encode_pictures(self.net, rows)


def _fingerprint(net: nn.Module, says: dict[str, Any]) -> str:
    return weights_fingerprint(dict(net.state_dict()), says)


class SequenceExtractor:
    """Members ``audio`` [T, Da] and ``visual`` [T, rows, Dv]. Each sample goes through the networks alone, so
    its features never depend on its neighbours.

    Args:
        name: as the user gave it.
        steps: T, the frames per clip of the media shards.
        side: of the grid that places are averaged to; None: the network's own.

    Raises:
        InputError: `side` is more than the network's own.
    """

    statistics = True

    def __init__(self, name: str, audio: Any, visual: Any, steps: int, side: int | None = None):
        self.encoders: dict[Modality, Encoder] = {"audio": audio, "visual": visual}
        own = math.isqrt(visual.places)
        if side is not None and side > own:
            remedy = f"choose 1 to {own}, or leave it out"
            raise InputError(f"{side} is beyond the network's grid of {own}", field="side", remedy=remedy)
        self.name, self.steps, self.side = name, steps, side or own
        self.spec = SequenceSpec(
            audio=audio.dim,
            visual=visual.dim,
            steps=steps,
            places=self.side**2,
            frame_token=visual.frame_token,
        )
        both = [encoder.fingerprint for encoder in self.encoders.values()]
        one = both[0] if both[0] == both[1] else hashlib.sha256("".join(both).encode()).hexdigest()
        self.fingerprint, self.folder = one, sequence_folder(one, name, side)

    def to(self, device: str) -> None:
        """Move the networks."""
        self.device = device
        for encoder in self.encoders.values():
            encoder.net.to(device)

    def together(self, split: str) -> int:
        """Samples that go through the network together."""
        return 1

    def inputs(self, modality: Modality, sample: Sample) -> Tensor:
        """One sample's steps, [T, ...]."""
        return self.encoders[modality].inputs(sample, self.steps)

    def forward(self, modality: Modality, rows: Tensor) -> Tensor:
        """Features of steps."""
        found = self.encoders[modality].forward(rows.to(self.device))
        return pooled(found, self.side, self.spec.frame_token) if modality == "visual" else found

    def preprocessing(self) -> dict[str, Any]:
        """For dataset.json."""
        says = {modality: encoder.says for modality, encoder in self.encoders.items()}
        return {"features": SEQUENCE, "spec": self.spec.model_dump(), "encoders": says}

    def info(self) -> BackboneInfo:
        """For dataset.json."""
        fingerprint = self.fingerprint
        return BackboneInfo(id=fingerprint[:12], fingerprint=fingerprint, depth=None, variants=("clean",))
