"""An audit from its source to its files: measure the parts, find duplicates, write audit.csv and audit.html.

Run it again after a kill: it goes on where it was, and ends in the same bytes. Parts are never measured twice;
flags, duplicates and files are made anew from them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pipelines.audit.assemble import Summary, write_files
from pipelines.audit.duplicates import ClipFiles, Columns, candidate_pairs, match_array, match_pairs
from pipelines.audit.flags import comparable, flags_of
from pipelines.audit.joined import Joined
from pipelines.audit.page import PAGE_FILE, write_page
from pipelines.audit.part import FOLDER, PartFile, audit_part, is_done, part_path, sha
from pipelines.audit.settings import AuditConfig
from pipelines.audit.sources import Part, plan_parts
from pipelines.causes import MachineError
from pipelines.on_ray import run_tasks
from pipelines.resume import remove_partial_files
from shards.errors import InputError
from shards.lock import folder_lock
from shards.progress import Progress
from shards.store import Place

PAIRS_AT_ONCE = 2000  # compared in one task
COLUMNS = "columns"  # folder of mapped arrays, removed at the end


@dataclass(frozen=True)
class PairTask:
    """Pairs of clips to compare, int32 [pairs, 2]."""

    name: str
    pairs: np.ndarray


def audit(source: str | Place, out: str | Path, config: AuditConfig | None = None) -> Summary:
    """Audit a dataset's media shards or a manifest (or their URL); what an earlier run measured is kept.

    Raises:
        InputError: neither of the two, a wrong manifest, a damaged shard; a full disk.
    """
    out, config = Path(out).absolute(), config or AuditConfig()
    parts = plan_parts(source, config)
    try:
        with folder_lock(out, "audit"):
            remove_partial_files(out, FOLDER)
            _measure(parts, config, out)
            paths = [part_path(part, out) for part in parts]
            columns = columns_of(parts, paths, config, out)
            matches = _compare(columns, paths, config, out)
            files = ClipFiles(paths, columns.begins)
            summary = write_files(out, files, Joined(matches, columns, files), config)
            write_page(out / PAGE_FILE, summary, files, str(source), config)
            shutil.rmtree(out / COLUMNS)
    except MachineError as error:
        remedy = "correct the machine (files, processes, room); the same command then goes on"
        raise InputError(f"clips can't be decoded here: {error.strerror}", remedy=remedy) from error
    except OSError as error:
        remedy = "make room or correct the rights; the same command then goes on"
        raise InputError(f"can't be written: {error.strerror or error}", file=out, remedy=remedy) from error
    return summary


def _measure(parts: Sequence[Part], config: AuditConfig, out: Path) -> None:
    todo = [part for part in parts if not is_done(part, out)]
    if not todo:
        return
    sizes, total = {part.name: part.size for part in todo}, sum(part.size for part in parts)
    with Progress("audit", total, done=total - sum(sizes.values())) as progress:
        for name, _ in run_tasks(audit_part, todo, (config, out), config.workers, config.worker_tries, out):
            progress.advance(sizes[name])


def _compare(columns: Columns, paths: Sequence[Path], config: AuditConfig, out: Path) -> np.ndarray:
    """Duplicates among the candidates, in order of their positions: an array of `MATCH`."""
    pairs = candidate_pairs(columns, config)
    tasks = [PairTask(f"{i:06d}", pairs[i : i + PAIRS_AT_ONCE]) for i in range(0, len(pairs), PAIRS_AT_ONCE)]
    workers = config.workers if len(tasks) > 1 else 0
    found: dict[str, np.ndarray] = {}
    with Progress("duplicates", len(pairs), "pairs") as progress:
        arguments = (columns, list(paths), config)
        for name, matches in run_tasks(compare_task, tasks, arguments, workers, config.worker_tries, out):
            found[name] = matches
            progress.advance(len(tasks[int(name) // PAIRS_AT_ONCE].pairs))
    return np.concatenate([match_array([]), *(found[name] for name in sorted(found))])


def compare_task(task: PairTask, columns: Columns, paths: Sequence[Path], config: AuditConfig) -> np.ndarray:
    """The duplicates among a task's pairs."""
    return match_pairs(task.pairs, columns, paths, config)


def columns_of(parts: Sequence[Part], paths: Sequence[Path], config: AuditConfig, out: Path) -> Columns:
    """Columns of all parts end to end, mapped from files, so that they take no memory."""
    begins = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
    shutil.rmtree(out / COLUMNS, ignore_errors=True)
    (out / COLUMNS).mkdir(parents=True)
    shapes = {
        "digests": (np.uint64, (3,)),
        "sound_hashes": (np.uint64, (5,)),
        "picture_hashes": (np.uint64, (6,)),
        "steps": (np.int64, ()),
        "comparable": (np.bool_, (2,)),
        "splits": (np.int32, ()),
        "groups": (np.int64, ()),
    }
    found = {
        name: open_memmap(out / COLUMNS / f"{name}.npy", "w+", dtype, (int(begins[-1]), *shape))
        for name, (dtype, shape) in shapes.items()
    }
    splits: dict[str, int] = {}
    for path, begin, end in zip(paths, begins, begins[1:], strict=False):
        file = PartFile(path)
        for name in ("digests", "sound_hashes", "picture_hashes", "steps"):
            found[name][begin:end] = file.column(name)
        for i, record in enumerate(file.records(), int(begin)):
            found["comparable"][i] = comparable(flags_of(record.measures, config))
            found["splits"][i] = splits.setdefault(record.split, len(splits))
            found["groups"][i] = 0 if record.group is None else _number(record.group)
        usable = file.column("digests")[:, :2] != 0
        found["comparable"][begin:end] &= usable
    return Columns(**found, begins=begins)


def _number(group: str) -> int:
    """A group's name as 63 bits, never 0: names may be as many as clips, and are not kept."""
    return sha(group) >> 1 or 1
