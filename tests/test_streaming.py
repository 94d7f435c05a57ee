"""Shards that are read through: the same samples as by position, each once, from a cache that heals and has a limit."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import resource
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import store, stream_cache
from shards.errors import InputError
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.scan import shard_part, write_tables
from shards.schema import DatasetInfo, ShardInfo, SplitInfo
from shards.store import absolute, place, url_of
from shards.stream_cache import ShardCache, cache_limit
from shards.stream_order import StreamOrder
from shards.streaming import StreamDataset
from shards.table import index_path, write_table
from tests.fixtures.builders import LABELS, SMALL, absent, feature_dataset, media_dataset
from trainers.classification.items import FeatureItems, InputSpec, MediaItems
from trainers.classification.stages import dataset_normalisation
from trainers.data import Items, batches, subset_size, training_order, validation_order
from trainers.sampler_state import Position, epoch_batches
from trainers.streams import Lanes, _in_lanes, rank_rows, shuffled_order

pytestmark = pytest.mark.unit
SAMPLES = 50  # in shards of 9
ALL = StreamOrder.in_shards(range(SAMPLES))
URL = "counted://set"


class Counted(MemoryFileSystem):
    """Storage that counts what is asked of it, and does as the test wants before it answers."""

    protocol = "counted"
    store = MemoryFileSystem.store
    pseudo_dirs = MemoryFileSystem.pseudo_dirs
    asked: list[str] = []  # noqa: RUF012
    faults: list = []  # noqa: RUF012  # what befalls the next requests for shards

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("counted://", "memory://"))

    def cat_file(self, path, start=None, end=None, **options):
        data = super().cat_file(path, start=start, end=end, **options)
        if path.endswith(".tar"):
            self.asked.append(Path(path).name)
            fault = self.faults.pop(0) if self.faults else None
            if isinstance(fault, Exception):
                raise fault
            return data if fault is None else fault(data)
        return data


fsspec.register_implementation("counted", Counted, clobber=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No waiting before another try; a cache of the test's own."""
    monkeypatch.setattr(stream_cache, "DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(store, "FIRST", 0.0)
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    Counted.asked.clear()
    Counted.faults.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    feature_dataset(folder, {"train": SAMPLES, "val": 10}, SMALL, "f" * 64)
    write_tables(folder, DatasetInfo.load(folder))
    return folder


@pytest.fixture
def remote(folder: Path) -> Path:
    """The same at counted://set."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        store.pipe(f"/set/{path.relative_to(folder)}", path.read_bytes())
    return folder


def rows(items: Items, order, loaders: int = 0) -> dict[str, tuple[bytes, ...]]:
    """What batches of 4 hold, by the sample's id, to the bit."""
    out = {}
    for batch in batches(items, order, 4, loaders, drop_last=False):
        for i, index in enumerate(batch.index.tolist()):
            out[items.names[index]] = tuple(x[i].numpy().tobytes() for x in list(vars(batch).values())[:4])
    return out


def arrays(data: StreamDataset | ShardDataset, positions=range(SAMPLES)) -> dict[int, dict[str, bytes]]:
    return {i: {name: x.tobytes() for name, x in s.arrays.items()} for i, s in data.each(positions)}


# The order.


@given(
    shards=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    lanes=st.builds(Lanes, st.integers(1, 9), st.integers(1, 40)),
    world=st.integers(1, 5),
    batch=st.integers(1, 16),
    proportion=st.sampled_from([1.0, 0.4]),
)
@settings(max_examples=100)
def test_each_sample_comes_once_to_one_of_even_ranks_out_of_a_bounded_buffer(shards, lanes, world, batch, proportion):
    data, n = Sizes(shards), sum(shards)
    ids = hashed(map(str, range(n)))
    chosen = np.flatnonzero(np.random.default_rng(0).random(n) < proportion)
    order = shuffled_order(data, ids, lanes, chosen, seed=3, epoch=1)
    assert sorted(order.positions.tolist()) == chosen.tolist()
    parts = [order[rank_rows(len(order), rank, world)] for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    for number in range(lanes.count):
        arrival = order.arrival[order.lane == number]
        early = np.maximum.accumulate(arrival) - arrival.min() - np.arange(len(arrival)) if len(arrival) else [0]
        assert max(early) <= lanes.buffer / lanes.count + 1  # samples that wait while one is still to come
    if lanes.count % world == 0:
        read = [set(part.lane[: len(order) // world].tolist()) for part in parts]
        assert all(not a & b for i, a in enumerate(read) for b in read[:i])


class Sizes:
    """As much of a dataset as an order needs."""

    def __init__(self, shards: list[int]):
        self.shard_ends = np.cumsum(shards)
        self.shard_names = [str(i) for i in range(len(shards))]

    def __len__(self) -> int:
        return int(self.shard_ends[-1])


def test_the_order_is_seeded_differs_by_epoch_and_mixes_shards():
    data, ids = Sizes([40] * 20), hashed(map(str, range(800)))

    def order(seed: int, epoch: int) -> list[int]:
        return shuffled_order(data, ids, Lanes(4, 160), np.arange(800), seed, epoch).positions.tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(0, 0)), tuple(order(0, 1)), tuple(order(1, 0))}) == 3
    batches = np.array(order(0, 0)).reshape(-1, 16) // 40
    assert np.mean([len(set(batch)) for batch in batches]) > 4  # shards in a batch of 16
    neighbours = np.diff(order(0, 0)) == 1
    assert neighbours.mean() < 0.05


def test_lanes_differ_by_one_sample_and_take_turns():
    order = _in_lanes(np.arange(10), np.zeros_like, 4)
    assert order.lane.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert order.positions.tolist() == [0, 3, 6, 8, 1, 4, 7, 9, 2, 5]


# Samples.


@pytest.mark.parametrize("ahead", [0, 2])
def test_samples_are_those_of_the_other_reader(remote, ahead):
    expected = arrays(ShardDataset(remote, "train"))
    for data in (StreamDataset(remote, "train", ahead=ahead), StreamDataset(URL, "train", ahead=ahead)):
        assert arrays(data) == expected
        assert [s.meta for _, s in data.read(ALL)] == list(ShardDataset(remote, "train").metas)
        assert [i for i, _ in data.read(StreamOrder.in_shards([41, 3, 3, 17]))] == [3, 17, 41]
        assert data[-1].meta.key == "train049"
    assert Counter(Counted.asked) == {f"train-{i:06d}.tar": 1 for i in range(6)}


def media_items(data) -> MediaItems:
    spec = InputSpec(32, 32, dataset_normalisation(data.info))
    return MediaItems(data, LABELS, spec, ("complete", "noisy_both"), seed=5, random_frame=True)


def feature_items(data) -> FeatureItems:
    return FeatureItems(data, LABELS, "noisy_both", seed=5, missing=0.3)


@pytest.mark.parametrize("loaders", [0, 2])
def test_items_are_the_same_by_id_absent_ones_nan(tmp_path, folder, loaders):
    media_dataset(tmp_path / "media", {"train": SAMPLES})
    for where, make in ((tmp_path / "media", media_items), (folder, feature_items)):
        by_position, streamed = make(ShardDataset(where, "train")), make(StreamDataset(where, "train"))
        streamed.lanes = Lanes(3, 12)
        by_position.epoch = streamed.epoch = 2
        found = rows(streamed, training_order(streamed, 5, 2), loaders)
        assert found == rows(by_position, list(range(SAMPLES)))
        for i in range(SAMPLES):
            audio, visual, present, _ = found[streamed.names[i]]
            sound, picture = absent(i)
            there = np.frombuffer(present, bool)
            assert tuple(there) <= (sound, picture)
            assert np.isnan(np.frombuffer(audio, np.float32)).all() == (not there[0])
            assert np.isnan(np.frombuffer(visual, np.float32)).all() == (not there[1])
    halves = [rows(streamed, validation_order(streamed, rank, 2)) for rank in (0, 1)]
    assert halves[0] | halves[1] == found
    assert not halves[0].keys() & halves[1].keys()


def test_a_proportion_is_the_same_subset(folder):
    streamed, by_position = (
        FeatureItems(data, LABELS, "complete")
        for data in (StreamDataset(folder, "train"), ShardDataset(folder, "train"))
    )
    streamed.lanes = Lanes(2, 8)
    found = [training_order(items, 1, 0, 0.5) for items in (streamed, by_position)]
    assert set(found[0].positions.tolist()) == set(found[1])
    assert len(found[1]) == subset_size(SAMPLES, 0.5)


def test_ranks_read_shards_of_their_own_and_a_resume_none_that_is_over(remote):
    """With room for two shards: what is asked for a second time comes from the storage again."""
    cache = ShardCache(limit=150_000)

    def asked(rank: int, taken: int = 0) -> Counter[str]:
        items = FeatureItems(StreamDataset(URL, "train", cache=cache), LABELS, "complete")
        items.lanes = Lanes(2, 4)
        for path in files(cache.folder.parent):
            path.unlink()
        Counted.asked.clear()
        list(epoch_batches(items, Position(0, taken), seed=0, batch_size=4, rank=rank, world=2))
        return Counter(Counted.asked)

    whole = [asked(rank) for rank in (0, 1)]
    assert set(whole[0] + whole[1]) == {f"train-{i:06d}.tar" for i in range(6)}
    assert max(*whole[0].values(), *whole[1].values()) == 1
    assert len(whole[0] & whole[1]) <= 1
    assert len(asked(0, taken=40)) < len(whole[0])


# The cache.


def files(cache: Path) -> list[Path]:
    return [path for path in (cache / "stream").glob("*/*.tar") if not path.name.startswith(".")]


def test_the_limit_holds_and_the_least_recently_used_goes(remote, tmp_path):
    sizes = [shard.bytes for shard in DatasetInfo.load(remote).splits["train"].shards]
    limit = max(sizes) * 2 + 100
    data = StreamDataset(URL, "train", cache=ShardCache(limit=limit))
    seen, done = [], threading.Event()

    def watch() -> None:
        folder = tmp_path / "cache" / "stream"
        while not done.wait(0.001):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # else what goes and what comes are counted together
                seen.append(sum(dict(map(_inode_and_bytes, folder.glob("*/*.tar"))).values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(5):
        assert len(list(data.read(ALL))) == SAMPLES
    done.set()
    watcher.join()
    assert 0 < max(seen) <= limit
    for number in (0, 1, 0, 2):
        data.open_shard(number).close()
    left = {path.stem for path in files(tmp_path / "cache")}
    assert left == {data.info.splits["train"].shards[i].sha256 for i in (0, 2)}


def test_no_file_gets_its_name_while_others_count(tmp_path):
    cache = ShardCache(tmp_path, limit=100)
    fetched, counting = threading.Event(), threading.Event()

    def download(path: Path) -> None:
        path.write_bytes(b"bytes")
        fetched.set()
        assert counting.wait(10)

    shard = ShardInfo(name="a.tar", samples=1, bytes=5, sha256="a" * 64)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(cache.open, shard, "here", download, lambda file: file.read() == b"bytes")
        assert fetched.wait(10)
        with FileLock(tmp_path / ".lock"):
            counting.set()
            with suppress(TimeoutError):
                opened.result(timeout=0.3)
            counted = [path for path in tmp_path.glob("*/*.tar") if not path.name.startswith(".")]
        opened.result(timeout=10).close()
    assert counted == []


def test_what_a_killed_process_left_makes_room_whatever_its_number(tmp_path):
    cache = ShardCache(tmp_path, limit=100)
    (tmp_path / "bb").mkdir()
    left = tmp_path / "bb" / f".{'b' * 64}.1-0123abcd.tmp.tar"  # in a container all have number 1
    left.write_bytes(bytes(99))
    shard = ShardInfo(name="a.tar", samples=1, bytes=5, sha256="a" * 64)
    found: list[bytes] = []

    def fetch() -> None:
        with cache.open(shard, "here", lambda path: path.write_bytes(b"bytes"), lambda file: True) as file:
            found.append(file.read())

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(20)
    assert found == [b"bytes"]
    assert not left.exists()


def test_who_waits_for_room_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_cache, "PATIENCE", 0.1)
    cache = ShardCache(tmp_path, limit=8)
    begun, end = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        path.write_bytes(b"bytes")
        begun.set()
        assert end.wait(20)

    first, second = (ShardInfo(name=f"{x}.tar", samples=1, bytes=5, sha256=x * 64) for x in "ab")
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(cache.open, first, "here", slow, lambda file: True)
        assert begun.wait(20)
        two = pool.submit(cache.open, second, "here", lambda path: path.write_bytes(b"bytes"), lambda file: True)
        with suppress(TimeoutError):
            two.result(timeout=1.0)
        assert not two.done()
        end.set()
        one.result(20).close()
        two.result(20).close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "waiting for room: all that AVMEND_CACHE_GB allows (8 bytes)" in said


def _inode_and_bytes(path: Path) -> tuple[int, int]:
    """By inode: a file that gets its name meanwhile is one."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_size


def test_several_readers_share_a_cache_and_fetch_once(remote):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: arrays(StreamDataset(URL, "train")), range(4)))
    assert found == [arrays(ShardDataset(remote, "train"))] * 4
    assert set(Counter(Counted.asked).values()) == {1}


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: x[:700] + b"?" + x[701:], lambda x: b""])
def test_a_damaged_cached_shard_is_fetched_again(remote, tmp_path, damage):
    data = StreamDataset(URL, "train")
    expected = arrays(data)
    path = files(tmp_path / "cache")[0]
    path.write_bytes(damage(path.read_bytes()))
    Counted.asked.clear()
    assert arrays(data) == expected
    assert arrays(StreamDataset(URL, "train")) == expected
    assert len(Counted.asked) == 1
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_a_shard_larger_than_the_limit_and_a_wrong_limit_are_refused(remote, monkeypatch):
    with pytest.raises(InputError, match=r"train-00000\d\.tar has \d+ bytes, streamed shards may take 1000"):
        list(StreamDataset(URL, "train", cache=ShardCache(limit=1000)).read(ALL))
    monkeypatch.setenv("AVMEND_CACHE_GB", "0.5")
    assert cache_limit() == 500_000_000
    for wrong in ("many", "-1", "nan", "inf"):
        monkeypatch.setenv("AVMEND_CACHE_GB", wrong)
        with pytest.raises(InputError, match="AVMEND_CACHE_GB"):
            cache_limit()


def test_what_was_fetched_whole_is_read_where_it_is(remote):
    ShardDataset(URL, "train")
    Counted.asked.clear()
    assert len(arrays(StreamDataset(URL, "train"))) == SAMPLES
    assert Counted.asked == []


# Faults.


def test_a_request_that_fails_is_tried_again(remote):
    Counted.faults[:] = [ConnectionResetError("lost"), lambda data: data[:-5], lambda data: b"?" + data[1:]]
    assert arrays(StreamDataset(URL, "train", ahead=0)) == arrays(ShardDataset(remote, "train"))
    assert Counter(Counted.asked)["train-000000.tar"] == 4


@pytest.mark.parametrize("loaders", [0, 2])
def test_one_that_goes_on_failing_ends_with_the_shard_and_a_remedy(remote, tmp_path, loaders):
    Counted.faults[:] = [OSError("503 Slow Down")] * 100
    items = FeatureItems(StreamDataset(remote, "train"), LABELS, "complete")
    items.data, items.lanes = StreamDataset(URL, "train"), Lanes(2, 8)
    with pytest.raises(InputError, match=r"counted://set/train-00000\d\.tar: the store .*fails: 503") as caught:
        rows(items, training_order(items, 0, 0), loaders)
    assert "the same command goes on" in caught.value.remedy
    assert "Traceback" not in str(caught.value)
    assert not files(tmp_path / "cache")


def test_a_cache_disk_that_is_full_is_told_as_that_at_once(tmp_path):
    asked = []

    def download(path: Path) -> None:
        asked.append(path)
        Path("/dev/full").write_bytes(b"more than there is room for")

    shard = ShardInfo(name="a.tar", samples=1, bytes=5, sha256="a" * 64)
    with pytest.raises(InputError, match=rf"{tmp_path}.*AVMEND_CACHE.*can't be written: No space left on device"):
        ShardCache(tmp_path, limit=100).open(shard, "here", download, lambda file: True)
    assert len(asked) == 1
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"file/aa.*can't be written: Not a directory"):
        ShardCache(tmp_path / "file", limit=100).open(shard, "here", download, lambda file: True)
    assert len(asked) == 1


def test_a_shard_larger_than_a_file_may_be_is_told_at_once(remote):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = StreamDataset(URL, "train")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match="can't be written: File too large"):
            data.open_shard(0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Counted.asked == []


def test_other_bytes_than_promised_are_an_error_and_never_skipped(remote, tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    data = store.cat("/set/train-000002.tar")
    store.pipe("/set/train-000002.tar", data[:-1] + b"?")
    with pytest.raises(InputError, match=r"train-000002\.tar: other bytes than dataset\.json says"):
        list(StreamDataset(URL, "train").read(ALL))
    store.rm("/set/train-000002.tar")
    with pytest.raises(InputError, match=r"train-000002\.tar: is not there"):
        list(StreamDataset(URL, "train").read(ALL))
    store.rm("/set/index/train.arrow")
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "another"))
    with pytest.raises(InputError, match="no table of split 'train'"):
        StreamDataset(URL, "train")


def of_other_shards(folder: Path, out: Path) -> bytes:
    write_tables(out, feature_dataset(out, {"train": SAMPLES + 1}, SMALL, "f" * 64))
    return index_path(out, "train").read_bytes()


def with_other(column: str, values: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path, Path], bytes]:
    def made(folder: Path, out: Path) -> bytes:
        split, parts = DatasetInfo.load(folder).splits["train"], []
        for shard in split.shards:
            part = shard_part(folder / shard.name, shard)
            at = part.schema.get_field_index(column)
            parts.append(part.set_column(at, column, pa.array(values(part[column].to_numpy(zero_copy_only=False)))))
        write_table(index_path(out, "train"), split, parts)
        return index_path(out, "train").read_bytes()

    return made


@pytest.mark.parametrize(
    "table",
    [
        lambda folder, out: b"no table",
        of_other_shards,
        with_other("begin", lambda begin: begin + 10**9),
        with_other("begin", lambda begin: np.roll(begin, 1)),
        with_other("key", lambda key: np.roll(key, 1)),
    ],
    ids=["damaged", "other shards", "beyond the shard", "another sample", "another key"],
)
@pytest.mark.parametrize("reader", [StreamDataset, ShardDataset])
def test_a_wrong_table_that_was_fetched_goes_once_the_right_one_is_uploaded(remote, tmp_path, table, reader):
    store, expected = fsspec.filesystem("memory"), arrays(ShardDataset(remote, "train"))
    right = store.cat("/set/index/train.arrow")
    store.pipe("/set/index/train.arrow", table(remote, tmp_path / "made"))
    with suppress(InputError):  # without a table, a dataset that was fetched whole is read from its shards
        assert arrays(reader(URL, "train")) == expected
    store.pipe("/set/index/train.arrow", right)
    assert arrays(reader(URL, "train")) == expected
    cached = next((tmp_path / "cache").glob("datasets/*/index/train.arrow"))
    assert cached.read_bytes() == right
    cached.write_bytes(right[:500])
    assert arrays(reader(URL, "train")) == expected


def test_a_damaged_table_of_a_folder_stays_for_who_made_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    wrong = with_other("begin", lambda begin: begin + 10**9)(folder, tmp_path / "made")
    index_path(tmp_path / "copy", "train").write_bytes(wrong)
    with pytest.raises(InputError, match=r"names no place.*\n.*avmend shards index"):
        arrays(StreamDataset(tmp_path / "copy", "train"))
    assert index_path(tmp_path / "copy", "train").read_bytes() == wrong


def test_damage_of_a_local_shard_is_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "train-000001.tar"
    whole = path.read_bytes()
    data = StreamDataset(tmp_path / "copy", "train")
    path.write_bytes(whole[:-100] + b"?" + whole[-99:])
    with pytest.raises(InputError, match=r"train-000001\.tar: other bytes"):
        list(data.read(ALL))
    path.unlink()
    with pytest.raises(InputError, match=r"train-000001\.tar: is not there"):
        list(data.read(ALL))
    path.write_bytes(whole)
    again = pickle.loads(pickle.dumps(data))
    assert len(list(again.read(ALL))) == SAMPLES


def evil(folder: Path, data: bytes, samples: int = 1) -> StreamDataset:
    """A dataset whose one shard holds these bytes, which dataset.json vouches for."""
    info = feature_dataset(folder, {"train": samples}, SMALL, "f" * 64)
    (shard,) = info.splits["train"].shards
    part = shard_part(folder / shard.name, shard)
    (folder / shard.name).write_bytes(data)
    told = shard.model_copy(update={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    split = SplitInfo(samples=samples, present=info.splits["train"].present, shards=(told,))
    info.model_copy(update={"splits": {"train": split}}).save(folder)
    write_table(index_path(folder, "train"), split, [part])
    return StreamDataset(folder, "train")


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def tar(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            file.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_nothing_is_unpickled_unpacked_or_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    honest = feature_dataset(tmp_path / "honest", {"train": 1}, SMALL, "f" * 64)
    good = (tmp_path / "honest" / honest.splits["train"].shards[0].name).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(good)) as file:
        members = {m.name: file.extractfile(m).read() for m in file}
    assert len(list(evil(tmp_path / "good", tar(members)).read(ALL[:1]))) == 1
    pickled = io.BytesIO()
    np.save(pickled, np.array([Bomb()], dtype=object), allow_pickle=True)
    cases = {
        "pyd": tar({**members, "train000.pyd": pickle.dumps(Bomb())}),
        "npy": tar({**members, "train000.audio.npy": pickled.getvalue()}),
        "gz": gzip.compress(tar(members)),
        "link": tar(members, tarfile.SYMTYPE),
        "absent": tar({name: data for name, data in members.items() if "visual" not in name}),
        "other key": tar({name.replace("train000", "train001"): data for name, data in members.items()}),
    }
    for name, data in cases.items():
        with pytest.raises(InputError):
            list(evil(tmp_path / name.replace(" ", "_"), data).read(ALL[:1]))
    assert not (tmp_path / "exploded").exists()


# Addresses.


def test_a_url_survives_being_a_path():
    for url in ("s3://bucket/a/set", "gs://b", "https://user@host:8080/x", "memory://a", "file:///srv/a"):
        assert url_of(url) == url_of(Path(url)) == url
        assert url_of(Path(url) / "features" / "x") == f"{url}/features/x"
        assert absolute(Path(url)) == Path(url)
    assert url_of(place("s3://bucket/a")) == "s3://bucket/a"
    assert place(Path("s3://bucket/a")) == place("s3://bucket/a")
    assert place(Path("file:///srv/a")) == Path("/srv/a")
    for folder in ("data/scenes", "/srv/a:b/c", "C:/data", "a:b"):
        assert url_of(Path(folder)) is None
        assert absolute(Path(folder)).is_absolute()
