"""A split's samples as columns: what the file holds is what the shards hold, or it is not believed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import inspect, table
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.remote import fetch
from shards.scan import write_tables
from shards.schema import DatasetInfo, SplitInfo
from shards.table import SplitTable, index_path, read_table, write_table
from shards.verify import verify
from tests.fixtures.builders import absent, media_dataset

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    write_tables(folder, media_dataset(folder, {"train": 20, "test": 3}))
    return folder


def copied(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*"):
        if path.is_file():
            (to / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (to / path.relative_to(folder)).write_bytes(path.read_bytes())
    return to


def facts_of(data: ShardDataset) -> list:
    columns = [data.column(name).to_pylist() for name in ("labels", "group", "duration", "audio", "visual")]
    return [list(data.keys), list(data.ids), data.present.tolist(), *columns]


def test_the_table_says_what_the_shards_say(whole, tmp_path):
    with_table = ShardDataset(whole, "train")
    folder = copied(whole, tmp_path)
    for path in (folder / "index").iterdir():
        path.unlink()
    without = ShardDataset(folder, "train")
    assert facts_of(with_table) == facts_of(without)
    assert with_table.keys[:2] == ["train000", "train001"]
    assert with_table.present.tolist() == [list(absent(i)) for i in range(20)]
    assert [i for i, cause in enumerate(with_table.column("audio").to_pylist()) if cause] == [3, 8, 13, 18]
    for i in (-1, 0, 13):
        a, b = with_table[i], without[i]
        assert a.meta == b.meta
        assert {k: v.tobytes() for k, v in a.arrays.items()} == {k: v.tobytes() for k, v in b.arrays.items()}
    assert with_table.keys.position("train013") == 13
    assert "nobody" not in with_table.keys
    copy = pickle.loads(pickle.dumps(with_table))
    assert facts_of(copy) == facts_of(with_table)


def test_a_dataset_of_an_earlier_version_gets_its_tables_by_one_command(whole, tmp_path, capsys):
    folder = copied(whole, tmp_path)
    wanted = {path.name: path.read_bytes() for path in (folder / "index").iterdir()}
    for path in (folder / "index").iterdir():
        path.unlink()
    assert inspect.main(["index", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in (folder / "index").iterdir()} == wanted
    assert verify(folder) == []


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_damaged_table_is_an_input_error_or_tells_the_truth(whole, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged-table"
    if not folder.exists():
        copied(whole, folder)
    content = bytearray(index_path(whole, "train").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 3)) if content else 0):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    index_path(folder, "train").write_bytes(content)
    truth = ShardDataset(whole, "train")
    try:
        read = ShardDataset(folder, "train")
        for i in (0, 9, 19):
            sample = read[i]
            assert sample.meta == truth.metas[i]
            assert {k: v.tobytes() for k, v in sample.arrays.items()} == {
                k: v.tobytes() for k, v in truth[i].arrays.items()
            }
    except InputError:
        pass


def replaced(folder: Path, change) -> None:
    """The train table with columns changed by hand."""
    split = DatasetInfo.load(folder).splits["train"]
    found = read_table(index_path(folder, "train"), split)
    assert found is not None
    columns = {name: found.column(name).to_pylist() for name in table.SCHEMA.names}
    change(columns)
    write_table(index_path(folder, "train"), split, [pa.RecordBatch.from_pydict(columns, schema=table.SCHEMA)])


def test_a_table_that_lies_is_refused_when_a_sample_is_read_and_told_by_verify(whole, tmp_path):
    folder = copied(whole, tmp_path)

    def shift(columns):
        columns["begin"][2] += 512
        columns["labels"][5] = ["whale"]

    replaced(folder, shift)
    with pytest.raises(InputError, match="train002"):
        ShardDataset(folder, "train")[2]
    (problem,) = verify(folder)  # samples 2 and 5 are both in the first shard
    assert str(problem).startswith("index/train.arrow: differs from train-000000.tar")


def test_a_table_of_other_shards_is_not_used(whole, tmp_path):
    folder = copied(whole, tmp_path)
    index_path(folder, "train").write_bytes(index_path(folder, "test").read_bytes())
    data = ShardDataset(folder, "train")
    assert len(data.keys) == 20
    assert list(data.keys)[-1] == "train019"
    assert "of other shards" in str(verify(folder)[0])


def test_tables_of_many_batches(tmp_path):
    """More rows than one batch holds, in parts that divide it unevenly."""
    sizes = (50_000, 70_000, 30_000)
    parts = []
    for number, size in enumerate(sizes):
        rows = np.arange(size) + sum(sizes[:number])
        keys = [f"k{row}" for row in rows.tolist()]
        columns = {
            "shard": np.zeros(size, np.int32),
            "begin": rows.astype(np.int64),
            "size": np.full(size, 7),
            "key": keys,
            "id": keys,
            "labels": [["x"]] * size,
            "group": [None] * size,
            "duration": np.ones(size),
            "audio": [None] * size,
            "visual": ["absent at source" if row % 3 else None for row in rows.tolist()],
        }
        parts.append(pa.RecordBatch.from_pydict(columns, schema=table.SCHEMA))
    split = SplitInfo(samples=0, present={}, shards=())
    write_table(tmp_path / "t.arrow", split, parts)
    found = read_table(tmp_path / "t.arrow", SplitInfo.model_construct(samples=sum(sizes), shards=()))
    assert isinstance(found, SplitTable)
    assert len(found) == sum(sizes) == len(found.keys)
    for i in (0, 65_535, 65_536, 120_000, 131_071, 131_072, 149_999):
        assert (found.keys[i], found.begin[i], found.size[i]) == (f"k{i}", i, 7)
        assert found.shard[i] == (0 if i < 50_000 else 1 if i < 120_000 else 2)
        assert found.keys.position(f"k{i}") == i
        assert found.present[i].tolist() == [True, i % 3 == 0]
    assert read_table(tmp_path / "t.arrow", SplitInfo.model_construct(samples=5, shards=())) is None


def test_the_table_comes_along_from_remote_storage(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("AVMEND_CACHE", str(tmp_path / "cache"))
    folder = fetch(f"file://{whole}", splits=("train",))
    assert index_path(folder, "train").read_bytes() == index_path(whole, "train").read_bytes()
    assert not os.path.exists(index_path(folder, "test"))
    assert facts_of(ShardDataset(f"file://{whole}", "train")) == facts_of(ShardDataset(whole, "train"))
