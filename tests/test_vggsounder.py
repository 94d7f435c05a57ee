"""VGGSounder: labels per modality, on small files of its form and on the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.corpora.registry import CORPORA
from pipelines.manifest import read_manifest
from shards.errors import InputError
from shards.modality_labels import load_modality_labels
from tests.fixtures.corpora import facts_of

pytestmark = pytest.mark.unit

HEADER = "video_id,label,modality,background_music,static_image,voice_over"
ROWS = (
    "a_000001,cat,AV,False,False,True",
    'a_000001,"dog, bark",A,False,False,True',
    "b_000002,cat,V,True,False,False",
)


def made(folder: Path, *rows: str, **settings) -> dict:
    (folder / "labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "classes.csv").write_text('index,mid,display_name\n0,v0,"dog, bark"\n1,v1,cat\n')
    paths = {"csv": folder / "labels.csv", "classes": folder / "classes.csv", "videos": folder}
    return facts_of(CORPORA["vggsounder"], folder / "out", **(paths | settings))


def test_rows_become_clips_with_labels_per_modality(tmp_path: Path):
    facts = made(tmp_path, *ROWS)
    (clip,) = read_manifest(tmp_path / "out" / "manifest.csv")
    assert (clip.id, clip.labels, clip.split) == ("a_000001", ("cat", "dog, bark"), "test")
    assert clip.path == str(tmp_path / "a_000001.mp4")
    (labels,) = load_modality_labels(tmp_path / "out" / "modality_labels.jsonl")
    assert labels.labels == {"cat": "AV", "dog, bark": "A"}
    assert (labels.voice_over, labels.static_image) == (True, False)
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["dog, bark", "cat"]
    assert (facts["left_out_for_background_music"], facts["modalities"]) == (1, {"A": 1, "AV": 1})
    facts = made(tmp_path, *ROWS, background_music=True)
    assert (facts["clips"], facts["labels"], facts["background_music"]) == (2, 3, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,cow,A,False,False,False"], "csv:2: field 'label': unknown label 'cow'"),
        (["a,cat,B,False,False,False"], "'B' is no modality of 'cat' in a"),
        (["a,cat,A,False,False,False"] * 2, "csv:3: .*'cat' is there twice for a"),
        (["a,cat,A,no,False,False"], "field 'background_music': 'no' is neither"),
        (["a,cat,A,False,False,False", 'a,"dog, bark",A,True,False,False'], "the rows of a differ"),
        (["a,cat,A,False"], "4 columns"),
        (["a,cat,A,True,False,False"], "every clip has background music"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, rows: list[str], message: str):
    with pytest.raises(InputError, match=message):
        made(tmp_path, *rows)


def test_other_columns_are_named(tmp_path: Path):
    (tmp_path / "test.csv").write_text("abc_000001.mp4,cat\n")
    with pytest.raises(InputError, match="field 'video_id': no such column"):
        made(tmp_path, csv=tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("name", "clips", "labels"),
    [
        ("vggsounder.csv", 12_014, {"A": 10_149, "AV": 18_377, "V": 983}),  # without background music: 29,509
        ("vggsounder+background-music.csv", 15_069, {"A": 14_236, "AV": 21_914, "V": 1_245}),  # 37,395
    ],
)
def test_the_real_labels(shared_data: Path, tmp_path: Path, name: str, clips: int, labels: dict[str, int]):
    folder = shared_data / "vggsounder"
    if not (folder / name).is_file():
        pytest.skip(f"no {name} in the shared data")
    paths = {"csv": folder / name, "classes": folder / "classes.csv", "videos": tmp_path}
    facts = facts_of(CORPORA["vggsounder"], tmp_path, **paths, background_music=True)
    assert (facts["clips"], facts["modalities"]) == (clips, labels)
    assert facts["labels"] == sum(labels.values())
    assert len(json.loads((tmp_path / "classes.json").read_text())) == 309
