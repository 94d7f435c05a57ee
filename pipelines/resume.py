"""What lets a killed job go on in its folder: a plan that is kept, a ledger per shard.

A shard's ledger is written after the shard itself is in place; a shard that has one is finished and never written
again. On a store as in a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pydantic

from shards.atomic import write_text
from shards.brought import brought
from shards.causes import Cause
from shards.errors import InputError
from shards.scan import part_of, shard_part, write_tables
from shards.schema import MODALITIES, DatasetInfo, Frozen, ShardInfo, SplitInfo, add_absent
from shards.store import Place, PlaceT, StorePath, size_of
from shards.store_errors import MachineRefused, StoreRefused, StoreUnreachable
from shards.table import read_part, write_part
from shards.writer import Record, write_shard


class Ledger(Frozen):
    """What the making of one shard leaves behind for dataset.json.

    Attributes:
        digest: of what the shard was made from.
        shard: the finished file (``samples=0``: no file).
        present: samples that have each modality.
        absent: by modality, samples that lack it, by cause (version 0.1 kept none).
    """

    digest: str
    shard: ShardInfo
    present: dict[str, int]
    absent: dict[str, dict[Cause, int]] = pydantic.Field(default={})


LedgerT = TypeVar("LedgerT", bound=Ledger)


def ledger_path(out: PlaceT, name: str) -> PlaceT:
    """Where the result of the shard ``name`` (``train-000042``) is kept."""
    return out / "ledger" / f"{name}.json"


def read_ledger(kind: type[LedgerT], out: Place, name: str, digest: str) -> LedgerT | None:
    """The result of a finished shard; ``None`` if it has to be made (again)."""
    try:
        result = kind.model_validate_json(ledger_path(out, name).read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return None
    if result.digest != digest:
        return None
    whole = not result.shard.samples or size_of(out / result.shard.name) == result.shard.bytes
    return result if whole else None


def write_ledger(result: LedgerT, out: Place, name: str) -> LedgerT:
    """Declare the shard finished; what the ledger says then.

    On a store, two workers may have made the same shard, each believing the other dead. Both write the same bytes,
    unless a clip took too long for one of them alone; then the ledger is the one of the shard that is there.
    """
    path, text = ledger_path(out, name), result.model_dump_json() + "\n"
    if isinstance(path, Path):
        write_text(path, text)
    elif not path.create(text.encode()):
        earlier = read_ledger(type(result), out, name, result.digest)
        if earlier is not None and not _is_there(result.shard, out):
            return earlier
        path.write_bytes(text.encode())
    return result


def _is_there(shard: ShardInfo, out: Place) -> bool:
    """Whether a shard's object is this one.

    Raises:
        StoreRefused, StoreUnreachable, MachineRefused: it can't be known.
    """
    try:
        with brought(out, shard) if shard.samples else nullcontext():
            return True
    except (StoreRefused, StoreUnreachable, MachineRefused):
        raise
    except InputError:
        return False


def make_shard(path: Place, records: Iterable[Record], out: Place) -> ShardInfo:
    """Write a shard of the dataset in ``out``, and what its samples are, for its split's table; before its ledger.

    Raises:
        OSError, InputError: it can't be written.
    """

    def keep_part(file: Path, shard: ShardInfo) -> None:
        write_part(part_path(out, path.stem), shard_part(file, shard))

    return write_shard(path, records, root=out, look=keep_part)


def part_path(out: PlaceT, name: str) -> PlaceT:
    """Where the rows of the shard ``name`` wait for the split's table."""
    return ledger_path(out, name).with_suffix(".arrow")


def kept_part(out: Place, shard: ShardInfo) -> pa.RecordBatch:
    """The rows of a shard: those that were kept, else (of an earlier version) from the shard.

    Raises:
        InputError: a damaged shard.
    """
    return read_part(part_path(out, Path(shard.name).stem), shard.samples) or part_of(out, shard)


def finish(info: DatasetInfo, out: Place) -> None:
    """Declare a dataset finished: the tables of its splits, then dataset.json."""
    write_tables(out, info, kept_part)
    info.save(out)


def split_info(results: Sequence[Ledger]) -> SplitInfo:
    """A split of dataset.json from the results of its shards, in order."""
    samples = sum(result.shard.samples for result in results)
    present = {m: sum(result.present[m] for result in results) for m in MODALITIES}
    absent = add_absent(result.absent for result in results)
    counted = all(sum(absent.get(m, {}).values()) == samples - present[m] for m in MODALITIES)
    shards = tuple(result.shard for result in results if result.shard.samples)
    return SplitInfo(samples=samples, present=present, shards=shards, absent=absent if counted else {})


def remove_partial_files(out: Place, *folders: str) -> None:
    """Remove what killed jobs left half-written in ``out`` and its ``folders``; a store has nothing half."""
    if isinstance(out, StorePath):
        return
    for folder in (out, *(out / name for name in folders)):
        for path in folder.glob(".*.tmp*"):
            path.unlink(missing_ok=True)


def keep_plan(path: Place, mine: dict[str, Any], source: str, remedy: str) -> None:
    """Write the plan of this job to ``path``, or compare it with the one that is there: the same resumes.

    One that holds all shards of the kept plan as they were, and more, takes its place: the source has grown.

    Args:
        mine: json values: ``config`` by field, ``shards`` as digests by name, ``dataset`` (the source's
            fingerprint, which changes as it grows), and more.
        source: what the shards are made from ("manifest").
        remedy: for a folder that was begun otherwise.

    Raises:
        InputError: the folder was begun with another config, source or version; names what differs.
    """
    with suppress(FileNotFoundError):
        try:
            kept = json.loads(path.read_text())
            _compare(kept, mine, path, source, remedy)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("unreadable", file=path, remedy=remedy) from None
        if kept == mine:
            return
    write_text(path, json.dumps(mine, indent=1) + "\n")


def _compare(kept: dict, mine: dict, path: Place, source: str, remedy: str) -> None:
    same_config(kept["config"], mine["config"], path, remedy)
    for name in sorted(kept["shards"]):
        if (now := mine["shards"].get(name)) != kept["shards"][name]:
            what = "is gone" if now is None else "differs"
            message = f"the {source} is not the one this folder was begun with: shard {name} {what}"
            raise InputError(message, file=path, remedy=remedy)
    fixed = mine.keys() - {"shards", "dataset"}
    if kept.keys() != mine.keys() or any(kept[name] != mine[name] for name in fixed):
        raise InputError("begun with another version", file=path, remedy=remedy)


def same_config(kept: Mapping[str, Any], mine: Mapping[str, Any], path: Place, remedy: str) -> None:
    """Raises InputError for the first field in which the config differs from the one kept in ``path``."""
    for name, value in mine.items():
        if kept.get(name) != value:
            message = f"this folder was begun with {name}={kept.get(name)!r}, now it is {value!r}"
            raise InputError(message, file=path, field=name, remedy=remedy)
