"""Shards handed on: the same fingerprint elsewhere, and what other libraries read of them equals what ours does."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from pyarrow import parquet

from pipelines.ingest import ingest
from pipelines.settings import IngestConfig
from pipelines.shard_job import Quarantined
from serving.export.command import main as export
from serving.export.dataset_card import _patterns
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from shards.verify import verify
from shards.writer import write_shard
from tests.fixtures.builders import LABELS, media_dataset, media_records, split_info
from tests.fixtures.clips import ingested_clips
from tests.fixtures.sharing import flipped, linked, replaced
from trainers.imports.command import main as take_in

unit, integration = pytest.mark.unit, pytest.mark.integration
SIZES = {"train": 24, "val-a": 6, "test": 20}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media shards of clips, of which some lack a modality and one, with a dot and a space in its id, is damaged."""
    root = tmp_path_factory.mktemp("clips")
    ingested_clips(root)
    (root / "cut.mp4").write_bytes((root / "both.mp4").read_bytes()[:900])
    (root / "manifest.csv").open("a").write("odd clip 1.5,cut.mp4,bell,test\nodd.clip,both.mp4,drum,train\n")
    out = root / "lost"
    ingest(root / "manifest.csv", out, IngestConfig(frames=3, image_size=32, labels=LABELS, keep_wave=True, workers=0))
    return out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media shards of three splits; the fourth and the fifth sample lack a modality."""
    folder = tmp_path_factory.mktemp("drawn") / "toys"
    media_dataset(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def shared(drawn: Path) -> Path:
    """Those, exported."""
    assert export([str(drawn), str(drawn.parent / "shared"), "--license", "cc-by-4.0"]) == 0
    return drawn.parent / "shared"


def front_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def shards_in(folder: Path) -> Path:
    (found,) = folder.glob("shards-*")
    return found


@unit
def test_shards_are_the_same_elsewhere_with_their_quarantine(ingested, tmp_path, capsys):
    assert export([str(ingested), str(tmp_path / "shared")]) == 0
    assert "5 samples" in (said := capsys.readouterr().out)
    assert "1 clips in quarantine" in said
    out = tmp_path / "data" / "taken"
    assert take_in([str(tmp_path / "shared"), "--out", str(out)]) == 0
    assert (out / "dataset.json").read_bytes() == (ingested / "dataset.json").read_bytes()
    assert verify(out) == []
    (lost,) = map(Quarantined.model_validate_json, (out / "quarantine.jsonl").read_text().splitlines())
    (before,) = map(Quarantined.model_validate_json, (ingested / "quarantine.jsonl").read_text().splitlines())
    assert (lost.id, lost.path, lost.error) == ("odd clip 1.5", "cut.mp4", before.error)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "1 clips of the manifest could not be ingested" in card
    assert "- test, no sound: 1 absent at source" in card
    for path in filter(Path.is_file, (tmp_path / "shared").rglob("*")):
        assert str(ingested.parent).encode() not in path.read_bytes(), path
    assert take_in([str(tmp_path / "shared"), "--out", str(out)]) == 0, "what is there is left as it is"


@unit
def test_the_index_and_the_card_count_what_is_there(drawn, shared):
    rows = parquet.read_table(shared / "samples.parquet").to_pylist()
    wanted = []
    for split in SIZES:
        for meta in ShardDataset(drawn, split).metas:
            streams = ["present" if s.present else s.cause for s in (meta.audio, meta.visual)]
            wanted.append((meta.key, meta.id, split, list(meta.labels), *streams))
    assert [(r["key"], r["id"], r["split"], r["labels"], r["audio"], r["visual"]) for r in rows] == wanted
    text = (shared / "README.md").read_text()
    assert "| train | 24 | 0.00 | 19 | 20 | 3 |" in text
    assert "| bell | 8 | 2 | 7 |" in text
    assert DatasetInfo.load(drawn).fingerprint() in text
    front = front_of(shared)
    assert front["license"] == "cc-by-4.0"
    assert [files["split"] for files in front["configs"][0]["data_files"]] == ["train", "val_a", "test"]


@unit
def test_datasets_reads_the_same_arrays_where_a_modality_is_absent(drawn, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    import datasets

    found = datasets.load_dataset(str(shared), streaming=True, cache_dir=str(tmp_path / "cache"))
    for split in SIZES:
        data = ShardDataset(drawn, split)
        rows = list(found[split.replace("-", "_")])
        assert [row["__key__"] for row in rows] == data.keys
        for i, row in enumerate(rows):
            sample = data[i]
            assert row["json"]["labels"] == list(sample.meta.labels)
            for name in ("audio", "frames"):
                assert equal(row[f"{name}.npy"], sample.arrays.get(name)), (split, i, name)
    assert {type(row["audio.npy"]) for row in rows} == {np.ndarray, type(None)}
    whole = datasets.load_dataset(str(shared), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in whole.items()} == {"train": 24, "val_a": 6, "test": 20}


def equal(found: np.ndarray | None, wanted: np.ndarray | None) -> bool:
    """The same values, type and shape; or both nothing."""
    if found is None or wanted is None:
        return found is wanted
    return (found.dtype, found.shape) == (wanted.dtype, wanted.shape) and np.array_equal(found, wanted)


@unit
def test_dots_in_ids_and_sounds_beside_pictures_reach_datasets(ingested, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    assert export([str(ingested), str(tmp_path / "shared")]) == 0
    (row,) = datasets.load_dataset(str(tmp_path / "shared"), split="train", streaming=True)
    sample = ShardDataset(ingested, "train")[0]
    assert row["json"]["id"] == "odd.clip"
    assert row["__key__"] == sample.meta.key
    assert row["json"] == sample.meta.model_dump(mode="json")
    for name, array in sample.arrays.items():
        assert np.array_equal(np.asarray(row[f"{name}.npy"], array.dtype), array)


@pytest.fixture(scope="module")
def croissants(tmp_path_factory: pytest.TempPathFactory):
    """The reference library, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("croissant")))  # read when it is imported
        import mlcroissant

    return mlcroissant


@integration
def test_croissant_is_valid_and_streams_labels_and_arrays(croissants, drawn, shared):
    found = croissants.Dataset(jsonld=str(shared / "croissant.json"))
    report = found.metadata.ctx.issues
    assert not report.errors
    assert found.metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.0"
    samples = list(found.records("samples"))
    metas = [meta for split in SIZES for meta in ShardDataset(drawn, split).metas]
    assert [(r["samples/key"], r["samples/labels"]) for r in samples] == [
        (meta.key.encode(), [label.encode() for label in meta.labels]) for meta in metas
    ]
    for split in SIZES:
        data = ShardDataset(drawn, split)
        for name in ("audio", "frames"):
            records = {r[f"{split}-{name}/key"].decode(): r for r in found.records(f"{split}-{name}")}
            there = {key: data[i] for i, key in enumerate(data.keys) if name in data[i].arrays}
            assert records.keys() == there.keys()
            for key, sample in there.items():
                content = np.load(io.BytesIO(records[key][f"{split}-{name}/content"]), allow_pickle=False)
                assert equal(content, sample.arrays[name])
                assert records[key][f"{split}-{name}/labels"] == [sample.meta.labels[0].encode()]


@unit
def test_croissant_tools_keep_datasets_apart_whose_shards_have_the_same_names(croissants, tmp_path):
    """They cache what they unpack by its path within the export."""
    keys = []
    for name, size in (("one", 3), ("two", 5)):
        media_dataset(tmp_path / name, {"train": size}, label=lambda i: "bell")
        assert export([str(tmp_path / name), str(tmp_path / f"shared-{name}")]) == 0
        found = croissants.Dataset(jsonld=str(tmp_path / f"shared-{name}" / "croissant.json"))
        keys.append(len(list(found.records("train-audio"))))
    assert keys == [3, 4]


@unit
def test_what_a_stopped_export_left_is_used_and_what_is_not_of_it_goes(drawn, tmp_path, monkeypatch):
    partial = tmp_path / ".shared.partial"
    from serving.export import dataset

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "survey", stop)
        with pytest.raises(KeyboardInterrupt):
            dataset.export_shards(drawn, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()
    (partial / "stranger.json").write_text("{}")
    before = {path.name: path.stat().st_ino for path in partial.rglob("*.tar")}
    assert len(before) == 7
    flipped(next(partial.rglob("train-000001.tar")))
    assert export([str(drawn), str(tmp_path / "shared")]) == 0
    after = {path.name: path.stat().st_ino for path in (tmp_path / "shared").rglob("*.tar")}
    assert {name for name in before if before[name] != after[name]} == {"train-000001.tar"}
    assert verify(shards_in(tmp_path / "shared")) == []
    assert not partial.exists()
    names = {path.name for path in (tmp_path / "shared").iterdir()}
    assert names == {"README.md", "avmend.json", "croissant.json", "samples.parquet", after_folder(drawn)}


def after_folder(data: Path) -> str:
    return f"shards-{DatasetInfo.load(data).fingerprint()[:12]}"


@unit
def test_links_take_no_room_and_a_damaged_shard_is_named(tmp_path, capsys):
    media_dataset(tmp_path / "toys", {"train": 9})
    assert export([str(tmp_path / "toys"), str(tmp_path / "linked"), "--link"]) == 0
    (shard,) = (tmp_path / "linked").rglob("*.tar")
    assert shard.stat().st_ino == (tmp_path / "toys" / "train-000000.tar").stat().st_ino
    flipped(tmp_path / "toys" / "train-000000.tar")
    for option in ([], ["--link"]):
        assert export([str(tmp_path / "toys"), str(tmp_path / "bad"), *option]) == 2
        assert "train-000000.tar: is damaged" in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()
    (tmp_path / "toys" / "train-000000.tar").unlink()
    assert export([str(tmp_path / "toys"), str(tmp_path / "bad")]) == 2
    assert "can't be read" in capsys.readouterr().err


def other_labels(folder: Path) -> None:
    """Another dataset.json, with its hash in the record."""
    path = shards_in(folder) / "dataset.json"
    info = json.loads(path.read_text()) | {"labels": ["cat", "dog", "owl"]}
    replaced(folder, path.relative_to(folder).as_posix(), json.dumps(info).encode())


def other_shard(folder: Path) -> None:
    """Another shard, with its hash in the record."""
    path = shards_in(folder) / "test-000002.tar"
    write_shard(folder / "new.tar", list(media_records("test", 2, lambda i: "bell")))
    replaced(folder, path.relative_to(folder).as_posix(), (folder / "new.tar").read_bytes())


@unit
@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda folder: flipped(shards_in(folder) / "val-a-000000.tar"), r"val-a-000000\.tar: was changed"),
        (lambda folder: (shards_in(folder) / "test-000001.tar").unlink(), r"test-000001\.tar: is missing"),
        (lambda folder: linked(shards_in(folder) / "test-000001.tar"), "is a link"),
        (other_labels, "its dataset's fingerprint is"),
        (other_shard, r"test-000002\.tar: dataset\.json and avmend\.json do not say the same"),
    ],
)
def test_shards_that_were_tampered_with_are_refused(drawn, tamper, said, tmp_path):
    assert export([str(drawn), str(tmp_path / "shared")]) == 0
    tamper(tmp_path / "shared")
    with pytest.raises(InputError, match=said) as refused:
        take_in.__wrapped__(["shared", str(tmp_path / "shared"), "--out", str(tmp_path / "out")])
    assert refused.value.remedy
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.arriving").exists()


@unit
def test_a_pattern_is_of_one_split_alone():
    every = ["media/train-000000.tar", "media/train-0-000000.tar", "media/val-000000.tar"]
    assert _patterns(every[:1], every, "x") == ["x/media/train-000000.tar"]
    assert _patterns(every[2:], every, "x") == "x/media/val-[0-9]*.tar"


@unit
def test_features_are_shared_like_media(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    from tests.fixtures.asking import sequence_dataset

    info = sequence_dataset(tmp_path / "features", {"train": 9, "test": 3})
    assert export([str(tmp_path / "features"), str(tmp_path / "shared"), "--name", "toys features"]) == 0
    assert take_in([str(tmp_path / "shared"), "--out", str(tmp_path / "out")]) == 0
    assert DatasetInfo.load(tmp_path / "out").fingerprint() == info.fingerprint()
    rows = list(datasets.load_dataset(str(tmp_path / "shared"), split="train", streaming=True))
    data = ShardDataset(tmp_path / "features", "train")
    assert len(rows) == len(data) == 9
    for i, row in enumerate(rows):
        for name in ("audio", "visual"):
            assert equal(row[f"{name}.npy"], data[i].arrays.get(name))
    assert json.loads((tmp_path / "shared" / "avmend.json").read_text())["name"].startswith("toys_features--")


@unit
def test_splits_without_a_modality_have_no_array_of_it(tmp_path):
    records = [(key, {"json": m["json"], "frames.npy": m["frames.npy"]}) for key, m in _silent()]
    splits = {"train": split_info(tmp_path / "toys", "train", records, 9)}
    DatasetInfo(kind="media", preprocessing={}, labels=LABELS, splits=splits).save(tmp_path / "toys")
    assert export([str(tmp_path / "toys"), str(tmp_path / "shared")]) == 0
    names = [feature["name"] for feature in front_of(tmp_path / "shared")["dataset_info"]["features"]]
    assert names == ["json", "frames.npy", "__key__", "__url__"]


def _silent() -> list:
    return [(key, m) for key, m in media_records("train", 30, lambda i: "bell") if "audio.npy" not in m]


@unit
def test_the_documented_lines_run(croissants, shared, tmp_path, monkeypatch, capsys):
    (tmp_path / "handed-on").mkdir()
    (tmp_path / "handed-on" / "scenes").symlink_to(shared)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = (Path(__file__).resolve().parent.parent / "docs" / "share.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in code:
        exec(compile(block, "docs/share.md", "exec"), {})
    out = capsys.readouterr().out
    assert "['bell'] float16 (3, 32, 32, 3)" in out
    assert re.search(r"b'train\d+' \[b'\w+'\] \(40, 128\)", out)
