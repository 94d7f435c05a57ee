"""One training of `benchmarks.avqa_cost`, as its process is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.avqa.batch import FeatureSpec

COMMON = {"base": FeatureSpec(128, 512, 10, 196), "tiny": FeatureSpec(96, 96, 10, 36)}
PUBLISHED = {
    "avst": COMMON["base"],
    "avst_prompts": COMMON["base"],
    "avst_drfuse": COMMON["base"],
    "missing_avqa": COMMON["base"],
    "avsd": FeatureSpec(128, 512, 10, 49),
    "lavit": FeatureSpec(2048, 2048, 9, 4),  # 36 regions; 9 of its 18 sounds, since steps serve both
    "pstp": FeatureSpec(128, 512, 60, 49, frame_token=True),
}


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        network, recovery: names; recovery "none" trains on complete samples alone.
        inputs: whose feature sizes.
        warmup, steps: steps run first and not counted, and those that are.
    """

    network: str
    recovery: str
    inputs: Literal["common", "published"]
    preset: Literal["tiny", "base"]
    batch_size: int
    warmup: int
    steps: int
    device: str
    threads: int | None

    @property
    def spec(self) -> FeatureSpec:
        return COMMON[self.preset] if self.inputs == "common" else PUBLISHED[self.network]
