"""Corpora in folders: nothing dropped in silence, splits stratified, slices of a recording kept together."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from pipelines.corpora.public.folders import corpus, scan
from pipelines.manifest import read_manifest
from shards.errors import InputError
from tests.fixtures.corpora import facts_of

pytestmark = pytest.mark.unit


def tree(root: Path, vision: str = "vision", sound: str = "sound") -> Path:
    """Two classes of 40 clips, 4 slices per recording, and one file without its partner on either side."""
    for label in ("siren", "dog_bark"):
        for number in range(40):
            name = f"{1000 + number // 4}{len(label)}-{len(label)}-0-{number % 4}"
            touch(root / vision / label / f"{name}.jpg")
            touch(root / sound / label / f"{name}.wav")
    touch(root / vision / "siren" / "77-1-0-0.JPG")
    touch(root / sound / "dog_bark" / "78-1-0-0.wav")
    touch(root / sound / "dog_bark" / "notes.txt")
    touch(root / sound / "dog_bark" / ".DS_Store")
    return root


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


@pytest.mark.parametrize("names", [("vision", "sound"), ("Dataset_v3_vision", "Dataset_v3_sound")])
def test_a_tree_becomes_two_manifests_and_a_report(tmp_path: Path, names: tuple[str, str]):
    report = facts_of(corpus("urbansound8k-av"), tmp_path / "out", source=tree(tmp_path / "source", *names))
    clips = {clip.id: clip for clip in read_manifest(tmp_path / "out" / "official.csv")}
    assert len(clips) == report["clips"] == 82
    assert report["without_sound"] == ["siren/77-1-0-0"]
    assert report["without_picture"] == ["dog_bark/78-1-0-0"]
    assert report["ignored_files"] == [f"{names[1]}/dog_bark/notes.txt"]
    assert "not the data set's" in report["splits"]["official"]["made"]
    assert clips["siren/77-1-0-0"].audio_path is None
    assert clips["dog_bark/78-1-0-0"].image_path is None
    for clip in clips.values():
        assert all(Path(path).is_file() for path in (clip.audio_path, clip.image_path) if path)
    cells = collections.Counter((clip.labels, clip.split) for clip in clips.values())
    assert {cells[(label,), "test"] for label in ("siren", "dog_bark")} == {8}
    assert {cells[(label,), "val"] for label in ("siren", "dog_bark")} == {4}


def test_slices_of_a_recording_stay_together(tmp_path: Path):
    facts_of(corpus("urbansound8k-av"), tmp_path / "out", source=tree(tmp_path / "source"))
    clips = read_manifest(tmp_path / "out" / "group.csv")  # which refuses a group in two splits
    groups = {clip.group for clip in clips}
    assert len(groups) == 22
    shares = collections.Counter(clip.split for clip in clips)
    assert 12 <= shares["test"] <= 20
    assert 4 <= shares["val"] <= 12


def test_a_seed_gives_the_same_splits_and_another_seed_others(tmp_path: Path):
    source = tree(tmp_path / "source")
    texts = []
    for turn, seed in enumerate((0, 0, 1)):
        facts_of(corpus("cifar10-av"), tmp_path / f"out{turn}", source=source, seed=seed)
        texts.append((tmp_path / f"out{turn}" / "official.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_split_of_the_trees_own_is_kept(tmp_path: Path):
    for split, number in (("train", 1), ("valid", 2), ("test", 1)):
        touch(tmp_path / "vision" / split / "cat" / f"{number}.jpg")
        touch(tmp_path / "sound" / split / "cat" / f"{number}.wav")
    report = facts_of(corpus("cifar10-av"), tmp_path / "out", source=tmp_path)
    clips = read_manifest(tmp_path / "out" / "official.csv")
    assert {clip.id: clip.split for clip in clips} == {
        "test/cat/1": "test",
        "train/cat/1": "train",
        "val/cat/2": "val",
    }
    assert report["splits"]["official"]["made"] == "the tree's own"


def test_refuses_other_layouts(tmp_path: Path):
    with pytest.raises(InputError, match="neither of the folders vision"):
        scan(tmp_path)
    (tmp_path / "vision").mkdir()
    (tmp_path / "sound").mkdir()
    with pytest.raises(InputError, match="no clips"):
        scan(tmp_path)
    touch(tmp_path / "vision" / "cat" / "1.jpg")
    touch(tmp_path / "vision" / "cat" / "1.png")
    with pytest.raises(InputError, match="same name"):
        scan(tmp_path)
    (tmp_path / "vision" / "cat" / "1.png").unlink()
    touch(tmp_path / "sound" / "train" / "cat" / "1.wav")
    with pytest.raises(InputError, match="one side alone"):
        scan(tmp_path)
