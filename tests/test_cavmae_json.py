"""CAV-MAE's JSON and VGGSound's CSV as manifests, on small files of that form and on the real ones."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.corpora.public.cavmae_json import read_labels
from pipelines.corpora.registry import CORPORA
from pipelines.manifest import Clip, read_manifest
from shards.errors import InputError
from shards.progress import Progress

unit, integration = pytest.mark.unit, pytest.mark.integration

LABELS = 'index,mid,display_name\n0,/m/1,Speech\n1,/m/2,"Male speech, man speaking"\n'


def sources(folder: Path, **changes: str) -> tuple[Path, Path]:
    """A JSON of one entry, its label CSV, and the files that the entry names."""
    entry = {
        "wav": "/there/audio/-a.b_1.flac",
        "video_id": "-a.b_1",
        "video_path": "/there/frames/",
        "labels": "/m/1,/m/2",
    } | changes
    (folder / "data.json").write_text(json.dumps({"data": [entry]}))
    (folder / "labels.csv").write_text(LABELS)
    for path in ("audio/-a.b_1.flac", "frames/frame_3/-a.b_1.jpg"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder / "data.json", folder / "labels.csv"


def made(name: str, out: Path, **settings: Any) -> list[Clip]:
    """The clips of the manifest that a corpus writes."""
    corpus = CORPORA[name]
    summary = corpus.build(corpus.config(**settings), out, functools.partial(Progress, name))
    return read_manifest(summary.manifests["default"])


@unit
def test_an_entry_becomes_a_row(tmp_path: Path):
    data, labels = sources(tmp_path)
    roots = {"audio_root": tmp_path / "audio", "visual_root": tmp_path / "frames"}
    (clip,) = made("cavmae-json", tmp_path / "out", files=[("train", data)], labels=labels, frame=3, **roots)
    assert (clip.id, clip.split) == ("-a.b_1", "train")
    assert clip.labels == ("Speech", "Male speech, man speaking")
    assert clip.audio_path
    assert clip.image_path
    assert Path(clip.audio_path).is_file()
    assert Path(clip.image_path).is_file()
    assert read_manifest(tmp_path / "out" / "manifest.csv") == [clip]


@unit
def test_without_roots_the_paths_stay_and_an_empty_one_is_absent(tmp_path: Path):
    data, labels = sources(tmp_path, wav="")
    (clip,) = made("cavmae-json", tmp_path / "out", files=[("eval", data)], labels=labels)
    assert clip.audio_path is None
    assert clip.image_path == "/there/frames/frame_5/-a.b_1.jpg"


@unit
def test_refuses_unknown_labels_missing_fields_and_repeated_ids(tmp_path: Path):
    data, labels = sources(tmp_path, labels="/m/1,/m/22")
    with pytest.raises(InputError, match="did you mean '/m/2'"):
        made("cavmae-json", tmp_path / "out", files=[("train", data)], labels=labels)
    data, labels = sources(tmp_path)
    with pytest.raises(InputError, match=r"'-a\.b_1' is the id of lines 2 and 3"):
        made("cavmae-json", tmp_path / "out", files=[("train", data), ("val", data)], labels=labels)
    data.write_text('{"data": [{"wav": "a"}]}')
    with pytest.raises(InputError, match=r"entry 0.*field 'video_id'"):
        made("cavmae-json", tmp_path / "out", files=[("train", data)], labels=labels)
    data.write_text("[]")
    with pytest.raises(InputError, match="no entries"):
        made("cavmae-json", tmp_path / "out", files=[("train", data)], labels=labels)
    with pytest.raises(InputError, match="can't be read"):
        made("cavmae-json", tmp_path / "out", files=[("train", tmp_path / "none.json")], labels=labels)
    assert not (tmp_path / "out").exists()


@unit
def test_vggsound_csv_in_both_forms(tmp_path: Path):
    (tmp_path / "full.csv").write_text('abc_-defgh1,30,"dog, barking",train\nabc_-defgh1,160,cat,test\n')
    clips = made("vggsound-csv", tmp_path / "out", csv=tmp_path / "full.csv", videos=tmp_path / "videos")
    assert [(clip.id, clip.labels, clip.split) for clip in clips] == [
        ("abc_-defgh1_000030", ("dog, barking",), "train"),
        ("abc_-defgh1_000160", ("cat",), "test"),
    ]
    assert clips[0].path == str(tmp_path / "videos" / "abc_-defgh1_000030.mp4")
    (tmp_path / "test.csv").write_text("abc_-defgh1_000030.mp4,cat\n")
    (clip,) = made(
        "vggsound-csv", tmp_path / "out", csv=tmp_path / "test.csv", videos=tmp_path / "videos", split="test"
    )
    assert (clip.id, clip.split) == ("abc_-defgh1_000030", "test")
    with pytest.raises(InputError, match="give --split test"):
        made("vggsound-csv", tmp_path / "out", csv=tmp_path / "test.csv", videos=tmp_path)
    (tmp_path / "full.csv").write_text("abc,soon,dog,train\n")
    with pytest.raises(InputError, match=r"full.csv:1.*'soon'"):
        made("vggsound-csv", tmp_path / "out", csv=tmp_path / "full.csv", videos=tmp_path)


@integration
def test_the_real_label_files(shared_data: Path, tmp_path: Path):
    folder = shared_data / "labels"
    assert len(read_labels(folder / "class_labels_indices_as.csv")) == 527
    files = [("train", folder / "sample_json_as.json")]
    clips = made("cavmae-json", tmp_path, files=files, labels=folder / "class_labels_indices_as.csv")
    assert len(clips) == 1725
    assert len({clip.key for clip in clips}) == 1725
    clips = made("vggsound-csv", tmp_path, csv=folder / "vggsound_test.csv", videos=tmp_path, split="test")
    assert len(clips) == 15446
    assert len({label for clip in clips for label in clip.labels}) == 309
