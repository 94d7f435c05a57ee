"""audit.csv and duplicates.csv from the parts, clip by clip, and what the page shows of them."""

from __future__ import annotations

import csv
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.audit.clip import Measures
from pipelines.audit.duplicates import ClipFiles, Match
from pipelines.audit.flags import flags_of, unchecked
from pipelines.audit.joined import Joined
from pipelines.audit.part import ClipRecord, PartFile, sha
from pipelines.audit.settings import AuditConfig
from shards.atomic import replacing
from shards.audit_file import AUDIT_FILE, FIRST_COLUMNS

DUPLICATES_FILE = "duplicates.csv"
PAIR_COLUMNS = ("id", "split", "other_id", "other_split", "audio", "visual", "same_file", "across_splits")
FAILED = "failed"


@dataclass(frozen=True)
class Shown:
    """A clip of the page: its position, what is told of it, its flags."""

    place: int
    record: ClipRecord
    flags: tuple[str, ...]


@dataclass
class Summary:
    """Counts of an audit, and the clips that its page shows.

    Attributes:
        clips, flagged: clips, and those with any flag, by split.
        labels: clips by label.
        by_split, by_label: clips by (name, flag); a clip counts under each of its labels.
        unchecked: clips by flag that could not be decided.
        examples: clips by flag, chosen by a hash of their ids.
        pairs: duplicates to show, those across splits first.
        matched: pairs of duplicates, and those of them across splits.
    """

    clips: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    by_split: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_label: Counter[tuple[str, str]] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Shown]] = field(default_factory=dict)
    pairs: list[tuple[Match, Shown, Shown]] = field(default_factory=list)
    matched: tuple[int, int] = (0, 0)

    def count(self, record: ClipRecord, flags: Sequence[str]) -> None:
        """Count one clip."""
        self.clips[record.split] += 1
        self.flagged[record.split] += bool(flags)
        self.labels.update(record.labels)
        self.by_split.update((record.split, flag) for flag in flags)
        self.by_label.update((label, flag) for label in record.labels for flag in flags)


def write_files(out: Path, files: ClipFiles, joined: Joined, config: AuditConfig) -> Summary:
    """Write both tables, one clip at a time, and count."""
    summary, examples = Summary(), _Examples(config.examples)
    with replacing(out / AUDIT_FILE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIRST_COLUMNS, *Measures.model_fields, "failure"])
        for place, record in enumerate(_records(files.paths)):
            flags, open_ = all_flags(place, record, joined, config), unchecked(record.measures)
            writer.writerow(_row(place, record, flags, open_, joined))
            summary.count(record, flags)
            summary.unchecked.update(open_)
            examples.offer(Shown(place, record, flags))
    summary.examples = examples.chosen()
    summary.matched = _write_pairs(out / DUPLICATES_FILE, files, joined)
    for one in joined.shown(config.examples):
        a, b = (_shown(place, files, joined, config) for place in (one.a, one.b))
        summary.pairs.append((one, a, b))
    return summary


def _shown(place: int, files: ClipFiles, joined: Joined, config: AuditConfig) -> Shown:
    record = files.record(place)
    return Shown(place, record, all_flags(place, record, joined, config))


def all_flags(place: int, record: ClipRecord, joined: Joined, config: AuditConfig) -> tuple[str, ...]:
    """A clip's flags: of its decoding, its measures, its duplicates."""
    failed = (FAILED,) if record.failure else ()
    return (*failed, *flags_of(record.measures, config), *joined.flags(place))


def _row(place: int, record: ClipRecord, flags: Sequence[str], open_: Sequence[str], joined: Joined) -> list[object]:
    measures = record.measures.model_dump()
    return [
        record.id,
        record.split,
        ";".join(record.labels),
        ";".join(flags),
        ";".join(open_),
        joined.group(place, record),
        joined.nearest(place),
        record.audio,
        record.visual,
        *("" if value is None else f"{value:g}" for value in measures.values()),
        record.failure or "",
    ]


def _records(paths: Sequence[Path]) -> Iterator[ClipRecord]:
    for path in paths:
        yield from PartFile(path).records()


class _Examples:
    """Of the clips with each flag, a few at random, but always the same: those of the lowest hashes."""

    def __init__(self, count: int):
        self.count = count
        self._heaps: dict[str, list[tuple[int, int, Shown]]] = {}

    def offer(self, clip: Shown) -> None:
        for flag in clip.flags if self.count else ():
            heap = self._heaps.setdefault(flag, [])
            item = (-sha(clip.record.id), -clip.place, clip)
            if len(heap) < self.count:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)

    def chosen(self) -> dict[str, list[Shown]]:
        return {flag: [clip for *_, clip in sorted(heap, reverse=True)] for flag, heap in self._heaps.items()}


def _write_pairs(path: Path, files: ClipFiles, joined: Joined) -> tuple[int, int]:
    """All pairs of duplicates; how many, and how many of them across splits."""
    across = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PAIR_COLUMNS)
        for one in (Match(*row.item()) for row in joined.matches):
            a, b = files.record(one.a), files.record(one.b)
            across += a.split != b.split
            said = (f"{value:.4g}" if value else "" for value in (one.audio, one.visual))
            writer.writerow([a.id, a.split, b.id, b.split, *said, *map(_yes, (one.source, a.split != b.split))])
    return len(joined.matches), across


def _yes(true: bool) -> str:
    return "yes" if true else ""
