"""What lets a killed job go on in its folder: a plan that is kept, a ledger per shard.

A shard's ledger is written after the shard itself was renamed into place; a shard that has one is finished
and never written again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pydantic

from shards.atomic import write_text
from shards.causes import Cause
from shards.errors import InputError
from shards.scan import shard_part, write_tables
from shards.schema import MODALITIES, DatasetInfo, Frozen, ShardInfo, SplitInfo, add_absent
from shards.table import read_part, write_part


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


def ledger_path(out: Path, name: str) -> Path:
    """Where the result of the shard ``name`` (``train-000042``) is kept."""
    return out / "ledger" / f"{name}.json"


def read_ledger(kind: type[LedgerT], out: Path, name: str, digest: str) -> LedgerT | None:
    """The result of a finished shard; ``None`` if it has to be made (again)."""
    try:
        result = kind.model_validate_json(ledger_path(out, name).read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return None
    tar = out / result.shard.name
    whole = tar.is_file() and tar.stat().st_size == result.shard.bytes
    return result if result.digest == digest and (whole or not result.shard.samples) else None


def write_ledger(result: Ledger, out: Path, name: str) -> None:
    """Declare the shard finished."""
    write_text(ledger_path(out, name), result.model_dump_json() + "\n")


def part_path(out: Path, name: str) -> Path:
    """Where the rows of the shard ``name`` wait for the split's table."""
    return ledger_path(out, name).with_suffix(".arrow")


def keep_part(shard: ShardInfo, out: Path, name: str) -> None:
    """Write down what the samples of a shard are, for its split's table; before its ledger."""
    if shard.samples:
        write_part(part_path(out, name), shard_part(out / shard.name, shard))


def kept_part(path: Path, shard: ShardInfo) -> pa.RecordBatch:
    """The rows of a shard: those that were kept, else (of an earlier version) from the shard.

    Raises:
        InputError: a damaged shard.
    """
    out = path.parents[len(Path(shard.name).parts) - 1]
    return read_part(part_path(out, path.stem), shard.samples) or shard_part(path, shard)


def finish(info: DatasetInfo, out: Path) -> None:
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


def remove_partial_files(out: Path, *folders: str) -> None:
    """Remove what killed jobs left half-written in ``out`` and its ``folders``."""
    for folder in (out, *(out / name for name in folders)):
        for path in folder.glob(".*.tmp*"):
            path.unlink(missing_ok=True)


def keep_plan(path: Path, mine: dict[str, Any], source: str, remedy: str) -> None:
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
    if path.exists():
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


def _compare(kept: dict, mine: dict, path: Path, source: str, remedy: str) -> None:
    same_config(kept["config"], mine["config"], path, remedy)
    for name in sorted(kept["shards"]):
        if (now := mine["shards"].get(name)) != kept["shards"][name]:
            what = "is gone" if now is None else "differs"
            message = f"the {source} is not the one this folder was begun with: shard {name} {what}"
            raise InputError(message, file=path, remedy=remedy)
    fixed = mine.keys() - {"shards", "dataset"}
    if kept.keys() != mine.keys() or any(kept[name] != mine[name] for name in fixed):
        raise InputError("begun with another version", file=path, remedy=remedy)


def same_config(kept: Mapping[str, Any], mine: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Raises InputError for the first field in which the config differs from the one kept in ``path``."""
    for name, value in mine.items():
        if kept.get(name) != value:
            message = f"this folder was begun with {name}={kept.get(name)!r}, now it is {value!r}"
            raise InputError(message, file=path, field=name, remedy=remedy)
