"""Shards made to harm, and the format in general: nothing is executed, nothing escapes, all is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import inspect
from shards.errors import InputError
from shards.index import BLOCK, read_index
from shards.npy import array_layout, npy_bytes
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SplitInfo
from shards.verify import verify
from shards.writer import write_shard
from tests.fixtures.builders import media_dataset, meta

pytestmark = pytest.mark.unit
DTYPES = ("<f2", "<f4", "|u1", "<i2", "<i8", "|b1")
arrays = st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), min_size=1, max_size=4))


def save(folder: Path, *shards: list) -> None:
    infos = tuple(write_shard(folder / f"train-{i}.tar", shard, root=folder) for i, shard in enumerate(shards))
    metas = [members["json"] for shard in shards for _, members in shard]
    present = {m: sum(getattr(x, m).present for x in metas) for m in ("audio", "visual")}
    split = SplitInfo(samples=len(metas), present=present, shards=infos)
    DatasetInfo(kind="media", preprocessing={}, labels=("x",), splits={"train": split}).save(folder)


def records(parts: list) -> list:
    out = []
    for i, (audio, frames) in enumerate(parts):
        members: dict = {"json": meta(f"k{i}", "x", "train", audio is not None, frames is not None)}
        for name, kind in (("audio.npy", audio), ("frames.npy", frames)):
            if kind is not None:
                members[name] = np.random.default_rng(i).integers(0, 2, kind[1]).astype(kind[0])
        out.append((f"k{i}", members))
    return out


@given(st.lists(st.tuples(st.none() | arrays, st.none() | arrays), min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=12, deadline=None)
def test_what_is_written_is_read_by_us_and_by_tarfile(tmp_path_factory, parts, per_shard):
    folder, all_records = tmp_path_factory.mktemp("trip"), records(parts)
    save(folder, *(all_records[at : at + per_shard] for at in range(0, len(all_records), per_shard)))
    assert verify(folder) == []
    data = ShardDataset(folder, "train")
    for _ in range(2):  # the second time with layouts known
        for i, (key, members) in enumerate(all_records):
            sample = data[i]
            assert (data.keys[i], sample.meta) == (key, members["json"])
            assert {f"{name}.npy" for name in sample.arrays} | {"json"} == set(members)
            for name, array in sample.arrays.items():
                np.testing.assert_array_equal(array, members[f"{name}.npy"], strict=True)
    names = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert names == [f"{k}.{m}" for k, members in all_records for m in ("json", *sorted(set(members) - {"json"}))]


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    save(folder, records([(("<f2", [4, 3]), ("|u1", [2, 3])), (None, ("|u1", [2, 3]))]))
    return folder


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_damage_gives_an_input_error_and_no_other(shard, tmp_path_factory, data):
    """Bytes changed anywhere, or the file cut at any byte: reading refuses, or gives arrays; verify tells."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    content = bytearray((shard / "train-0.tar").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 4)) if content else 0):
        at = data.draw(st.integers(0, min(len(content), 9 * BLOCK) - 1))
        content[at] = (content[at] + data.draw(st.integers(1, 255))) % 256
    (folder / "train-0.tar").write_bytes(content)
    (folder / "dataset.json").write_bytes((shard / "dataset.json").read_bytes())
    assert content == (shard / "train-0.tar").read_bytes() or verify(folder)
    try:
        read = ShardDataset(folder, "train")
        for i in range(len(read)):
            assert all(isinstance(array, np.ndarray) for array in read[i].arrays.values())
    except InputError:
        pass


@given(st.binary(max_size=120), st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_array_header_gives_a_layout_or_a_value_error(header, real_prefix):
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header if real_prefix else header
    buffer = np.frombuffer(head + bytes(64), np.uint8)
    try:
        dtype, shape, start = array_layout(buffer, len(buffer))
    except ValueError:
        return
    assert np.ndarray(shape, dtype, buffer, start).nbytes == len(buffer) - start


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10**400)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, " + "9" * 400 + ")}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 40 + ")}",
        "__import__('os').system('touch escaped')",
        "[" * 5000,
        "-" * 5000 + "1",
    ],
)
def test_hostile_array_headers_are_refused(text):
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with pytest.raises(ValueError):
        array_layout(np.frombuffer(head + bytes(4), np.uint8), len(head) + 4)
    assert not Path("escaped").exists()


def hostile(kind: str) -> bytes:
    out = io.BytesIO()
    form = {"pax": tarfile.PAX_FORMAT, "long name": tarfile.GNU_FORMAT, "huge": tarfile.GNU_FORMAT}
    with tarfile.open(fileobj=out, mode="w", format=form.get(kind, tarfile.USTAR_FORMAT)) as tar:
        info = tarfile.TarInfo("../../evil.json" if kind == "path" else "/evil.json")
        if kind not in ("path", "absolute"):
            info.name = "k0.json"
        if kind == "pax":
            info.pax_headers = {"comment": "x" * 200_000}
        if kind == "long name":
            info.name = "a" * 300 + ".json"
        info.type = {
            "link": tarfile.SYMTYPE,
            "hard link": tarfile.LNKTYPE,
            "device": tarfile.CHRTYPE,
            "pipe": tarfile.FIFOTYPE,
            "sparse": tarfile.GNUTYPE_SPARSE,
        }.get(kind, tarfile.REGTYPE)
        info.linkname = "/etc/passwd"
        if kind == "pickle":
            info.name = "k0.pickle"
        if kind == "huge":
            info.size = 1 << 50
            out.write(info.tobuf(tarfile.GNU_FORMAT))
        else:
            tar.addfile(info)
    return out.getvalue()


KINDS = [
    "path",
    "absolute",
    "link",
    "hard link",
    "device",
    "pipe",
    "sparse",
    "pax",
    "long name",
    "huge",
    "pickle",
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_tars_are_refused(tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(hostile(kind))
    before = sorted(os.listdir(tmp_path.parent))
    with pytest.raises(InputError, match=r"not of the schema|no plain file|damaged tar header|cut short"):
        read_index(tmp_path / "a.tar")
    assert sorted(os.listdir(tmp_path.parent)) == before


def test_what_only_looks_like_a_shard_costs_no_memory_and_no_time(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(InputError, match="no regular file"):
        read_index(tmp_path / "pipe.tar")
    with (tmp_path / "zeros.tar").open("wb") as file:
        file.truncate(1 << 40)  # a hole of a terabyte
    with pytest.raises(InputError, match="end mark"):
        read_index(tmp_path / "zeros.tar")


def test_cat_shows_a_sample_and_hands_out_members(tmp_path, capsysbinary):
    media_dataset(tmp_path, {"train": 6})
    data = ShardDataset(tmp_path, "train")
    assert inspect.main(["cat", str(tmp_path), "train002"]) == 0
    text = capsysbinary.readouterr().out.decode()
    found, _ = json.JSONDecoder().raw_decode(text)
    assert found["key"] == "train002"
    assert "frames.npy: uint8 [3, 32, 32, 3], " in text
    assert inspect.main(["cat", str(tmp_path), "train002", "audio.npy"]) == 0
    assert capsysbinary.readouterr().out == npy_bytes(data[2].arrays["audio"]) == data.member(2, "audio.npy")
    assert inspect.main(["cat", str(tmp_path), "nobody"]) == 2
    assert inspect.main(["cat", str(tmp_path), "train003", "audio.npy"]) == 2
    assert b"choose one of: json, frames.npy" in capsysbinary.readouterr().err


def test_names_in_a_dataset_do_not_drive_the_terminal(tmp_path, capsys):
    evil = meta("k0", "\x1b[2Jgone", "train", visual=False)
    save(tmp_path, [("k0", {"json": evil, "audio.npy": np.zeros((2, 128), np.float16)})])
    assert inspect.main(["ls", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
