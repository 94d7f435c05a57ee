"""One training of `benchmarks.cost`, as its process is told of it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SIZES = {"prompt": 4, "lora": 2, "adapter": 4}  # prompt length, rank, width: the recipes' defaults
DRAWS = 1  # noisy draws of each severity in the feature shards: enough to be read like real ones


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        method: "finetune" or one of `METHODS`.
        depth: k, of the case-wise methods.
        data, backbone: folders.
        warmup, epochs: epochs run first and not counted, and those that are.
        length: prompt tokens per level and modality.
    """

    method: str
    depth: int
    preset: Literal["tiny", "base"]
    data: str
    backbone: str
    batch_size: int
    warmup: int
    epochs: int
    device: str
    loaders: int
    threads: int | None
    length: int

    @classmethod
    def of(cls, args: argparse.Namespace, folder: Path, method: str, depth: int, **other: Any) -> Job:
        """The job of a benchmark's arguments, on the data and backbone in `folder`; `other` stands for an argument."""
        shared = ("preset", "batch_size", "warmup", "epochs", "device", "loaders", "threads", "length")
        values: dict[str, Any] = {name: other.get(name, getattr(args, name, None)) for name in shared}
        return cls(method, depth, data=str(folder / "data"), backbone=str(folder / "finetune"), **values)

    @property
    def size(self) -> int:
        return self.length if self.method == "prompt" else SIZES.get(self.method, 0)
