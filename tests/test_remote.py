"""Datasets on remote storage: what arrives is checked, what is half there is never seen."""

from __future__ import annotations

import io
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from shards import inspect, store
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.remote import fetch
from shards.scan import write_tables
from shards.schema import DatasetInfo
from shards.table import index_path
from shards.verify import verify
from tests.fixtures.builders import media_dataset

pytestmark = pytest.mark.unit


class Half(io.BytesIO):
    """A file of which the first half arrives."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("lost")
        return super().read(len(self.getvalue()) // 2)


class BreaksOff(MemoryFileSystem):
    """Storage whose connection is lost in the middle of every shard."""

    protocol = "breaksoff"
    store = MemoryFileSystem.store
    pseudo_dirs = MemoryFileSystem.pseudo_dirs

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("breaksoff://", "memory://"))

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        return Half(file.getvalue()) if path.endswith(".tar") else file


class Flaky(BreaksOff):
    """Storage that fails at the first request for each file."""

    protocol = "flaky"
    fault: type[Exception] = ConnectionResetError
    seen: set[str] = set()  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _asked(self, path):
        if path not in self.seen:
            self.seen.add(path)
            raise self.fault("torn")

    def _open(self, path, mode="rb", **options):
        self._asked(path)
        return MemoryFileSystem._open(self, path, mode, **options)

    def cat_file(self, path, **options):
        self._asked(path)
        return super().cat_file(path, **options)


for kind in (BreaksOff, Flaky):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Two datasets with equal file names and other bytes, uploaded to memory://a and memory://b."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for name, samples in (("a", 20), ("b", 20)):
        media_dataset(tmp_path / name, {"train": samples, "val": 5}, lambda i, n=name: "bell" if n == "a" else "drum")
        upload(tmp_path / name)
    return tmp_path


def upload(folder: Path) -> None:
    for path in (path for path in folder.rglob("*") if path.is_file()):
        fsspec.filesystem("memory").pipe(f"/{folder.name}/{path.relative_to(folder)}", path.read_bytes())


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_fetched_datasets_are_whole_and_equal_names_do_not_meet(remote):
    for name in ("a", "b"):
        folder = fetch(f"memory://{name}", remote / "cache")
        assert verify(folder) == []
        assert DatasetInfo.load(folder) == DatasetInfo.load(remote / name)
        for i, sample in enumerate(ShardDataset(folder, "train").metas):
            assert sample == ShardDataset(remote / name, "train").metas[i]


def test_only_the_splits_asked_for_come_and_nothing_comes_twice(remote, monkeypatch):
    monkeypatch.setenv("AVMEND_CACHE", str(remote / "cache"))
    data = ShardDataset("memory://a", "val")
    assert len(data) == 5
    assert len(files(remote / "cache" / "shards")) == 1
    fsspec.filesystem("memory").rm("/a/val-000000.tar")
    assert len(ShardDataset("memory://a", "val")) == 5
    assert inspect.main(["info", "memory://b"]) == 0


def test_a_lost_connection_leaves_nothing_visible_and_the_next_try_succeeds(remote, monkeypatch):
    monkeypatch.setattr(store, "FIRST", 0.0)
    cache = remote / "cache"
    with pytest.raises(InputError, match="lost"):
        fetch("breaksoff://a", cache)
    assert [path.name for path in files(cache)] == ["dataset.json"]
    assert verify(fetch("memory://a", cache)) == []


@pytest.mark.parametrize("fault", [ConnectionResetError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError])
def test_every_request_is_made_again_whatever_the_client_raises(remote, monkeypatch, fault):
    monkeypatch.setattr(store, "FIRST", 0.0)
    monkeypatch.setattr(Flaky, "fault", fault)
    Flaky.seen.clear()
    write_tables(remote / "a", DatasetInfo.load(remote / "a"))
    upload(remote / "a")
    folder = fetch("flaky://a", remote / "cache")
    assert verify(folder) == []
    assert index_path(folder, "val").read_bytes() == index_path(remote / "a", "val").read_bytes()
    assert {Path(path).suffix for path in Flaky.seen} == {".json", ".tar", ".arrow"}


def test_a_cache_that_cannot_be_written_is_not_the_storages_fault(remote):
    (remote / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file.*AVMEND_CACHE.*can't be written: Not a directory"):
        fetch("memory://a", remote / "file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # dataset.json is smaller, shards are larger
    try:
        with pytest.raises(InputError, match=r"cache/shards/.*: this machine refuses: File too large"):
            fetch("memory://a", remote / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert verify(fetch("memory://a", remote / "cache")) == []


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: x + b"\0", lambda x: b"?" + x[1:]])
def test_other_bytes_than_promised_are_refused(remote, damage):
    store = fsspec.filesystem("memory")
    store.pipe("/a/train-000001.tar", damage(store.cat("/a/train-000001.tar")))
    with pytest.raises(InputError, match=r"other bytes than dataset\.json says"):
        fetch("memory://a", remote / "cache", splits=["train"])
    assert len(files(remote / "cache" / "shards")) <= 2


def test_damage_in_the_cache_is_found_when_asked_for(remote):
    cache = remote / "cache"
    folder = fetch("memory://a", cache)
    shard = (folder / "train-000000.tar").resolve()
    shard.write_bytes(b"?" + shard.read_bytes()[1:])
    assert verify(fetch("memory://a", cache))
    assert verify(fetch("memory://a", cache, recheck=True)) == []
    shard.write_bytes(b"short")
    assert verify(fetch("memory://a", cache)) == []


def test_several_at_once_and_a_folder_made_anew_at_the_same_address(remote):
    cache = remote / "cache"
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: fetch("memory://a", cache), range(8)))) == 1
    before = fetch("memory://a", cache)
    shutil.rmtree(remote / "a")
    info = media_dataset(remote / "a", {"train": 29, "val": 5}, lambda i: "bell")
    upload(remote / "a")
    after = fetch("memory://a", cache)
    assert after != before
    assert DatasetInfo.load(after) == info
    assert verify(after) == [] == verify(before)


def test_what_is_not_there_is_explained(remote):
    with pytest.raises(InputError, match=r"there is no dataset\.json"):
        fetch("memory://nothing", remote / "cache")
    with pytest.raises(InputError, match="no split 'test'"):
        fetch("memory://a", remote / "cache", splits=["test"])
    with pytest.raises(InputError):
        fetch("nosuchprotocol://a", remote / "cache")
