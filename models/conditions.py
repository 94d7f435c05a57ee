"""The named conditions: what is noisy and what is missing, for training cases and for evaluation.

*Prompt the Missing* trains one prompt set per case: `complete`, `noisy_audio` (their "vision only"),
`noisy_visual` ("audio only"), `noisy_both`. Evaluation adds `audio_missing` and `visual_missing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.registry import Registry
from models.settings import Modality, NoiseConfig


@dataclass(frozen=True)
class Condition:
    """What happens to a sample.

    Attributes:
        name: the condition's name in configs, tables and checkpoints.
        noisy: modalities that get a noise draw.
        missing: modalities that are taken away.
        case: the training case whose small parameters serve this condition (situation-specific evaluation).
    """

    name: str
    noisy: tuple[Modality, ...] = ()
    missing: tuple[Modality, ...] = ()
    case: str = ""

    def severity(self, noise: NoiseConfig) -> int:
        """Severity of its noise: `both` when both modalities are ruined, else `alone`."""
        return noise.both if len(self.noisy) == 2 else noise.alone


PUBLISHED = (
    Condition("complete", case="complete"),
    Condition("noisy_audio", noisy=("audio",), case="noisy_audio"),
    Condition("noisy_visual", noisy=("visual",), case="noisy_visual"),
    Condition("noisy_both", noisy=("audio", "visual"), case="noisy_both"),
    Condition("audio_missing", missing=("audio",), case="noisy_audio"),
    Condition("visual_missing", missing=("visual",), case="noisy_visual"),
)
CONDITIONS: Registry[Condition] = Registry("condition", {c.name: c for c in PUBLISHED})
Case = Literal["complete", "noisy_audio", "noisy_visual", "noisy_both"]
CASES: tuple[Case, ...] = ("complete", "noisy_audio", "noisy_visual", "noisy_both")
NOISY_CASES = CASES[1:]


def case_of(noisy_audio: bool, noisy_visual: bool) -> str:
    """The training case in which exactly these modalities are ruined."""
    return CASES[int(noisy_audio) + 2 * int(noisy_visual)]


def variant(condition: Condition, modality: Modality, draw: int) -> str:
    """Name of the cached feature variant that a modality has under a condition: `clean`, `alone-0`, `both-2`,
    ..."""
    if modality not in condition.noisy:
        return "clean"
    return f"{'both' if len(condition.noisy) == 2 else 'alone'}-{draw}"


def variant_names(draws: int) -> list[str]:
    """All variants that are cached per sample and modality: the clean one and `draws` noisy ones of either
    severity."""
    return ["clean", *(f"{kind}-{d}" for kind in ("alone", "both") for d in range(draws))]
