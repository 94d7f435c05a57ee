"""The named conditions: what is noisy and what is missing, for training cases and for evaluation.

*Prompt the Missing* trains one prompt set per case: `complete`, `noisy_audio` (their "vision only"),
`noisy_visual` ("audio only"), `noisy_both`. Evaluation adds `audio_missing` and `visual_missing`, and the corruptions
of AVROBUSTBENCH and READ, each a ladder of severities. A protocol is a choice of conditions that was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from models.corruptions.protocols import AVROBUSTBENCH, CORRELATED, READ, READ_PICTURES, READ_SOUNDS
from models.corruptions.record import Corruption
from models.registry import Registry
from models.settings import MODALITIES, SEVERITIES, Modality, NoiseConfig


@dataclass(frozen=True)
class Condition:
    """What happens to a sample.

    Attributes:
        name: the condition's name in configs, tables and checkpoints.
        noisy: modalities that get a noise draw.
        missing: modalities that are taken away.
        case: the training case whose small parameters serve this condition (situation-specific evaluation).
        corruption: what ruins the media, in place of a noise draw.
        level: severity of the corruption, 1 to 5; 0: any, the condition stands for a ladder.
    """

    name: str
    noisy: tuple[Modality, ...] = ()
    missing: tuple[Modality, ...] = ()
    case: str = ""
    corruption: Corruption | None = None
    level: int = 0

    @property
    def about(self) -> str | None:
        """What its corruption does."""
        return None if self.corruption is None else self.corruption.about

    def severity(self, noise: NoiseConfig) -> int:
        """Severity of its noise: `both` when both modalities are ruined, else `alone`."""
        return noise.both if len(self.noisy) == 2 else noise.alone

    def ladder(self, severities: Sequence[int]) -> tuple[Condition, ...]:
        """A corruption at each severity, named ``<name>-<severity>``; any other condition alone."""
        if self.corruption is None:
            return (self,)
        return tuple(replace(self, name=f"{self.name}-{level}", level=level) for level in severities)


PUBLISHED = (
    Condition("complete", case="complete"),
    Condition("noisy_audio", noisy=("audio",), case="noisy_audio"),
    Condition("noisy_visual", noisy=("visual",), case="noisy_visual"),
    Condition("noisy_both", noisy=("audio", "visual"), case="noisy_both"),
    Condition("audio_missing", missing=("audio",), case="noisy_audio"),
    Condition("visual_missing", missing=("visual",), case="noisy_visual"),
)
CORRUPTED = (
    *(Condition(f"{AVROBUSTBENCH}-{c.kind}", ("audio", "visual"), case="noisy_both", corruption=c) for c in CORRELATED),
    *(Condition(f"{READ}-picture-{c.kind}", ("visual",), case="noisy_visual", corruption=c) for c in READ_PICTURES),
    *(Condition(f"{READ}-sound-{c.kind}", ("audio",), case="noisy_audio", corruption=c) for c in READ_SOUNDS),
)
CONDITIONS: Registry[Condition] = Registry("condition", {c.name: c for c in (*PUBLISHED, *CORRUPTED)})
Case = Literal["complete", "noisy_audio", "noisy_visual", "noisy_both"]
CASES: tuple[Case, ...] = ("complete", "noisy_audio", "noisy_visual", "noisy_both")
NOISY_CASES = CASES[1:]


@dataclass(frozen=True)
class Protocol:
    """A published choice of conditions.

    Attributes:
        about: in a line.
        conditions: names of `CONDITIONS`.
        severities: of the corruptions among them.
        noise: a preset of `models.settings.NOISE_PRESETS`; None: that of the runs.
    """

    about: str
    conditions: tuple[str, ...]
    severities: tuple[int, ...] = SEVERITIES
    noise: str | None = None


def _corrupted(protocol: str) -> tuple[str, ...]:
    return ("complete", *(c.name for c in CORRUPTED if c.corruption and c.corruption.protocol == protocol))


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        "released": Protocol(
            "Prompt the Missing's six conditions with the noise of its code",
            tuple(c.name for c in PUBLISHED),
            noise="released",
        ),
        AVROBUSTBENCH: Protocol(
            "fifteen corruptions of sound and picture at once, severities 1 to 5", _corrupted(AVROBUSTBENCH)
        ),
        READ: Protocol("21 corruptions of one modality (VGGSound-C, Kinetics50-C), severity 5", _corrupted(READ), (5,)),
    },
)


def condition_named(name: str) -> Condition:
    """The condition of a name; ``<corruption>-<severity>`` is a corruption at one severity.

    Raises:
        UnknownName: there is none.
    """
    base, _, level = name.rpartition("-")
    if name in CONDITIONS or level not in map(str, SEVERITIES) or base not in CONDITIONS:
        return CONDITIONS[name]
    return CONDITIONS[base].ladder((int(level),))[0] if CONDITIONS[base].corruption else CONDITIONS[name]


def case_of(noisy_audio: bool, noisy_visual: bool) -> str:
    """The training case in which exactly these modalities are ruined."""
    return CASES[int(noisy_audio) + 2 * int(noisy_visual)]


def observed_condition(present: Sequence[bool], ruined: Sequence[Modality] | None = None) -> str:
    """What can be told of a sample without an oracle: what is there, and what a detector takes for ruined.

    Args:
        present: whether sound and picture are there.
        ruined: of what is there, the detector's verdict; None: there is no detector.

    Returns:
        ``complete``, ``audio_missing`` or ``visual_missing``, with a detector followed by its verdict, such as
        ``complete: audio ruined`` or ``audio_missing: nothing ruined``.
    """
    gone = [m for m, there in zip(MODALITIES, present, strict=True) if not there]
    name = f"{gone[0]}_missing" if gone else "complete"
    return name if ruined is None else f"{name}: {' and '.join(ruined) or 'nothing'} ruined"


def coarser_observation(observed: str) -> str:
    """An observation without the detector's verdict."""
    return observed.partition(":")[0]


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
