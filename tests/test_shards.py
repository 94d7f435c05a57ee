"""The on-disk contract: bytes, index, random access, verification."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import inspect
from shards.errors import InputError
from shards.npy import array_layout, npy_bytes
from shards.reader import ShardDataset
from shards.schema import ABSENT, DatasetInfo, SampleMeta, ShardInfo, SplitInfo, StreamInfo
from shards.verify import verify
from shards.writer import Record, write_shard

pytestmark = pytest.mark.unit
THERE, GONE = StreamInfo(present=True), StreamInfo(present=False, cause=ABSENT)


def record(i: int, audio: bool = True, visual: bool = True, split: str = "train") -> Record:
    rng = np.random.default_rng(i)
    meta = SampleMeta(
        key=f"clip{i}",
        id=f"clip {i}",
        labels=("x",),
        split=split,
        duration=1.0,
        audio=THERE if audio else GONE,
        visual=THERE if visual else GONE,
        source_sha256="0" * 64,
    )
    members = {"json": meta}
    if audio:
        members["audio.npy"] = rng.normal(size=(7 + i, 128)).astype(np.float16)
    if visual:
        members["frames.npy"] = rng.integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    return meta.key, members


def parse_npy(buffer: np.ndarray) -> np.ndarray:
    dtype, shape, start = array_layout(buffer, len(buffer))
    return np.ndarray(shape, dtype, buffer, start)


def save(folder: Path, *shards: list[Record]) -> list[ShardInfo]:
    infos = [write_shard(folder / f"media/train-{i:06d}.tar", shard, root=folder) for i, shard in enumerate(shards)]
    metas = [members["json"] for shard in shards for _, members in shard]
    present = {m: sum(getattr(meta, m).present for meta in metas) for m in ("audio", "visual")}
    split = SplitInfo(samples=len(metas), present=present, shards=tuple(infos))
    DatasetInfo(kind="media", preprocessing={}, labels=("x",), splits={"train": split}).save(folder)
    return infos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path, [record(0), record(1, audio=False)], [record(2, visual=False)])
    return tmp_path


def test_same_samples_same_bytes_and_nothing_else_is_left(tmp_path):
    infos = [write_shard(tmp_path / name, [record(0), record(1)]) for name in ("a.tar", "b.tar")]
    assert infos[0].sha256 == infos[1].sha256
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "b.tar"]
    assert infos[0].bytes == (tmp_path / "a.tar").stat().st_size


def test_a_failing_source_leaves_no_file(tmp_path):
    def samples():
        yield record(0)
        raise RuntimeError("decoder gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_shard(tmp_path / "a.tar", samples())
    assert os.listdir(tmp_path) == []


def test_no_samples_no_file(tmp_path):
    assert write_shard(tmp_path / "a.tar", []).samples == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "../x", "é", "a" * 81])
def test_unsafe_keys_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="unsafe"):
        write_shard(tmp_path / "a.tar", [(key, record(0)[1])])


def test_repeated_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match="before"):
        write_shard(tmp_path / "a.tar", [record(0), record(0)])


def test_random_access_gives_back_what_was_written(folder):
    data = ShardDataset(folder, "train")
    assert len(data) == 3
    assert data.keys == ["clip0", "clip1", "clip2"] == [meta.key for meta in data.metas]
    for i, (audio, visual) in (
        (2, (True, False)),
        (0, (True, True)),
        (1, (False, True)),
        (-1, (True, False)),
    ):
        sample, (_, written) = data[i], record(i % 3, audio, visual)
        assert sample.meta == written["json"]
        assert set(sample.arrays) == {name.removesuffix(".npy") for name in written if name != "json"}
        for name, array in sample.arrays.items():
            assert array.dtype == written[f"{name}.npy"].dtype
            np.testing.assert_array_equal(array, written[f"{name}.npy"])
            assert array.flags.writeable
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize("metas_known", [False, True])
def test_chosen_rows_are_those_of_the_whole_arrays(folder, metas_known):
    data = ShardDataset(folder, "train")
    if metas_known:
        assert len(data.metas) == len(data)
    for i in range(-1, len(data)):
        whole, part = data[i], data.rows(i, lambda name, shape: shape[0] - 1 if name == "frames" else None)
        assert part.meta == whole.meta
        assert set(part.arrays) == set(whole.arrays)
        for name, array in part.arrays.items():
            want = whole.arrays[name][-1] if name == "frames" else whole.arrays[name]
            np.testing.assert_array_equal(array, want, strict=True)
    with pytest.raises(IndexError, match="row 2 of 2"):
        data.rows(0, lambda name, shape: 2 if name == "frames" else None)


def test_views_are_the_arrays_and_read_only(folder):
    data = ShardDataset(folder, "train")
    for i in range(len(data)):
        for name, array in data[i].arrays.items():
            view, last = data.view(i, name), data.view(i, name, len(array) - 1)
            assert (view.dtype, view.shape) == (array.dtype, array.shape)
            assert view.tobytes() == array.tobytes()
            assert last.tobytes() == array[-1].tobytes()
            assert not view.flags.writeable
            with pytest.raises(IndexError, match=f"row {len(array)} of"):
                data.view(i, name, len(array))
    with pytest.raises(InputError, match="has no array 'melody'"):
        data.view(0, "melody")
    kept, bytes_ = data.view(0, "audio"), data[0].arrays["audio"].tobytes()
    data.close()
    assert kept.tobytes() == bytes_ == pickle.loads(pickle.dumps(data)).view(0, "audio").tobytes()


def test_views_beyond_the_files_that_stay_open(folder, monkeypatch):
    monkeypatch.setattr("shards.reader.MAX_OPEN", 0)
    data = ShardDataset(folder, "train")
    views = [data.view(i, next(iter(data[i].arrays))) for i in range(len(data))]
    assert [v.tobytes() for v in views] == [next(iter(s.arrays.values())).tobytes() for s in data]
    assert not data._maps


def test_a_file_cut_short_in_use_is_found_before_its_pages_are_touched(folder):
    data = ShardDataset(folder, "train")
    name = next(iter(data[len(data) - 1].arrays))
    data.view(len(data) - 1, name)
    os.truncate(sorted(folder.rglob("*.tar"))[-1], 512)
    with pytest.raises(InputError, match="cut short while in use"):
        data.view(len(data) - 1, name)


def test_rows_of_an_array_with_a_long_header_or_a_wrong_size(tmp_path):
    key, members = record(0, visual=False)
    good = npy_bytes(members["audio.npy"])
    head, body = good[:10], good[128:]
    long = head[:8] + (502).to_bytes(2, "little") + good[10:127] + b" " * 384 + b"\n" + body
    save(tmp_path, [(key, {**members, "audio.npy": long})])
    data = ShardDataset(tmp_path, "train")
    found = data.rows(0, lambda name, shape: 3).arrays["audio"]
    np.testing.assert_array_equal(found, members["audio.npy"][3], strict=True)
    for wrong in (good[:-2], good + b"xx", good[:50], b"", b"junk" * 50):
        save(tmp_path, [(key, {**members, "audio.npy": wrong})])
        with pytest.raises(InputError):
            ShardDataset(tmp_path, "train").rows(0, lambda name, shape: 0)


def test_reading_in_threads_and_after_pickling(folder):
    data = ShardDataset(folder, "train")
    copy = pickle.loads(pickle.dumps(data))
    with ThreadPoolExecutor(4) as pool:
        for sample, i in zip(pool.map(copy.__getitem__, [0, 1, 2] * 20), [0, 1, 2] * 20, strict=True):
            assert sample.meta == data[i].meta
            assert sample.arrays.keys() == data[i].arrays.keys()
            for name, array in data[i].arrays.items():
                np.testing.assert_array_equal(sample.arrays[name], array, strict=True)


def test_webdataset_reads_our_shards(folder):
    urls = sorted(str(path) for path in (folder / "media").glob("*.tar"))
    stream = webdataset.WebDataset(urls, shardshuffle=False)
    found = {sample["__key__"]: sample for sample in stream}
    ours = ShardDataset(folder, "train")
    assert list(found) == ours.keys
    for i, key in enumerate(ours.keys):
        assert json.loads(found[key]["json"]) == ours[i].meta.model_dump(mode="json")
        for name, array in ours[i].arrays.items():
            other = np.load(io.BytesIO(found[key][f"{name}.npy"]), allow_pickle=False)
            np.testing.assert_array_equal(array, other)
        assert ("audio.npy" in found[key]) == ours[i].meta.audio.present


@given(
    dtype=st.sampled_from(["<f2", "<f4", "<f8", "|u1", "<i2", "<i8", "|b1"]),
    shape=st.lists(st.integers(0, 4), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_npy_agrees_with_numpy(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    data = npy_bytes(array)
    for other in (parse_npy(np.frombuffer(data, np.uint8)), np.load(io.BytesIO(data), allow_pickle=False)):
        assert other.dtype == array.dtype
        np.testing.assert_array_equal(other, array)


def test_pickled_and_cut_arrays_are_refused():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not read"):
        parse_npy(np.frombuffer(buffer.getvalue(), np.uint8))
    data = np.frombuffer(npy_bytes(np.arange(9.0)), np.uint8)
    for length in range(len(data)):
        with pytest.raises(ValueError):
            parse_npy(data[:length])


def test_a_whole_dataset_has_no_problems(folder, capsys):
    assert verify(folder) == []
    assert inspect.main(["verify", str(folder)]) == 0
    assert inspect.main(["info", str(folder)]) == 0
    assert inspect.main(["ls", str(folder)]) == 0
    assert "no audio (absent at source)" in capsys.readouterr().out


def test_every_truncation_is_found_when_opening(folder):
    path = folder / "media/train-000000.tar"
    data = path.read_bytes()
    for length in [*range(0, len(data), 397), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            ShardDataset(folder, "train")
        assert verify(folder)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_flipped_bit_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    save(folder, [record(0), record(1, audio=False)])
    path = folder / "media/train-000000.tar"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    content[at // 8] ^= 1 << at % 8
    path.write_bytes(content)
    assert any("sha256" in problem.message for problem in verify(folder))


def test_swapped_missing_and_strange_shards_are_found(folder):
    first, second = (folder / f"media/train-00000{i}.tar" for i in (0, 1))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert {problem.file for problem in verify(folder)} >= {
        "media/train-000000.tar",
        "media/train-000001.tar",
    }
    first.write_bytes(a)
    second.unlink()
    assert "missing" in str(verify(folder)[0])
    second.write_bytes(b)
    (folder / "media/train-000009.tar").write_bytes(a)
    assert "does not know" in str(verify(folder)[0])


def test_members_that_contradict_the_flags_are_an_error(tmp_path):
    key, members = record(0)
    del members["audio.npy"]
    key1, members1 = record(1, audio=False)
    members1["audio.npy"] = np.zeros((3, 128), np.float16)
    save(tmp_path, [(key, members), (key1, members1)])
    data = ShardDataset(tmp_path, "train")
    with pytest.raises(InputError, match="says audio is present, but the shard has no member"):
        data[0]
    with pytest.raises(InputError, match="says audio is missing, but the shard has a member"):
        data[1]
    assert [problem.key for problem in verify(tmp_path)][:2] == ["clip0", "clip1"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../../evil.json", tarfile.REGTYPE),
        ("clip0.json", tarfile.SYMTYPE),
        ("clip0.pickle", tarfile.REGTYPE),
        ("clip0.json", tarfile.DIRTYPE),
    ],
)
def test_hostile_members_are_refused(folder, name, kind):
    path = folder / "media/train-000000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info, io.BytesIO(b""))
    with pytest.raises(InputError, match=r"not of the schema|no plain file"):
        ShardDataset(folder, "train")


def test_wrong_datasets_are_explained(folder):
    with pytest.raises(InputError, match="no split 'val'"):
        ShardDataset(folder, "val")
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"schema_version": 1', '"schema_version": 3'))
    with pytest.raises(InputError, match="schema_version"):
        DatasetInfo.load(folder)
    (folder / "dataset.json").write_text(text.replace("media/train-000000", "../train-000000"))
    with pytest.raises(InputError, match="relative path"):
        DatasetInfo.load(folder)
    (folder / "dataset.json").unlink()
    assert inspect.main(["info", str(folder)]) == 2


def test_dataset_json_round_trip_and_fingerprint(folder):
    info = DatasetInfo.load(folder)
    before = (folder / "dataset.json").read_bytes()
    info.save(folder)
    assert (folder / "dataset.json").read_bytes() == before
    assert info.fingerprint() == DatasetInfo.load(folder).fingerprint()
    assert info.model_copy(update={"labels": ("y",)}).fingerprint() != info.fingerprint()
