"""Names and sizes of the models that configs and help need, free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from models.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Modality = Literal["audio", "visual"]
MODALITIES: tuple[Modality, Modality] = ("audio", "visual")
PATCH, MEL_BINS = 16, 128
SEVERITIES = (1, 2, 3, 4, 5)


def check_multiple(name: str, value: int) -> None:
    """Refuse a size that is no multiple of the patch size.

    Raises:
        ValueError: names the nearest ones that are.
    """
    if value % PATCH:
        below = value // PATCH * PATCH
        near = f"{below} or {below + PATCH}" if below else f"{PATCH}"
        raise ValueError(f"{name} {value} is not a multiple of the patch size {PATCH}: {near} is")


@dataclass(frozen=True)
class BackboneConfig:
    """Size of a CAV-MAE.

    Attributes:
        dim, heads, mlp_ratio: of every block.
        depth: blocks of each modality's encoder.
        joint_depth: blocks of the joint encoder.
        target_length: fbank frames (10 ms each) per sample, a multiple of 16.
        image_size: side of the square picture in pixels, a multiple of 16.
        fusion: what the cross-attention between the encoders adds to a modality's tokens. `residual`: all that they
            attend to, the other modality and prompts. `prompts`: only what prompts change of that, nothing without
            any; so a public network stays the published one, and prompts learn beside it from the first step.
        alone: the way of a modality whose other one is missing through the joint blocks. `own`: with its own norms
            (published for networks tuned on one modality). `averaged`: twice, with its own and with the joint ones,
            the two means averaged (published for networks tuned on both: `missingaudioonly`, `missingvideoonly`).
    """

    dim: int = 768
    heads: int = 12
    mlp_ratio: float = 4.0
    depth: int = 11
    joint_depth: int = 1
    target_length: int = 1024
    image_size: int = 224
    fusion: Literal["residual", "prompts"] = "residual"
    alone: Literal["own", "averaged"] = "own"

    def __post_init__(self):
        if self.dim % (4 * self.heads) and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        if self.dim % 4:
            raise ValueError(f"dim {self.dim} must be a multiple of 4 (sin-cos position embedding)")
        for name in ("target_length", "image_size"):
            check_multiple(name, getattr(self, name))

    @property
    def tokens(self) -> dict[Modality, int]:
        """Tokens per modality: 8 mel bands x time patches, and the picture's patches."""
        return {
            "audio": self.target_length // PATCH * (MEL_BINS // PATCH),
            "visual": (self.image_size // PATCH) ** 2,
        }

    def as_dict(self) -> dict:
        """As plain values, for a checkpoint's JSON; `fusion` and `alone` where they are not the usual ones, so that
        fingerprints of networks that lack them stay."""
        usual = {"fusion": "residual", "alone": "own"}
        return {name: value for name, value in asdict(self).items() if usual.get(name) != value}


BACKBONES = {
    "base": BackboneConfig(),
    "tiny": BackboneConfig(dim=96, heads=3, mlp_ratio=4.0, depth=3, target_length=208, image_size=96),
}


@dataclass(frozen=True)
class PromptSize:
    """Size of a prompt set.

    Attributes:
        length: tokens m per level and modality (published: 16).
        depth: encoder block k before which the input-level tokens enter; blocks before it can be cached.
        deep: own tokens for every block from `depth` on, instead of one set that travels through.
        input_level, attention_level: which of the two levels there are.
    """

    length: int = 16
    depth: int = 0
    deep: bool = False
    input_level: bool = True
    attention_level: bool = True

    def __post_init__(self):
        if not (self.input_level or self.attention_level):
            raise ValueError("prompts need at least one level: input_level or attention_level")
        if self.length < 1:
            raise ValueError(f"prompt length {self.length}: at least one token")


class NoiseKind(Protocol):
    """A kind of noise: a function of one sample's normalised input, of a severity from 1 to 5 and of a random
    generator, from which alone it draws; the shape stays."""

    def __call__(self, x: Tensor, severity: int, rng: np.random.Generator, /) -> Tensor: ...


AUDIO_KINDS: Registry[NoiseKind] = Registry(
    "kind of noise for audio",
    {
        "gaussian": "models.noise:gaussian_audio",
        "time_mask": "models.noise:time_mask",
        "time_shift": "models.noise:time_shift",
        "released_gaussian": "models.released_noise:gaussian_audio",
        "released_shift": "models.released_noise:mel_shift",
        "released_time_mask": "models.released_noise:mel_mask",
    },
)
VISUAL_KINDS: Registry[NoiseKind] = Registry(
    "kind of noise for visual",
    {
        "black": "models.noise:black",
        "gaussian": "models.noise:gaussian_visual",
        "blur": "models.noise:blur",
        "pixelate": "models.noise:pixelate",
        "released_black": "models.released_noise:mean_picture",
        "released_gaussian": "models.released_noise:gaussian_visual",
        "released_blur": "models.released_noise:box_blur",
        "released_pixelate": "models.released_noise:pixelate",
    },
)
KINDS: dict[Modality, Registry[NoiseKind]] = {"audio": AUDIO_KINDS, "visual": VISUAL_KINDS}


RELEASED, STRENGTHS = "released_", (2, 5)  # severities of the released noise, which has two strengths


@dataclass(frozen=True)
class NoiseConfig:
    """Which noise is drawn.

    Attributes:
        audio, visual: kinds, each equally likely per draw.
        alone: severity when one modality is ruined.
        both: severity when both are.
    """

    audio: tuple[str, ...] = ("gaussian", "time_mask", "time_shift")
    visual: tuple[str, ...] = ("black", "gaussian", "blur", "pixelate")
    alone: int = 5
    both: int = 2

    def __post_init__(self):
        for modality in KINDS:
            kinds: Sequence[str] = getattr(self, modality)
            unknown = [k for k in kinds if k not in KINDS[modality]]
            if unknown or not kinds:
                raise ValueError(f"noise.{modality}: {unknown or 'empty'}; choose from {', '.join(KINDS[modality])}")
        released = [kind for kind in (*self.audio, *self.visual) if kind.startswith(RELEASED)]
        for name in ("alone", "both"):
            severity = getattr(self, name)
            if severity not in SEVERITIES:
                raise ValueError(f"noise.{name}: severity {severity} is not one of 1..5")
            if released and severity not in STRENGTHS:
                raise ValueError(f"noise.{name}: {released[0]} has two strengths, severities 2 and 5, not {severity}")


NOISE_PRESETS: dict[str, NoiseConfig] = {
    "ours": NoiseConfig(),
    "released": NoiseConfig(("released_gaussian", "released_shift", "released_time_mask"), ("released_black",)),
    "released_kinds": NoiseConfig(
        ("released_gaussian", "released_shift", "released_time_mask"),
        ("released_gaussian", "released_blur", "released_pixelate"),
    ),
}
