"""What the shards of a dataset took to make: seconds.jsonl, a line per shard. Not part of the dataset."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path

from shards.schema import DatasetInfo
from shards.store import Place

FILE = "seconds.jsonl"


def append_seconds(folder: Place, split: str, samples: int, seconds: float) -> None:
    """Add a shard; seconds of the wall clock since the one before was done, so that they add up. An object store, which
    appends to nothing, keeps none: there they are not known."""
    if not isinstance(folder, Path):
        return
    line = {"split": split, "samples": samples, "seconds": round(seconds, 4)}
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def making_seconds(folder: Path, splits: Collection[str]) -> float:
    """Seconds that the shards of some splits took; NaN where that is not known of all their samples."""
    try:
        info = DatasetInfo.load(folder)
        lines = [json.loads(text) for text in (folder / FILE).read_text(encoding="utf-8").splitlines()]
        own = [line for line in lines if line["split"] in splits]
        samples, seconds = sum(int(line["samples"]) for line in own), sum(float(line["seconds"]) for line in own)
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan
    return seconds if samples >= sum(info.splits[name].samples for name in info.splits if name in splits) else math.nan
