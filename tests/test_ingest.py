"""From a manifest to a dataset, in this process: plan, resume, quarantine, refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from configs import load_config
from pipelines import ingest as ingestion
from pipelines.ingest import ingest, main
from pipelines.manifest import read_manifest
from pipelines.plan import make_plan
from pipelines.running_stats import add, audio_moments, statistics
from pipelines.settings import IngestConfig
from pipelines.shard_job import ingest_shard
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.verify import verify
from tests.fixtures.media import make_clip

pytestmark = pytest.mark.unit
CONFIG = IngestConfig(frames=2, image_size=16, samples_per_shard=2, workers=0)


def write_manifest(folder: Path, *rows: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("id,path,label,split\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Five usable clips (one silent film, one sound alone) and two bad files."""
    folder = tmp_path_factory.mktemp("corpus")
    make_clip(folder / "both.mp4")
    make_clip(folder / "silent.mp4", audio=False)
    make_clip(folder / "sound.wav", video=False)
    (folder / "cut.mp4").write_bytes((folder / "both.mp4").read_bytes()[:900])
    return write_manifest(
        folder,
        "a/1.5,both.mp4,dog;cat,train",
        "cut,cut.mp4,dog,train",
        "silent,silent.mp4,cat,train",
        "sound,sound.wav,dog,train",
        "b,both.mp4,dog,test",
        "gone,gone.mp4,dog,test",
        "c,both.mp4,cat,test",
    )


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def dataset(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "out"
    ingest(corpus, out, CONFIG)
    return out


def test_every_clip_is_a_sample_or_in_quarantine(dataset):
    train, test = ShardDataset(dataset, "train"), ShardDataset(dataset, "test")
    assert [meta.id for meta in train.metas] == ["a/1.5", "silent", "sound"]
    assert [meta.id for meta in test.metas] == ["b", "c"]
    assert [(m.audio.present, m.visual.present) for m in train.metas] == [(1, 1), (0, 1), (1, 0)]
    assert train.metas[0].labels == ("dog", "cat")
    assert train.info.labels == ("cat", "dog")
    assert train.info.splits["train"].present == {"audio": 2, "visual": 2}
    assert train[0].arrays["frames"].shape == (2, 16, 16, 3)
    assert train[0].arrays["audio"].shape == (98, 128)
    assert set(train[1].arrays) == {"frames"}
    assert verify(dataset) == []
    lines = [json.loads(line) for line in (dataset / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["id"], line["error"]) for line in lines] == [("cut", "truncated"), ("gone", "missing file")]
    assert all(line["remedy"] and line["message"] and line["path"] for line in lines)


def test_statistics_are_those_of_the_present_train_samples(dataset):
    train = ShardDataset(dataset, "train")
    sound = np.concatenate([train[i].arrays["audio"] for i in (0, 2)]).astype(np.float64)
    pixels = np.concatenate([train[i].arrays["frames"] for i in (0, 1)]).reshape(-1, 3) / 255
    found = train.info.normalisation
    assert (found.audio.samples, found.visual.samples) == (2, 2)
    np.testing.assert_allclose([found.audio.mean[0], found.audio.std[0]], [sound.mean(), sound.std()])
    np.testing.assert_allclose([found.visual.mean, found.visual.std], [pixels.mean(0), pixels.std(0)])


def test_statistics_do_not_depend_on_grouping():
    parts = [audio_moments(np.random.default_rng(i).normal(size=(9, 128)).astype(np.float16)) for i in range(9)]
    assert statistics(add(parts)) == statistics(add([add(parts[:4]), add(parts[4:])]))
    assert statistics(add([])) is None


def test_a_second_run_changes_nothing(corpus, dataset):
    before = digests(dataset)
    times = {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")}
    ingest(corpus, dataset, CONFIG)
    assert digests(dataset) == before
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*.tar")} == times


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_run_that_died_ends_in_the_same_bytes(corpus, dataset, tmp_path, monkeypatch, stop_after):
    count = 0

    def dying(*arguments):
        nonlocal count
        if count == stop_after:
            (tmp_path / "out/media").mkdir(exist_ok=True)
            (tmp_path / "out/media/.train-000001.tar.tmp-99").write_bytes(b"half")
            raise KeyboardInterrupt
        count += 1
        return ingest_shard(*arguments)

    monkeypatch.setattr(ingestion, "ingest_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        ingest(corpus, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out/dataset.json").exists()
    monkeypatch.undo()
    ingest(corpus, tmp_path / "out", CONFIG)
    assert digests(tmp_path / "out") == digests(dataset)


def test_a_shard_without_its_ledger_is_made_again(corpus, dataset, tmp_path):
    ingest(corpus, tmp_path / "out", CONFIG)
    (tmp_path / "out/ledger/train-000000.json").unlink()
    (tmp_path / "out/media/train-000001.tar").unlink()
    ingest(corpus, tmp_path / "out", CONFIG)
    assert digests(tmp_path / "out") == digests(dataset)


def test_the_plan_comes_from_the_manifest_alone(corpus):
    clips = read_manifest(corpus)
    plan = make_plan(clips, 2, corpus.parent)
    assert [shard.name for shard in plan] == ["train-000000", "train-000001", "test-000000", "test-000001"]
    assert [len(shard.clips) for shard in plan] == [2, 2, 2, 1]
    longer = make_plan([*clips, clips[-1]], 2, corpus.parent)
    assert [s.digest for s in longer[:3]] == [s.digest for s in plan[:3]]


def test_another_config_or_manifest_is_refused(corpus, dataset):
    before = digests(dataset)
    with pytest.raises(InputError, match="begun with frames=2, now it is 3"):
        ingest(corpus, dataset, CONFIG.model_copy(update={"frames": 3}))
    other = corpus.with_name("other.csv")
    other.write_text(corpus.read_text().replace("b,both.mp4,dog", "b,both.mp4,cat"))
    with pytest.raises(InputError, match="clip 'b' of shard test-000000 has another row"):
        ingest(other, dataset, CONFIG)
    ingest(corpus, dataset, CONFIG.model_copy(update={"timeout_s": 31.0}))
    assert digests(dataset) == before


def test_unknown_labels_name_file_line_and_label(corpus, tmp_path):
    path = corpus.with_name("labels.csv")
    path.write_text(corpus.read_text() + "odd,both.mp4,cow,test\n")
    with pytest.raises(InputError, match=r"labels.csv:9: field 'label': label 'cow' of clip 'odd'"):
        ingest(path, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()
    fixed = CONFIG.model_copy(update={"labels": ("dog", "cat", "cow")})
    assert ingest(path, tmp_path / "out", fixed).labels == ("dog", "cat", "cow")


def test_wholesale_failure_ends_the_run(tmp_path):
    manifest = write_manifest(tmp_path, *(f"c{i},none{i}.mp4,x,train" for i in range(4)))
    with pytest.raises(InputError, match=r"max_failures=1.*missing file"):
        ingest(manifest, tmp_path / "out", CONFIG.model_copy(update={"max_failures": 1}))
    with pytest.raises(InputError, match="no clip could be ingested"):
        ingest(manifest, tmp_path / "out", CONFIG)
    assert not (tmp_path / "out/dataset.json").exists()


def test_too_short_a_sound_is_quarantined(tmp_path):
    make_clip(tmp_path / "a.wav", video=False, seconds=0.02)
    make_clip(tmp_path / "b.wav", video=False, seconds=0.5)
    manifest = write_manifest(tmp_path, "a,a.wav,x,train", "b,b.wav,x,train")
    info = ingest(manifest, tmp_path / "out", CONFIG.model_copy(update={"keep_wave": True}))
    assert info.splits["train"].samples == 1
    assert json.loads((tmp_path / "out/quarantine.jsonl").read_text())["error"] == "too short"
    assert ShardDataset(tmp_path / "out", "train")[0].arrays["wave"].shape == (8000,)


def test_a_folder_that_is_not_ours_is_left_alone(corpus, tmp_path):
    (tmp_path / "media").mkdir()
    with pytest.raises(InputError, match="not this command's"):
        ingest(corpus, tmp_path, CONFIG)


def test_command_line(corpus, tmp_path, capsys):
    command = ["--manifest", str(corpus), "--out", str(tmp_path / "out")]
    assert main([*command, "frames=2", "image_sise=16"]) == 2
    assert "did you mean 'image_size'" in capsys.readouterr().err
    assert main([*command, "frames=2", "image_size=16", "workers=0"]) == 0
    assert "2 clips in" in capsys.readouterr().out
    assert main(["--manifest", str(tmp_path / "none.csv"), "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_the_default_config_is_valid():
    assert load_config(IngestConfig).content()["frames"] == 10


def test_the_first_causes_of_a_quarantine_are_printed(tmp_path, capsys):
    make_clip(tmp_path / "a.mp4", seconds=0.3)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    rows = ["a,a.mp4", "b,bad.mp4", "c,gone.mp4", "d,gone2.mp4"]
    (tmp_path / "clips.csv").write_text("id,path,label,split\n" + "".join(f"{row},x,train\n" for row in rows))
    arguments = ["--manifest", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "workers=0", "image_size=32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6].endswith("3 clips in " + str(tmp_path / "out/quarantine.jsonl"))
    assert lines[-5].startswith("  2 missing file; the first, 'c': ")
    assert lines[-4].startswith("    remedy: correct the path in the manifest")
    assert lines[-3].startswith("  1 undecodable; the first, 'b': ")
    assert lines[-2].startswith("    remedy: ")
    assert lines[-1].endswith(f"avmend audit {tmp_path / 'out'}")
