"""Everything in a dataset's folder against its dataset.json: damage, swaps, contradictions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SampleMeta, ShardInfo, SplitInfo, count_absent


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
    against presence flags, presence counts and causes, shards that dataset.json does not know.

    Raises:
        InputError: there is no readable dataset.json.
    """
    folder = Path(folder)
    info = DatasetInfo.load(folder)
    problems = [p for split in info.splits.values() for shard in split.shards for p in _bytes(folder, shard)]
    seen: dict[str, str] = {}
    for name, split in info.splits.items():
        problems += _split(folder, info, name, split, seen)
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


def _split(folder: Path, info: DatasetInfo, name: str, split: SplitInfo, seen: dict[str, str]) -> Iterator[Problem]:
    """Problems inside the shards of a split; shard by shard, so that one bad shard hides no other."""
    present, metas = dict.fromkeys(split.present, 0), []
    whole = True
    for shard in split.shards:
        try:
            samples = list(_samples(folder, info, name, shard))
        except InputError as error:
            yield Problem(shard.name, None, error.message)
            whole = False
            continue
        for key, found in samples:
            if isinstance(found, str):
                yield Problem(shard.name, key, found)
                whole = False
                continue
            if key in seen:
                yield Problem(shard.name, key, f"the same key is in {seen[key]}")
            seen[key] = shard.name
            if found.split != name:
                yield Problem(shard.name, key, f"is of split '{found.split}', not '{name}'")
            present = {m: n + getattr(found, m).present for m, n in present.items()}
            metas.append(found)
    if whole and present != split.present:
        yield Problem("dataset.json", None, f"split {name}: present {split.present}, the shards say {present}")
    absent = count_absent(metas)
    if whole and split.absent and absent != split.absent:
        said, found = (json.dumps(counts) for counts in (split.absent, absent))
        yield Problem("dataset.json", None, f"split {name}: absent {said}, the shards say {found}")


def _samples(folder: Path, info: DatasetInfo, split: str, shard: ShardInfo) -> Iterator[tuple[str, SampleMeta | str]]:
    """(key, its meta or what is wrong with it) of one shard."""
    alone = SplitInfo(samples=shard.samples, present={}, shards=(shard,))
    data = ShardDataset(folder, split, info=info.model_copy(update={"splits": {split: alone}}))
    for i, key in enumerate(data.keys):
        try:
            yield key, data[i].meta
        except InputError as error:
            yield key, error.message


def _strangers(folder: Path, info: DatasetInfo) -> Iterator[Problem]:
    known = {shard.name for split in info.splits.values() for shard in split.shards}
    for parent in sorted({str(Path(name).parent) for name in known}):
        for path in sorted((folder / parent).glob("*.tar")):
            name = path.relative_to(folder).as_posix()
            if name not in known:
                yield Problem(name, None, "dataset.json does not know this shard")
