"""Which clip goes into which shard: decided from the manifest alone, before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.manifest import MEDIA, Clip, line_of, relative
from pipelines.settings import IngestConfig, Partial
from shards.errors import InputError
from shards.schema import canonical_json
from shards.store import Place


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: ``name`` (``train-000042``), its clips in order, a digest of their rows, and what
    becomes of those of which one stream fails."""

    name: str
    split: str
    clips: tuple[Clip, ...]
    digest: str
    partial: Partial = "quarantine"


@dataclass
class Cutter:
    """Cuts every split, in manifest order, into shards, and holds no more than one unfinished shard of each.

    Args:
        samples_per_shard: clips of a shard; the last one of a split has what is left.
        base: the manifest's folder; only paths relative to it enter the digests, so corpus and dataset may
            move together.
        numbers: of the first shard, by split, where it is not 0.
        keep: takes every shard, with the digests of its rows, as soon as its clips are there.
    """

    samples_per_shard: int
    base: Place
    numbers: Mapping[str, int]
    keep: Callable[[ShardPlan, Sequence[int]], None]
    _open: dict[str, list[Clip]] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def add(self, clip: Clip) -> None:
        """The next clip of the manifest."""
        waiting = self._open.setdefault(clip.split, [])
        waiting.append(clip)
        if len(waiting) == self.samples_per_shard:
            self._cut(clip.split)

    def finish(self) -> None:
        """No more clips come."""
        for split, waiting in self._open.items():
            if waiting:
                self._cut(split)

    def _cut(self, split: str) -> None:
        number = self._next.get(split, self.numbers.get(split, 0))
        clips, self._open[split], self._next[split] = tuple(self._open[split]), [], number + 1
        texts = [_row_text(clip, self.base) for clip in clips]
        plan = ShardPlan(f"{split}-{number:06d}", split, clips, _digest(texts))
        self.keep(plan, [_short(_digest([text])) for text in texts])


def make_plan(clips: Iterable[Clip], samples_per_shard: int, base: Place) -> list[ShardPlan]:
    """All shards of a manifest's clips, split by split in the order in which the splits come."""
    plan: list[ShardPlan] = []
    cutter = Cutter(samples_per_shard, base, {}, lambda shard, _: plan.append(shard))
    for clip in clips:
        cutter.add(clip)
    cutter.finish()
    return by_split(plan)


def by_split(plan: Sequence[ShardPlan]) -> list[ShardPlan]:
    """Shards split by split, in the order in which the splits have their first one."""
    order = list(dict.fromkeys(shard.split for shard in plan))
    return sorted(plan, key=lambda shard: order.index(shard.split))


def rows_digest(clips: Iterable[Clip], base: Place) -> str:
    """sha256 (hex) of rows of the manifest."""
    return _digest(_row_text(clip, base) for clip in clips)


def row_digest(clip: Clip, base: Place) -> int:
    """The first 64 bits of the digest of one row."""
    return _short(rows_digest([clip], base))


def _row_text(clip: Clip, base: Place) -> str:
    row = dict(vars(clip))
    for name in MEDIA:
        row[name] = row[name] and relative(row[name], base)
    return canonical_json(row)


def _digest(texts: Iterable[str]) -> str:
    """Of a list as `canonical_json` writes it."""
    return hashlib.sha256(f"[{','.join(texts)}]".encode()).hexdigest()


def _short(digest: str) -> int:
    return int(digest[:16], 16)


class Vocabulary:
    """The labels of a manifest's clips, with the first clip that has each."""

    def __init__(self) -> None:
        self._train: set[str] = set()
        self._first: dict[str, tuple[str, str]] = {}

    def add(self, clip_id: str, split: str, labels: Iterable[str]) -> None:
        """One clip's labels."""
        for label in labels:
            self._first.setdefault(label, (clip_id, split))
            if split == "train":
                self._train.add(label)

    def checked(self, config: IngestConfig, manifest: Place) -> tuple[str, ...]:
        """The config's labels, else the train split's, sorted.

        Raises:
            InputError: a clip has another label; file, line and label are named.
        """
        known = set(config.labels) or self._train
        for label, (clip_id, split) in self._first.items():
            if label not in known:
                where = f"{manifest}:{line_of(manifest, clip_id)}"
                source = "the config's labels" if config.labels else "the train split"
                remedy = f"correct it, add train clips of it, or give labels=[...]; known: {_some(known)}"
                raise InputError(
                    f"label '{label}' of clip '{clip_id}' (split {split}) is not in {source}",
                    file=where,
                    field="label",
                    remedy=remedy,
                )
        return config.labels or tuple(sorted(known))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "") if names else "none"
