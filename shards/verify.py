"""Everything in a dataset's folder against its dataset.json: damage, swaps, contradictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import InputError
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.scan import shard_part
from shards.schema import DatasetInfo, SampleMeta, ShardInfo, SplitInfo, add_absent, count_absent
from shards.table import SCHEMA, index_path, read_table


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
    ``index`` against the shards. A sample takes 8 bytes of memory, for the uniqueness of its key.

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
    for name, split in info.splits.items():
        problems += _table(folder, name, split)
    return problems + list(_strangers(folder, info))


def _bytes(folder: Path, shard: ShardInfo) -> Iterator[Problem]:
    path = folder / shard.name
    if not path.is_file():
        yield Problem(shard.name, None, "missing")
    elif path.stat().st_size != shard.bytes:
        yield Problem(shard.name, None, f"{path.stat().st_size} bytes, dataset.json says {shard.bytes}")
    else:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            yield Problem(shard.name, None, f"sha256 is {digest[:12]}..., not {shard.sha256[:12]}...")


def _split(folder: Path, info: DatasetInfo, name: str, split: SplitInfo, seen: list[np.ndarray]) -> Iterator[Problem]:
    """Problems inside the shards of a split; shard by shard, so that one bad shard hides no other."""
    present, absent = dict.fromkeys(split.present, 0), []
    whole = True
    for shard in split.shards:
        try:
            samples = list(_samples(folder, info, name, shard))
        except InputError as error:
            yield Problem(shard.name, None, error.message)
            whole = False
            continue
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


def _samples(folder: Path, info: DatasetInfo, split: str, shard: ShardInfo) -> Iterator[tuple[str, SampleMeta | str]]:
    """(key, its meta or what is wrong with it) of one shard."""
    data = ShardDataset(folder, split, info=info.only(split, shard))
    for i, key in enumerate(data.keys):
        try:
            yield key, data[i].meta
        except InputError as error:
            yield key, error.message


def _repeated(folder: Path, info: DatasetInfo, seen: list[np.ndarray]) -> Iterator[Problem]:
    """Keys that several samples have."""
    values, counts = np.unique(np.concatenate([*seen, np.empty(0, np.uint64)]), return_counts=True)
    if not len(twice := values[counts > 1]):
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


def _table(folder: Path, name: str, split: SplitInfo) -> Iterator[Problem]:
    """Where a split's table, if it has one, says other things than the shards."""
    path, at = index_path(folder, name), 0
    file = path.relative_to(folder).as_posix()
    if not path.exists():
        return
    if (table := read_table(path, split)) is None:
        yield Problem(file, None, "is unreadable or of other shards; run 'avmend shards index'")
        return
    for shard in split.shards:
        try:
            found = pa.Table.from_batches([shard_part(folder / shard.name, shard)], SCHEMA)
            rows = table.rows(at, shard.samples)
            rows.validate(full=True)
            if not rows.drop_columns("shard").equals(found.drop_columns("shard")):
                yield Problem(file, None, f"differs from {shard.name}; run 'avmend shards index'")
        except InputError:  # told already
            pass
        except pa.ArrowInvalid:
            yield Problem(file, None, f"is damaged where it describes {shard.name}; run 'avmend shards index'")
        at += shard.samples


def _strangers(folder: Path, info: DatasetInfo) -> Iterator[Problem]:
    known = {shard.name for split in info.splits.values() for shard in split.shards}
    for parent in sorted({str(Path(name).parent) for name in known}):
        for path in sorted((folder / parent).glob("*.tar")):
            name = path.relative_to(folder).as_posix()
            if name not in known:
                yield Problem(name, None, "dataset.json does not know this shard")
