"""Which clip goes into which shard: decided from the manifest alone, before any work."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.manifest import Clip, line_of
from pipelines.settings import IngestConfig, Partial
from shards.errors import InputError
from shards.schema import canonical_json


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: ``name`` (``train-000042``), its clips in order, a digest of their rows, and what
    becomes of those of which one stream fails."""

    name: str
    split: str
    clips: tuple[Clip, ...]
    digest: str
    partial: Partial = "quarantine"


def make_plan(
    clips: Sequence[Clip], samples_per_shard: int, base: Path, first: Mapping[str, int] | None = None
) -> list[ShardPlan]:
    """Cut every split, in manifest order, into shards.

    Args:
        base: the manifest's folder; only paths relative to it enter the digests, so corpus and dataset may
            move together.
        first: number of the first shard, by split, where it is not 0.
    """
    splits: dict[str, list[Clip]] = {}
    for clip in clips:
        splits.setdefault(clip.split, []).append(clip)
    plan = []
    for split, members in splits.items():
        begin = (first or {}).get(split, 0)
        for number, at in enumerate(range(0, len(members), samples_per_shard), begin):
            part = tuple(members[at : at + samples_per_shard])
            plan.append(ShardPlan(f"{split}-{number:06d}", split, part, rows_digest(part, base)))
    return plan


def rows_digest(clips: Sequence[Clip], base: Path) -> str:
    """sha256 (hex) of rows of the manifest."""
    rows = [dict(vars(clip)) for clip in clips]
    for row in rows:
        for name in ("path", "audio_path", "image_path"):
            row[name] = row[name] and os.path.relpath(row[name], base)
    return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


def label_vocabulary(clips: Sequence[Clip], config: IngestConfig, manifest: Path) -> tuple[str, ...]:
    """The config's labels, else the train split's, sorted.

    Raises:
        InputError: a clip has another label; file, line and label are named.
    """
    known = set(config.labels) or {label for c in clips if c.split == "train" for label in c.labels}
    for clip in clips:
        for label in clip.labels:
            if label not in known:
                where = f"{manifest}:{line_of(manifest, clip.id)}"
                source = "the config's labels" if config.labels else "the train split"
                remedy = f"correct it, add train clips of it, or give labels=[...]; known: {_some(known)}"
                raise InputError(
                    f"label '{label}' of clip '{clip.id}' (split {clip.split}) is not in {source}",
                    file=where,
                    field="label",
                    remedy=remedy,
                )
    return config.labels or tuple(sorted(known))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "") if names else "none"
