"""Everything in a dataset's folder against its dataset.json: damage, swaps, contradictions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import InputError
from shards.hashes import file_sha256
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.scan import scanned_places, shard_part
from shards.schema import DatasetInfo, SampleMeta, ShardInfo, SplitInfo, add_absent, count_absent
from shards.table import PLACES, SCHEMA, SplitTable, facts, index_path, joined, read_table, rebatched


@dataclass(frozen=True)
class Problem:
    """One thing wrong: the file, the sample's key if it is one sample, and what."""

    file: str
    key: str | None
    message: str

    def __str__(self) -> str:
        text = f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"
        return plain(text)


def plain(text: str) -> str:
    """Without control characters: what a dataset calls itself must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def verify(folder: str | Path) -> list[Problem]:
    """Read every byte of the dataset and report what is wrong; an empty list means nothing is.

    Checked: sha256 and size of every shard, tar structure, sample counts, unique keys, the jsons, members
    against presence flags, presence counts and causes, shards that dataset.json does not know, the tables of
    ``index`` against the shards. A sample takes 16 bytes of memory, for the uniqueness of its key.

    Raises:
        InputError: there is no readable dataset.json.
    """
    folder = Path(folder)
    info = DatasetInfo.load(folder)
    problems = [p for split in info.splits.values() for shard in split.shards for p in _bytes(folder, shard)]
    seen: list[np.ndarray] = []
    for name, split in info.splits.items():
        problems += _split(folder, info, name, split, seen)
    problems += _repeated(folder, info, seen)
    return problems + list(_strangers(folder, info))


def _bytes(folder: Path, shard: ShardInfo) -> Iterator[Problem]:
    path = folder / shard.name
    if not path.is_file():
        yield Problem(shard.name, None, "missing")
    elif path.stat().st_size != shard.bytes:
        yield Problem(shard.name, None, f"{path.stat().st_size} bytes, dataset.json says {shard.bytes}")
    else:
        if (digest := file_sha256(path)) != shard.sha256:
            yield Problem(shard.name, None, f"sha256 is {digest[:12]}..., not {shard.sha256[:12]}...")


def _split(folder: Path, info: DatasetInfo, name: str, split: SplitInfo, seen: list[np.ndarray]) -> Iterator[Problem]:
    """Problems inside the shards of a split; shard by shard, so that one bad shard hides no other."""
    present, absent = dict.fromkeys(split.present, 0), []
    whole, table = True, _Table(folder, name, split)
    yield from table.unreadable()
    for shard in split.shards:
        try:
            place = scanned_places(folder / shard.name, shard)
        except InputError as error:
            yield Problem(shard.name, None, error.message)
            whole = False
            table.skip(shard)
            continue
        only = info.only(name, shard)
        data = ShardDataset(folder, name, info=only, table=SplitTable(list(rebatched([place], PLACES))))
        samples = list(_samples(data))
        yield from table.compared(shard, place, [found for _, found in samples])
        seen.append(hashed(key for key, _ in samples))
        absent.append(count_absent(found for _, found in samples if not isinstance(found, str)))
        for key, found in samples:
            if isinstance(found, str):
                yield Problem(shard.name, key, found)
                whole = False
                continue
            if found.split != name:
                yield Problem(shard.name, key, f"is of split '{found.split}', not '{name}'")
            present = {m: n + getattr(found, m).present for m, n in present.items()}
    if whole and present != split.present:
        yield Problem("dataset.json", None, f"split {name}: present {split.present}, the shards say {present}")
    if whole and split.absent and (counted := add_absent(absent)) != split.absent:
        said, found = (json.dumps(counts) for counts in (split.absent, counted))
        yield Problem("dataset.json", None, f"split {name}: absent {said}, the shards say {found}")


def _samples(data: ShardDataset) -> Iterator[tuple[str, SampleMeta | str]]:
    """(key, its meta or what is wrong with it) of one shard."""
    for i, key in enumerate(data.keys):
        try:
            yield key, data.checked(i)
        except InputError as error:
            yield key, error.message


def _repeated(folder: Path, info: DatasetInfo, seen: list[np.ndarray]) -> Iterator[Problem]:
    """Keys that several samples have."""
    values = np.concatenate([*seen, np.empty(0, np.uint64)])
    values.sort()
    if not len(twice := np.unique(values[1:][values[1:] == values[:-1]])):
        return
    first = dict[str, str]()
    for shard in (shard for split in info.splits.values() for shard in split.shards):
        try:
            keys = shard_part(folder / shard.name, shard)["key"].to_pylist()
        except InputError:  # told already
            continue
        for at in np.flatnonzero(np.isin(hashed(keys), twice)).tolist():
            if first.setdefault(keys[at], shard.name) != shard.name:
                yield Problem(shard.name, keys[at], f"the same key is in {first[keys[at]]}")


class _Table:
    """A split's table, if it has one, beside what the shards say, one after the other."""

    def __init__(self, folder: Path, name: str, split: SplitInfo):
        self._folder, path = folder, index_path(folder, name)
        self._file, self._at = path.relative_to(folder).as_posix(), 0
        self._table = read_table(path, split)
        self._unreadable = self._table is None and path.exists()

    def unreadable(self) -> Iterator[Problem]:
        """Whether it is there and can't be compared."""
        if self._unreadable:
            yield Problem(self._file, None, "is unreadable or of other shards; run 'avmend shards index'")

    def skip(self, shard: ShardInfo) -> None:
        """Leave out a shard that can't be read."""
        self._at += shard.samples

    def compared(self, shard: ShardInfo, place: pa.RecordBatch, found: Sequence[SampleMeta | str]) -> Iterator[Problem]:
        """Where it says other things than the next shard, of whose samples `place` and `found` were read."""
        first, self._at = self._at, self._at + shard.samples
        if self._table is None:
            return
        try:
            metas = [meta for meta in found if not isinstance(meta, str)]
            if len(metas) == len(found):
                part = joined(place, facts(metas))
            else:  # a sample's arrays may be damaged while its json is not
                part = shard_part(self._folder / shard.name, shard)
            rows = self._table.rows(first, shard.samples)
            rows.validate(full=True)
            if not rows.drop_columns("shard").equals(pa.Table.from_batches([part], SCHEMA).drop_columns("shard")):
                yield Problem(self._file, None, f"differs from {shard.name}; run 'avmend shards index'")
        except InputError:  # told already
            pass
        except pa.ArrowInvalid:
            yield Problem(self._file, None, f"is damaged where it describes {shard.name}; run 'avmend shards index'")


def _strangers(folder: Path, info: DatasetInfo) -> Iterator[Problem]:
    known = {shard.name for split in info.splits.values() for shard in split.shards}
    for parent in sorted({str(Path(name).parent) for name in known}):
        for path in sorted((folder / parent).glob("*.tar")):
            name = path.relative_to(folder).as_posix()
            if name not in known:
                yield Problem(name, None, "dataset.json does not know this shard")
