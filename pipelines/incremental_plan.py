"""The plan kept in a folder (``ingest.json``, ``plan/``), and how it may grow: shards are added to it, none is changed.

Each clip belongs to the last shard that it was planned into. Rows that the manifest gains are planned into
further shards; clips in quarantine are planned again on demand. So a shard, once finished, is never written
again, and what a killed run still had to do is all in the file. A manifest that only grew at its end is read from
there on.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pydantic

from pipelines.known_rows import KnownRows
from pipelines.manifest import Clip, Mark, check_together, stream_manifest
from pipelines.plan import Cutter, ShardPlan, Vocabulary, by_split, row_digest
from pipelines.results import quarantined_ids
from pipelines.resume import same_config
from pipelines.rows import RowsWriter, clips_of, digests_of, read_batch, writing
from pipelines.settings import INGESTION_REVISION, IngestConfig, Partial
from shards.atomic import write_text
from shards.errors import InputError
from shards.schema import Frozen
from shards.store import Place, PlaceT

PLAN_FILE = "ingest.json"
CHUNK = 1 << 14  # rows that are compared together
ADDED = 1 << 17  # ids that are looked for together
_REMEDY = "give another --out, or the manifest and config that this folder was begun with"

Failed = Callable[[str], Container[str]]  # a finished shard's name to the ids of it that are in quarantine


class KeptShard(Frozen):
    """A shard that was planned: ``digest`` of its rows, what becomes of clips of which one stream fails, how many
    clips, and where their rows are kept: the batch of a file in ``plan/``."""

    digest: str
    partial: Partial = "quarantine"
    clips: int
    file: int
    batch: int


class KeptPlan(Frozen):
    """``ingest.json``: the config, all shards ever planned, how many of them dataset.json accounts for; and the
    revision of the ingestion that made them (plans without one are of the first).

    Attributes:
        manifest: how far it was read.
        gone: clips in quarantine that were taken out of the manifest, by shard.
        again: clips that were planned again, by the shard that they left; None: of an earlier version, its rows tell.
    """

    schema_version: Literal[2] = 2
    revision: int = 1
    config: dict[str, Any]
    assembled: int = 0
    manifest: Mark | None = None
    gone: dict[str, tuple[str, ...]] = pydantic.Field(default={})
    again: dict[str, tuple[str, ...]] | None = None
    shards: dict[str, KeptShard]

    def save(self, out: Place) -> None:
        """Write ``out/ingest.json``."""
        write_text(out / PLAN_FILE, self.model_dump_json(indent=1) + "\n")

    @property
    def digests(self) -> dict[str, str]:
        """Of the shards' rows, by name."""
        return {name: shard.digest for name, shard in self.shards.items()}

    def known(self, rows: Place) -> KnownRows:
        """The rows of all shards, from the folder that has them."""
        return KnownRows({name: (rows_file(rows, shard.file), shard.batch) for name, shard in self.shards.items()})


def rows_folder(out: PlaceT) -> PlaceT:
    """Where a dataset keeps the rows of its plan."""
    return out / "plan"


def rows_file(rows: PlaceT, number: int) -> PlaceT:
    """The rows that were planned together."""
    return rows / f"rows-{number:06d}.arrow"


def kept_rows(out: Place) -> list[Place]:
    """The files of rows that the plan of ``out`` names."""
    try:
        numbers = {shard["file"] for shard in json.loads((out / PLAN_FILE).read_bytes())["shards"].values()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        return []  # `read_plan` tells why
    return [rows_file(rows_folder(out), number) for number in sorted(numbers)]


def read_plan(out: Place, config: IngestConfig, manifest: Place, rows: Place | None = None) -> KeptPlan:
    """The plan of ``out``; an empty one for a new folder. One of schema 1 gets its rows from the manifest.

    Args:
        rows: where those are written; default: where `out` keeps its own.

    Raises:
        InputError: the folder belongs to another config or version, or to something else.
    """
    path = out / PLAN_FILE
    try:
        record = json.loads(path.read_bytes())
        old = record["schema_version"] == 1
        kept = _converted(record, out, manifest, rows or rows_folder(out)) if old else KeptPlan.model_validate(record)
    except FileNotFoundError:
        if (isinstance(out, Path) and (out / "media").exists()) or (out / "dataset.json").exists():
            message, remedy = "holds a dataset that is not this command's", "give another --out"
            raise InputError(message, file=out, remedy=remedy) from None
        return KeptPlan(revision=INGESTION_REVISION, config=config.content(), again={}, shards={})
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):  # pydantic's are ValueErrors
        raise InputError("unreadable, or begun with another version", file=path, remedy=_REMEDY) from None
    same_config(kept.config, config.content(), path, _REMEDY)
    return kept


def _converted(record: dict[str, Any], out: Place, manifest: Place, rows: Place) -> KeptPlan:
    """A plan of schema 1, which kept a digest of each row by the clip's id."""
    clips = {clip.id: clip for clip in stream_manifest(manifest)}
    shards: dict[str, KeptShard] = {}
    gone: dict[str, tuple[str, ...]] = {}
    with writing(rows_file(rows, 0), manifest.parent) as writer:
        for name, shard in record["shards"].items():
            there = {clip: int(digest, 16) for clip, digest in shard["clips"].items() if clip in clips}
            failed = quarantined_ids(out, name, shard["digest"])
            if lost := [clip for clip in shard["clips"] if clip not in there]:
                gone[name] = tuple(lost)
                if missed := [clip for clip in lost if clip not in failed]:
                    raise _changed(missed[0], name, out / PLAN_FILE, failed=False, gone=True)
            shards[name] = KeptShard(
                digest=shard["digest"],
                partial=shard.get("partial", "quarantine"),
                clips=len(shard["clips"]),
                file=0,
                batch=writer.write([clips[clip] for clip in there], list(there.values())),
            )
    return KeptPlan(
        revision=record.get("revision", 1),
        config=record["config"],
        assembled=record.get("assembled", 0),
        gone=gone,
        shards=shards,
    )


@dataclass
class Growth:
    """What a manifest makes of a kept plan.

    Attributes:
        kept: the plan so far.
        manifest: its path, absolute.
        out: the dataset's folder.
        rows: where the plan's rows are.
        failed: ids in quarantine, of a finished shard.
        retry: plan those again.
        partial: of the shards that are added.
    """

    kept: KeptPlan
    manifest: Place
    out: Place
    rows: Place
    failed: Failed
    retry: bool = False
    partial: Partial = "quarantine"
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        self._base = self.manifest.parent
        self._known = self.kept.known(self.rows)
        self._left = {name: list(ids) for name, ids in (self.kept.again or {}).items()}
        # A retry that was killed goes on; it is not begun anew.
        self._again = self.retry and self.kept.assembled == len(self.kept.shards)

    @contextmanager
    def grown(self, samples_per_shard: int) -> Iterator[KeptPlan]:
        """The plan with the shards that are to be added; their rows are kept once the block ends without an error.

        Raises:
            InputError: a wrong manifest, or the row of a clip that is planned or ingested was changed or removed.
        """
        number = max((shard.file for shard in self.kept.shards.values()), default=-1) + 1
        self._end, begin = Mark.end_of(self.manifest), self._begin()
        with writing(rows_file(self.rows, number), self._base) as writer:
            added = self._added(samples_per_shard, begin, writer, number)
            yield self.kept.model_copy(
                update={
                    "manifest": self._end,
                    "gone": self.kept.gone if begin else self._gone(),
                    "again": None if self.kept.again is None else {n: tuple(ids) for n, ids in self._left.items()},
                    "shards": {**self.kept.shards, **added},
                }
            )

    def _begin(self) -> Mark | None:
        """Where the manifest has rows that were not read yet; None: it must be read, and compared, from its start."""
        mark = self.kept.manifest
        return mark if mark is not None and not self._again and mark.holds(self.manifest) else None

    def _added(
        self, samples_per_shard: int, begin: Mark | None, writer: RowsWriter, number: int
    ) -> dict[str, KeptShard]:
        shards: list[tuple[ShardPlan, KeptShard]] = []

        def keep(shard: ShardPlan, digests: Sequence[int]) -> None:
            batch = writer.write(shard.clips, digests)
            kept = KeptShard(
                digest=shard.digest, partial=self.partial, clips=len(shard.clips), file=number, batch=batch
            )
            shards.append((ShardPlan(shard.name, shard.split, (), shard.digest), kept))

        cutter = Cutter(samples_per_shard, self._base, self._numbers(), keep)
        for clip in self._read_before(begin) if begin else self._compared():
            cutter.add(clip)
        cutter.finish()
        kept = {plan.name: shard for plan, shard in shards}
        return {plan.name: kept[plan.name] for plan in by_split([plan for plan, _ in shards])}

    def _numbers(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for name in self.kept.shards:
            split, number = name.rsplit("-", 1)
            numbers[split] = int(number) + 1
        return numbers

    def _read_before(self, begin: Mark) -> Iterator[Clip]:
        """What stands behind a mark, of a manifest that is unchanged up to there."""
        without = excluded(self.kept, self._known)
        groups: dict[str, set[str]] = {}
        for name, _, batch in self._known.batches():
            _labels(batch, without.get(name, ()), self.vocabulary)
        ids = list[str]()
        for clip in stream_manifest(self.manifest, begin, self._end):
            ids.append(clip.id)
            self.vocabulary.add(clip.id, clip.split, clip.labels)
            if clip.group is not None:
                groups.setdefault(clip.group, set()).add(clip.split)
            yield clip
            if len(ids) == ADDED:
                self._none_known(ids, without)
        self._none_known(ids, without)
        if groups and any(_divided(batch, groups) for _, _, batch in self._known.batches()):
            check_together(self.manifest)

    def _none_known(self, ids: list[str], without: Mapping[str, Container[str]]) -> None:
        if known := list(self._known.planned(ids)):
            check_together(self.manifest)
        for shard, clip in known:
            if clip not in without.get(shard, ()):
                message = f"clip '{clip}' is in shard {shard} already, and stands behind what was read of the manifest"
                remedy = "move its row to the beginning: then all rows are compared with the plan"
                raise InputError(message, file=self.manifest, field="id", remedy=remedy)
        ids.clear()

    def _compared(self) -> Iterator[Clip]:
        """Clips that are to be planned, of the whole manifest; nothing else may have changed."""
        self._seen, clips = np.zeros(len(self._known), bool), stream_manifest(self.manifest, end=self._end)
        while chunk := list(itertools.islice(clips, CHUNK)):
            for clip, row in zip(chunk, self._known.find(chunk).tolist(), strict=True):
                self.vocabulary.add(clip.id, clip.split, clip.labels)
                if row < 0:
                    yield clip
                elif self._planned_again(clip, row):
                    self._left.setdefault(self._known.shard(row), []).append(clip.id)
                    yield clip

    def _planned_again(self, clip: Clip, row: int) -> bool:
        self._seen[row] = True
        shard = self._known.shard(row)
        failed = clip.id in self.failed(shard)
        if row_digest(clip, self._base) == self._known.digest(row):
            return failed and self._again
        if failed and self.retry:
            return True
        raise _changed(clip.id, shard, self.out / PLAN_FILE, failed, gone=False)

    def _gone(self) -> dict[str, tuple[str, ...]]:
        """Clips that the manifest lost, by shard: who fails may be taken out."""
        found: dict[str, list[str]] = {}
        for name, _, batch in self._known.batches():  # those of a plan of schema 1 have no rows
            there = set(batch["id"].to_pylist()) if name in self.kept.gone else set()
            found[name] = [clip for clip in self.kept.gone.get(name, ()) if clip not in there]
        lost = ~self._seen
        lost[self._known.replaced()] = False
        for row in np.flatnonzero(lost).tolist():
            clip, shard = self._known.id(row), self._known.shard(row)
            if clip not in self.failed(shard):
                raise _changed(clip, shard, self.out / PLAN_FILE, failed=False, gone=True)
            found[shard].append(clip)
        return {name: tuple(clips) for name, clips in found.items() if clips}


def excluded(kept: KeptPlan, known: KnownRows) -> dict[str, frozenset[str]]:
    """Clips that no longer belong to a shard, by its name: planned again later, or taken out of the manifest."""
    found = {name: set(clips) for name, clips in kept.gone.items()}
    for name, clips in (kept.again or {}).items():
        found.setdefault(name, set()).update(clips)
    for row in known.replaced().tolist() if kept.again is None else ():
        found.setdefault(known.shard(row), set()).add(known.id(row))
    return {name: frozenset(ids) for name, ids in found.items()}


def _labels(batch: pa.RecordBatch, without: Container[str], vocabulary: Vocabulary) -> None:
    """A shard's labels, with the first clip that has each."""
    if not len(batch):
        return
    values = batch["labels"].flatten()
    parents = pa.compute.list_parent_indices(batch["labels"])
    ids, split = batch["id"], batch["split"][0].as_py()
    if without:
        for at, labels in enumerate(batch["labels"].to_pylist()):
            if ids[at].as_py() not in without:
                vocabulary.add(ids[at].as_py(), split, labels)
        return
    for label in values.unique():
        vocabulary.add(ids[parents[values.index(label).as_py()].as_py()].as_py(), split, [label.as_py()])


def _divided(batch: pa.RecordBatch, groups: dict[str, set[str]]) -> bool:
    """Whether one of these groups, by the splits that others of it are in, has a clip of another split here."""
    if not len(batch):
        return False
    split = batch["split"][0].as_py()
    shared = batch.filter(pa.compute.is_in(batch["group"], pa.array(list(groups), pa.string())))
    return any(groups[group] != {split} for group in shared["group"].to_pylist())


def same_revision(kept: KeptPlan, done: Container[str], path: Place) -> KeptPlan:
    """The plan, which this version may go on with: one of another revision has nothing left to do, or nothing done.

    Raises:
        InputError: finished shards are of another revision, and others are still to be made.
    """
    if kept.revision == INGESTION_REVISION:
        return kept
    todo = [name for name in kept.shards if name not in done]
    if len(todo) == len(kept.shards):
        return kept.model_copy(update={"revision": INGESTION_REVISION})
    if todo:
        message = (
            f"its finished shards were made by revision {kept.revision} of the ingestion, {todo[0]} would be made by"
            f" revision {INGESTION_REVISION}: sound and frames of one file would be at other times"
        )
        remedy = "ingest all clips into another --out; this folder can still be read, trained on and evaluated"
        raise InputError(message, file=path, field="revision", remedy=remedy)
    return kept


def _changed(clip: str, shard: str, path: Place, failed: bool, gone: bool) -> InputError:
    if failed:
        message = f"the row of clip '{clip}', which is in quarantine, was changed"
        return InputError(message, file=path, remedy="add --retry-quarantined to try it again")
    what = "is gone from the manifest" if gone else "has another row in the manifest now"
    remedy = "put the row back as it was (rows may be added, not changed), or give another --out"
    return InputError(f"clip '{clip}' of shard {shard} {what}", file=path, remedy=remedy)


@dataclass(frozen=True)
class KeptWork:
    """A kept shard as work.

    Attributes:
        clips: how many it has.
        rows, batch: where they are.
        base: the manifest's folder.
        without: ids that no longer belong to it.
    """

    name: str
    split: str
    digest: str
    partial: Partial
    clips: int
    rows: Place
    batch: int
    base: Place
    without: frozenset[str]

    def load(self) -> ShardPlan:
        """The shard with its clips, read from the plan.

        Raises:
            InputError: the plan's rows can't be read.
        """
        clips = tuple(clip for clip, _ in self.read())
        return ShardPlan(self.name, self.split, clips, self.digest, self.partial)

    def read(self) -> list[tuple[Clip, int]]:
        """Its clips, with the digests of their rows.

        Raises:
            InputError: as `load`.
        """
        batch = read_batch(self.rows, self.batch)
        rows = zip(clips_of(batch, self.base), digests_of(batch).tolist(), strict=True)
        return [(clip, digest) for clip, digest in rows if clip.id not in self.without]


def kept_work(kept: KeptPlan, out: Place, base: Place) -> list[KeptWork]:
    """The kept shards as work, each with the clips that belong to it."""
    rows = rows_folder(out)
    without = excluded(kept, kept.known(rows))
    return [
        KeptWork(
            name,
            name.rsplit("-", 1)[0],
            shard.digest,
            shard.partial,
            shard.clips - len(without.get(name, ())),
            rows_file(rows, shard.file),
            shard.batch,
            base,
            without.get(name, frozenset()),
        )
        for name, shard in kept.shards.items()
    ]
