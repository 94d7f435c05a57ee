"""Media and features of the same clips as one dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.causes import Cause
from shards.errors import InputError
from shards.joined import JoinedDataset
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import SMALL, absent, feature_dataset, feature_records, media_dataset, split_info

pytestmark = pytest.mark.unit


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    media_dataset(tmp_path / "media", {"train": 12})
    feature_dataset(tmp_path / "features", {"train": 12}, SMALL, "f" * 64)
    return tmp_path / "media", tmp_path / "features"


def reorder(folder: Path, keep: list[int], change=lambda members: None) -> None:
    """Write the features again: these samples, in this order."""
    shapes = {m: (n, SMALL.dim) for m, n in SMALL.tokens.items()}
    records = [list(feature_records("train", 12, shapes, 2))[i] for i in keep]
    for _, members in records:
        change(members)
    split = split_info(folder, "train", records, 5)
    DatasetInfo.load(folder).model_copy(update={"splits": {"train": split}}).save(folder)


def test_samples_meet_by_key_in_the_order_of_the_first(folders):
    reorder(folders[1], list(range(11, -1, -1)))
    media, features = (ShardDataset(folder, "train") for folder in folders)
    joined = JoinedDataset(media=media, tokens=features)
    assert joined.keys == media.keys
    assert list(joined.metas) == media.metas
    for i in range(len(joined)):
        parts = joined[i]
        assert {part.meta.key for part in parts.values()} == {media.keys[i]}
        assert set(parts["tokens"].arrays) == {
            m for m, there in zip(("audio", "visual"), absent(i), strict=True) if there
        }
        for name, array in features[11 - i].arrays.items():
            np.testing.assert_array_equal(parts["tokens"].arrays[name], array)


def test_missing_samples_are_named_or_left_out_when_asked(folders):
    reorder(folders[1], [0, 1, 7, 5])
    parts = {n: ShardDataset(f, "train") for n, f in zip(("media", "tokens"), folders, strict=True)}
    with pytest.raises(InputError, match=r"'train002' of media is missing in tokens \(8 in all\)"):
        JoinedDataset(**parts)
    assert JoinedDataset(common=True, **parts).keys == ["train000", "train001", "train005", "train007"]


def test_contradicting_presence_is_refused(folders):
    def lose_audio(members):
        gone = members["json"].visual.model_copy(update={"present": False, "cause": Cause.TRUNCATED})
        if members.pop("audio.npy", None) is not None and "visual.npy" in members:
            members["json"] = members["json"].model_copy(update={"audio": gone})

    reorder(folders[1], [0, 1, 2], lose_audio)
    parts = {n: ShardDataset(f, "train") for n, f in zip(("media", "tokens"), folders, strict=True)}
    with pytest.raises(InputError, match="'train000' has other modalities than in media"):
        JoinedDataset(common=True, **parts)
