"""The work of one task: a shard's clips from their files. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydantic

from pipelines.causes import DecodeError
from pipelines.feature_shard import reproducible
from pipelines.imports.convert import Converted, convert
from pipelines.imports.layout import Entry, Members, Part
from pipelines.imports.notes import Note, What
from pipelines.imports.plan import ImportItem, ImportShard, ahead
from pipelines.imports.reading import ArrayReader
from pipelines.imports.settings import ImportConfig
from pipelines.resume import Ledger, ledger_path, make_shard, read_ledger, write_ledger
from pipelines.running_stats import Moments, add
from shards.causes import Cause
from shards.schema import ABSENT, MODALITIES, SampleMeta, StreamInfo, count_absent
from shards.writer import Member, Record

MISSING = "extract or fetch the file; the same command then imports the clip, too"
ZERO = "extract the clip again; zeros=keep takes zeros for features"


@dataclass(frozen=True)
class Making:
    """How every shard of an import is made.

    Attributes:
        source: folder of the features.
        members: of a sample: ``audio`` and ``visual``, or what questions have.
        rows: of each member's arrays.
        modalities: the members are sound and picture, of which one may be absent; else all of them are needed.
    """

    source: Path
    members: Members
    rows: int
    config: ImportConfig
    modalities: bool = True


class ImportLedger(Ledger):
    """A shard's result: what was noted, the ids that are in it, moments of its train clips."""

    notes: tuple[Note, ...]
    imported: tuple[str, ...]
    audio: Moments = Moments()
    visual: Moments = Moments()


def read_import_ledger(out: Path, shard: ImportShard) -> ImportLedger | None:
    """The result of a finished shard, if it is finished and its files are those that it was made from."""
    return read_ledger(ImportLedger, out, shard.name, shard.digest)


def lost_items(out: Path, shard: ImportShard, making: Making) -> list[str]:
    """Ids that an earlier import has in this shard and whose files are gone: making it again would lose them."""
    try:
        before = ImportLedger.model_validate_json(ledger_path(out, shard.name).read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return []
    wanted = {part.name for parts in making.members.values() for part in parts}
    enough = min(len(wanted), 1) if making.modalities and making.config.partial == "keep" else len(wanted)
    there = {item.id for item in shard.items if len(wanted & item.entries.keys()) >= enough}
    return [name for name in before.imported if name not in there]


def import_shard(shard: ImportShard, making: Making, out: Path) -> ImportLedger:
    """Write ``out/<name>.tar`` with the clips of a shard, and then its ledger. A bad file raises nothing: it is noted.

    Raises:
        OSError: the shard can't be written, or the machine can't read.
        InputError: an HDF5 file that is no longer what it was.
    """
    if (done := read_import_ledger(out, shard)) is not None:
        return done
    with reproducible(), ArrayReader(making.source) as reader:
        work = _Work(shard, making, reader)
        written = make_shard(out / f"{shard.name}.tar", work.records(), out)
    if not written.samples:
        (out / f"{shard.name}.tar").unlink(missing_ok=True)  # of files that were there before
    present = {m: sum(getattr(meta, m).present for meta in work.metas) for m in MODALITIES}
    result = ImportLedger(
        digest=shard.digest,
        shard=written,
        present=present,
        absent=count_absent(work.metas),
        notes=tuple(work.notes),
        imported=tuple(meta.id for meta in work.metas),
        audio=add(work.moments.get("audio", [])),
        visual=add(work.moments.get("visual", [])),
    )
    return write_ledger(result, out, shard.name)


@dataclass
class _Work:
    """The clips of one shard on their way."""

    shard: ImportShard
    making: Making
    reader: ArrayReader
    notes: list[Note] = field(default_factory=list)
    metas: list[SampleMeta] = field(default_factory=list)
    moments: dict[str, list[Moments]] = field(default_factory=dict)
    rooms: dict[str, np.ndarray] = field(default_factory=dict)  # memory by member: the writer is done with it by then

    def records(self) -> Iterator[Record]:
        """The clips that can be imported, as the writer takes them."""
        for item, following in ahead(self.shard):
            for entry in following.entries.values() if following is not None else ():
                self.reader.ahead(entry)
            if not item.entries:  # every question about it is noted
                continue
            found, causes, notes = self._members(item)
            keep = self.making.modalities and self.making.config.partial == "keep"
            whole = not causes or (keep and bool(found))
            said = "imported" if not causes else "one modality imported" if whole else "left out"
            self.notes += [note.model_copy(update={"outcome": said}) for note in notes]
            if whole:
                yield item.key, self._sample(item, found, causes)

    def _members(self, item: ImportItem) -> tuple[dict[str, Converted], dict[str, Cause], list[Note]]:
        """What could be converted, why the rest could not, and what is to be noted."""
        found: dict[str, Converted] = {}
        causes: dict[str, Cause] = {}
        notes: list[Note] = []
        for member, parts in self.making.members.items():
            try:
                found[member] = self._converted(item, parts, self.rooms.get(member))
                self.rooms[member] = found[member].array
            except _Failed as failed:
                causes[member] = failed.error.cause
                notes.append(
                    self._note(item, failed.error.cause, failed.file, failed.error.message, failed.error.remedy)
                )
                continue
            notes += self._remarks(item, parts, found[member])
        return found, causes, notes

    def _converted(self, item: ImportItem, parts: tuple[Part, ...], room: np.ndarray | None) -> Converted:
        """Raises: _Failed."""
        config, arrays, file = self.making.config, [], None
        for part in parts:
            entry = item.entries.get(part.name)
            if entry is None:
                error = DecodeError(Cause.MISSING_FILE, f"nothing in '{part.name}' is of this id", MISSING)
                raise _Failed(error, part.name)
            file = _named(entry)
            try:
                arrays.append((part, self.reader.read(entry, part.name)))
            except DecodeError as error:
                raise _Failed(error, file) from None
        try:
            found = convert(arrays, self.making.rows, config.dtype, config.length == "fit", room)
        except DecodeError as error:
            raise _Failed(error, file or "") from None
        if config.zeros == "absent" and len(found.zero_rows) == self.making.rows:
            raise _Failed(DecodeError(Cause.ALL_ZERO, "nothing but zeros: its extraction failed", ZERO), file or "")
        return found

    def _remarks(self, item: ImportItem, parts: tuple[Part, ...], found: Converted) -> Iterator[Note]:
        """What is noted of an array that is taken over."""
        file = _named(item.entries[parts[0].name])
        if found.zero_rows:
            rows = ", ".join(map(str, found.zero_rows))
            message = f"{len(found.zero_rows)} of {self.making.rows} rows hold nothing but zeros: {rows}"
            yield self._note(item, What.ZERO_ROWS, file, message, "they are kept as they are")
        if found.fitted is not None:
            yield self._note(item, What.FITTED, file, f"had {found.fitted} rows, has {self.making.rows}", "")

    def _note(self, item: ImportItem, what: str, file: str, message: str, remedy: str) -> Note:
        whose = {"clip" if self.making.modalities else "question": item.id}
        return Note(what=what, outcome="imported", file=file, message=message, remedy=remedy, **whose)

    def _sample(self, item: ImportItem, found: dict[str, Converted], causes: dict[str, Cause]) -> dict[str, Member]:
        meta = sample_meta(item, self.making, causes)
        self.metas.append(meta)
        if item.split == "train":
            for member, converted in found.items():
                self.moments.setdefault(member, []).append(converted.moments)
        return {"json": meta, **{f"{member}.npy": self._array(member, x) for member, x in found.items()}}

    def _array(self, member: str, found: Converted) -> np.ndarray:
        """As shards hold it: sound has no places."""
        return found.array[:, 0] if member in ("audio", "question") else found.array


class _Failed(Exception):
    """An array that can't be taken over, and its file."""

    def __init__(self, error: DecodeError, file: str):
        super().__init__(str(error))
        self.error, self.file = error, file


def _named(entry: Entry) -> str:
    return entry.file if entry.row is None else f"{entry.file}: row {entry.row}"


def sample_meta(item: ImportItem, making: Making, causes: dict[str, Cause]) -> SampleMeta:
    """An imported item's json. Its source is known by name and size alone, so no hash of its bytes is told."""
    seconds = making.rows * making.config.seconds if making.modalities else 0.0

    def stream(modality: str) -> StreamInfo:
        cause = causes.get(modality) if making.modalities else ABSENT
        return StreamInfo(present=cause is None, cause=cause, duration=None if cause else seconds)

    return SampleMeta(
        key=item.key,
        id=item.id,
        labels=item.labels,
        split=item.split,
        duration=seconds,
        audio=stream("audio"),
        visual=stream("visual"),
        source_sha256="",
    )
