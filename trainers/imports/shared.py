"""``avmend import DIR``: runs and shards that ``avmend export`` wrote, checked file by file and never unpickled."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath

from configs.cluster import lasting
from shards.atomic import sync
from shards.checkpoint import has_checkpoint, load_checkpoint
from shards.errors import InputError
from shards.hashes import file_sha256
from shards.lock import folder_lock
from shards.scan import write_tables
from shards.schema import DATASET_FILE, DatasetInfo
from shards.scratch import scratch
from shards.shared import AGAIN, RECORD, SharedRecord, take
from shards.store import Place, StorePath
from shards.working_copy import worked_on
from trainers.identity import run_identity
from trainers.job import read_record
from trainers.runs import CONFIG_FILE, paths_of, read_run
from trainers.stored_run import TRAINING, run_folder

LOCK = ".import.lock"
NOT_IN_RUNS = (".tar", ".parquet", ".md")


def take_in(args: argparse.Namespace) -> Place:
    """Copy a run (and the runs it stands on) to the folder of runs, or shards to a folder of their own; each of these
    may lie on a store.

    What is there already and the same is left as it is.

    Raises:
        InputError: no exported folder; a file that is missing, changed or a link; another identity or fingerprint
            than it says; another run or dataset in the way.
    """
    record = SharedRecord.load(args.folder)
    if record.kind == "shards":
        return _take_shards(args.folder, record, lasting(args.out or Path("data") / record.name, "--out"))
    if args.out is not None:
        message, remedy = "this is a run, which goes into the folder of runs", "give --runs DIR instead"
        raise InputError(message, field="--out", remedy=remedy)
    runs = lasting(args.runs, "--runs")
    for folder in reversed(record.folders):  # first what the run stands on
        _take_run(args.folder, record, folder, runs)
    return runs / PurePosixPath(record.folders[0]).name


def _take_shards(source: Place, record: SharedRecord, out: Place) -> Place:
    folder = _only_folder(source, record)
    if (out / DATASET_FILE).is_file() and DatasetInfo.load(out).fingerprint() == record.fingerprint:
        return out
    with _arriving(out, _sent) as partial:
        _copy(source, record, folder, partial)
        info = DatasetInfo.load(partial)
        _same(source, "dataset's fingerprint", info.fingerprint(), record.fingerprint)
        listed = dict(record.within(folder))
        for shard in (shard for split in info.splits.values() for shard in split.shards):
            file = listed.get(shard.name)
            if file is None or (file.bytes, file.sha256) != (shard.bytes, shard.sha256):
                message = "dataset.json and avmend.json do not say the same about this shard"
                raise InputError(message, file=source / folder / shard.name, remedy=AGAIN)
        write_tables(partial, info)
    return out


def _only_folder(source: Place, record: SharedRecord) -> str:
    if len(record.folders) != 1:
        raise InputError("names several folders of shards", file=source / RECORD, field="folders", remedy=AGAIN)
    return record.folders[0]


def _take_run(source: Place, record: SharedRecord, folder: str, runs: Place) -> None:
    out = runs / PurePosixPath(folder).name
    for inner, file in record.within(folder):
        if PurePosixPath(inner).suffix in NOT_IN_RUNS:
            raise InputError("has no place in a run", file=source / file.path, remedy=AGAIN)
    here = run_folder(out)
    if here.exists() and _is_same(record, folder, here):
        return
    with _arriving(out, _published) as partial:
        _copy(source, record, folder, partial)
        _check_run(source, record, folder, partial)


def _is_same(record: SharedRecord, folder: str, out: Path) -> bool:
    """Whether a run that is there has the weights of the one that comes."""
    theirs = {inner: file.sha256 for inner, file in record.within(folder) if inner.endswith("/checkpoint.json")}
    return bool(theirs) and all(
        (out / inner).is_file() and file_sha256(out / inner) == sha256 for inner, sha256 in theirs.items()
    )


def _check_run(source: Place, record: SharedRecord, folder: str, place: Path) -> None:
    """Whole, finished, and the run that its name says."""
    run, said = read_run(place), read_record(place)
    for path in paths_of(run.config):
        if not path.is_relative_to(place.absolute().parent):
            message, remedy = f"names a path outside of the folder of runs: {path.name}", AGAIN
            raise InputError(message, file=source / folder / CONFIG_FILE, field="config", remedy=remedy)
    for name in run.recipe.checkpoints(run.config):
        if not has_checkpoint(place / name):
            raise InputError(f"has no checkpoint '{name}'", file=source / folder, remedy=AGAIN)
        _load(source, folder, place, name)
    start, revision = said.get("backbone") or None, said.get("revision", 1)
    identity = run_identity(run.config, revision, said.get("dataset", ""), start)
    _same(source, "identity", identity, said.get("identity"))
    if folder == record.folders[0]:
        _same(source, "identity", identity, record.fingerprint)


def _load(source: Place, folder: str, place: Path, name: str) -> None:
    try:
        load_checkpoint(place / name)
    except InputError as error:
        raise InputError(error.message, file=source / folder / name, remedy=AGAIN) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"is no checkpoint: {error!r}"
        raise InputError(message, file=source / folder / name, remedy=AGAIN) from None


def _same(source: Place, what: str, found: str, said: object) -> None:
    if found != said:
        message = f"its {what} is {found[:12]}, it says {str(said)[:12]}"
        raise InputError(message, file=source / RECORD, remedy=AGAIN)


def _copy(source: Place, record: SharedRecord, folder: str, out: Path) -> None:
    for inner, file in record.within(folder):
        take(source, file, out / inner)


@contextmanager
def _sent(out: StorePath) -> Iterator[Path]:
    """A local folder that a dataset's place on a store gets when the block ends well, its dataset.json last."""
    if (out / DATASET_FILE).exists():
        raise _another(out)
    with scratch() as here:
        yield here
        paths = sorted((p for p in here.rglob("*") if p.is_file()), key=lambda p: (p.name == DATASET_FILE, p))
        for path in paths:
            (out / path.relative_to(here).as_posix()).put(path)


@contextmanager
def _published(out: StorePath) -> Iterator[Path]:
    """The working copy of a run on a store, which is published when the block ends well."""
    with worked_on(out, TRAINING) as here:
        if any(not path.name.startswith(".") for path in here.iterdir()):
            raise _another(out)
        try:
            yield here
        except BaseException:
            shutil.rmtree(here, ignore_errors=True)
            raise


def _another(out: Place) -> InputError:
    message, remedy = "is there already, and is another one", "remove it, or take this one in elsewhere"
    return InputError(message, file=out, remedy=remedy)


@contextmanager
def _arriving(out: Place, on_store: Callable[[StorePath], AbstractContextManager[Path]]) -> Iterator[Path]:
    """A folder beside ``out`` that becomes it when the block ends well; it is removed when it does not. On a store
    `on_store` does that.

    Raises:
        InputError: something else is there.
    """
    if isinstance(out, StorePath):
        with on_store(out) as here:
            yield here
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise _another(out)
    partial = out.with_name(f".{out.name}.arriving")
    shutil.rmtree(partial, ignore_errors=True)
    with folder_lock(partial, "import"):
        try:
            yield partial
            (partial / LOCK).unlink()
            if out.exists():
                out.rmdir()
            partial.rename(out)
            sync(out.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
