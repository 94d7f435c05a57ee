"""From real shards to batches: NaN where absent, the same ruined input in any order, every sample once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.batch import AVBatch
from models.conditions import CASES
from models.inputs import Normalisation
from models.settings import KINDS
from shards.errors import InputError
from shards.positions import hashed
from shards.reader import ShardDataset
from tests.fixtures.builders import LABELS, SMALL, absent, feature_dataset, media_dataset
from trainers.classification.augment import augment
from trainers.classification.config import Augment
from trainers.classification.items import FeatureItems, InputSpec, MediaItems
from trainers.classification.stages import dataset_normalisation
from trainers.data import Items, batches, collate, epoch_order
from trainers.draws import Uniform, mixed, shuffled

unit, integration = pytest.mark.unit, pytest.mark.integration

SIZES = {"train": 23, "val": 12}
SPEC = InputSpec(SMALL.target_length, SMALL.image_size, Normalisation())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    media_dataset(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    feature_dataset(folder, SIZES, SMALL, "f" * 64)
    return folder


def ids(size: int) -> np.ndarray:
    return hashed(map(str, range(size)))


def media_items(folder: Path, *conditions: str, split: str = "train", **kwargs) -> MediaItems:
    return MediaItems(ShardDataset(folder, split), LABELS, SPEC, conditions or ("complete",), **kwargs)


def feature_items(folder: Path, case: str, split: str = "train", **kwargs) -> FeatureItems:
    return FeatureItems(ShardDataset(folder, split), LABELS, case, **kwargs)


def same(x: Tensor, y: Tensor) -> bool:
    """Equal to the bit, NaN included."""
    return x.dtype == y.dtype and torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())


def rows(items: Items, order: list[int], size: int = 4, loaders: int = 0) -> dict[int, tuple[Tensor, ...]]:
    """All rows by their index, read in this order."""
    out = {}
    for batch in batches(items, order, size, loaders, drop_last=False):
        for i in range(len(batch)):
            assert int(batch.index[i]) not in out, "read twice"
            out[int(batch.index[i])] = (batch.audio[i], batch.visual[i], batch.present[i], batch.label[i])
    assert set(out) == set(order)
    return out


def assert_same_rows(a: dict[int, tuple[Tensor, ...]], b: dict[int, tuple[Tensor, ...]]) -> None:
    """Of all rows that the second has."""
    assert b
    for i in b:
        assert all(same(x, y) for x, y in zip(a[i], b[i], strict=True)), i


def assert_absent_is_nan(items: Items, also: tuple[bool, bool] = (True, True)) -> None:
    found = rows(items, list(range(len(items))))
    assert len(found) == len(items)
    for i, (audio, visual, present, label) in found.items():
        there = [a and b for a, b in zip(absent(i), also, strict=True)]
        assert present.tolist() == there
        assert label == i % len(LABELS)
        for x, expected in zip((audio, visual), there, strict=True):
            assert x.isfinite().all() if expected else x.isnan().all()


@unit
def test_media_rows_are_nan_where_absent(media):
    assert_absent_is_nan(media_items(media))
    assert_absent_is_nan(media_items(media, "noisy_both"))
    assert_absent_is_nan(media_items(media, "audio_missing"), (False, True))
    assert_absent_is_nan(media_items(media, "visual_missing"), (True, False))


@unit
@pytest.mark.parametrize("case", CASES)
def test_feature_rows_are_nan_where_absent_and_keep_their_shape(features, case):
    items = feature_items(features, case)
    assert_absent_is_nan(items)
    for audio, visual, *_ in (items[i] for i in range(len(items))):
        assert audio.shape == (SMALL.tokens["audio"], SMALL.dim)
        assert visual.shape == (SMALL.tokens["visual"], SMALL.dim)


@unit
def test_a_batch_is_what_its_type_says(media):
    batch = next(batches(media_items(media), [0, 3, 4, 5], 4, 0, drop_last=True))
    assert batch.audio.shape == (4, 32, 128)
    assert batch.visual.shape == (4, 3, 32, 32)
    assert batch.present.dtype == torch.bool
    assert batch.index.tolist() == [0, 3, 4, 5]
    assert batch.label.dtype == batch.index.dtype == torch.int64


@unit
@pytest.mark.parametrize("loaders", [0, 2])
def test_a_media_item_does_not_depend_on_order_neighbours_or_loaders(media, loaders):
    def items() -> MediaItems:
        out = media_items(media, *CASES, seed=5, random_frame=True)
        out.epoch = 2
        return out

    forward = rows(items(), list(range(23)))
    torch.manual_seed(9)
    assert_same_rows(forward, rows(items(), list(range(22, -1, -1)), size=7, loaders=loaders))
    assert_same_rows(forward, rows(items(), [11, 2, 17], size=1, loaders=loaders))


@unit
def test_a_feature_item_does_not_depend_on_order_neighbours_or_loaders(features):
    def items() -> FeatureItems:
        return feature_items(features, "noisy_both", seed=5, missing=0.5)

    forward = rows(items(), list(range(23)))
    for loaders in (0, 2):
        assert_same_rows(forward, rows(items(), list(range(22, -1, -1)), size=7, loaders=loaders))


@unit
def test_epoch_and_seed_change_noise_condition_and_frame(media):
    def picture(seed: int, epoch: int, *conditions: str) -> dict[int, tuple[Tensor, ...]]:
        items = media_items(media, *conditions, seed=seed, random_frame=True)
        items.epoch = epoch
        return rows(items, list(range(23)))

    first = picture(0, 0, "noisy_audio")
    for other in (picture(0, 1, "noisy_audio"), picture(1, 0, "noisy_audio")):
        heard = [i for i in first if first[i][2][0]]
        assert sum(not torch.equal(first[i][0], other[i][0]) for i in heard) > len(heard) // 2
        seen = [i for i in first if first[i][2][1]]
        assert 0 < sum(not torch.equal(first[i][1], other[i][1]) for i in seen) < len(seen)
    drawn = {media_items(media, *CASES, seed=0).condition(f"train{i:03d}").name for i in range(23)}
    assert drawn == set(CASES)


@unit
def test_noise_ruins_what_the_condition_says_and_nothing_else(media):
    clean = rows(media_items(media), list(range(23)))
    for condition, changed in (("noisy_audio", 0), ("noisy_visual", 1)):
        ruined = rows(media_items(media, condition), list(range(23)))
        for i in clean:
            assert same(ruined[i][1 - changed], clean[i][1 - changed])
        touched = [i for i in clean if absent(i)[changed] and not same(ruined[i][changed], clean[i][changed])]
        assert len(touched) > 0.8 * sum(absent(i)[changed] for i in clean)


@unit
def test_fate_tells_what_happens_to_a_sample(media):
    assert media_items(media).corruption(0) == ("clean", "clean")
    assert media_items(media, "audio_missing").corruption(0) == ("missing", "clean")
    audio, visual = media_items(media, "noisy_both").corruption(3)  # sample 3 has no sound
    assert audio == "absent"
    assert visual in KINDS["visual"]
    black = [i for i in range(23) if media_items(media, "noisy_visual").corruption(i)[1] == "black"]
    floor = SPEC.normalisation.black.expand(3, 32, 32)
    assert black
    for i in range(23):  # what it says is what the item got
        assert torch.equal(media_items(media, "noisy_visual")[i][1], floor) == (i in black)


@unit
def test_inputs_are_normalised_padded_and_cut(media):
    data = ShardDataset(media, "train")
    norm = dataset_normalisation(data.info)
    assert (norm.audio_mean, norm.audio_std, norm.visual_mean) == (-5.0, 2.5, (0.3, 0.3, 0.3))
    long = InputSpec(48, 32, norm)
    audio, visual, *_ = MediaItems(data, LABELS, long)[0]
    stored = torch.from_numpy(data[0].arrays["audio"]).float()
    torch.testing.assert_close(audio[:40], (stored + 5) / 2.5)
    assert (audio[40:] == 2.0).all()  # padded with 0 before it is normalised, as published
    frame = torch.from_numpy(data[0].arrays["frames"][1]).permute(2, 0, 1) / 255
    torch.testing.assert_close(visual, (frame - 0.3) / 0.2)
    torch.testing.assert_close(MediaItems(data, LABELS, SPEC)[0][0], (stored[:32] + 5.081) / 4.4849)


@unit
def test_features_change_their_draw_with_the_epoch_and_read_the_right_row(features):
    data = ShardDataset(features, "train")
    stored = {m: torch.from_numpy(data[0].arrays[m]).float() for m in ("audio", "visual")}
    wanted = {  # case, epoch: rows of [clean, alone-0, alone-1, both-0, both-1] for audio and picture
        ("complete", 1): (0, 0),
        ("noisy_audio", 0): (1, 0),
        ("noisy_audio", 1): (2, 0),
        ("noisy_audio", 2): (1, 0),
        ("noisy_visual", 1): (0, 2),
        ("noisy_both", 0): (3, 3),
        ("noisy_both", 3): (4, 4),
    }
    for (case, epoch), (audio, visual) in wanted.items():
        items = feature_items(features, case)
        items.epoch = epoch
        assert torch.equal(items[0][0], stored["audio"][audio])
        assert torch.equal(items[0][1], stored["visual"][visual])


@unit
def test_a_share_of_the_ruined_modality_is_taken_away(features):
    items, gone, whole = feature_items(features, "noisy_audio", missing=0.5), 0, 0
    for items.epoch in range(6):
        both = [i for i in range(23) if all(absent(i))]
        whole, gone = whole + len(both), gone + sum(not items[i][2][0] for i in both)
    assert 0.35 < gone / whole < 0.65
    assert all(items[i][2][1] == absent(i)[1] for i in range(23))
    assert all(feature_items(features, "complete", missing=1.0)[i][2].tolist() == list(absent(i)) for i in range(23))


@unit
def test_taking_away_never_leaves_a_sample_with_nothing(features):
    """A sample that lacks the other modality at its source keeps what it has."""
    for case in CASES:
        items = feature_items(features, case, missing=1.0)
        assert all(items[i][2].any() for i in range(23)), case


@integration
@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 7, 24])
def test_ranks_together_read_every_sample_and_equally_many(size, world):
    orders = [epoch_order(ids(size), 0, 4, rank=r, world=world) for r in range(world)]
    read = [i for order in orders for i in order]
    assert set(read) == set(range(size))
    assert {len(order) for order in orders} == {-(-size // world)}
    assert len(read) - size < world  # no more repeats than evening out takes
    if world == 1:
        assert sorted(read) == list(range(size))


@unit
def test_the_order_changes_with_epoch_and_seed_alone():
    torch.manual_seed(3)
    first = epoch_order(ids(50), 0, 0).tolist()
    torch.manual_seed(4)
    assert epoch_order(ids(50), 0, 0).tolist() == first
    assert epoch_order(ids(50), 0, 1).tolist() != first != epoch_order(ids(50), 1, 0).tolist()


@unit
def test_an_order_is_that_of_the_mixed_hashes_and_of_equal_ids_the_first_comes_first():
    some = np.concatenate([ids(70_000), ids(5)])  # more than are looked at together
    assert np.array_equal(shuffled(some, "order", 1), np.argsort(mixed(some, "order", 1), kind="stable"))


@unit
def test_a_proportion_is_the_same_subset_in_every_epoch():
    subsets = [set(epoch_order(ids(50), 0, epoch, proportion=0.3).tolist()) for epoch in range(3)]
    assert subsets[0] == subsets[1] == subsets[2]
    assert len(subsets[0]) == 15
    assert set(epoch_order(ids(50), 1, 0, proportion=0.3)) != subsets[0]
    assert subsets[0] < set(epoch_order(ids(50), 0, 0, proportion=0.6))
    assert len(epoch_order(ids(50), 0, 0, proportion=1e-6)) == 1
    ranks = [epoch_order(ids(50), 0, 5, 0.3, rank, 2) for rank in range(2)]
    assert set(ranks[0]) | set(ranks[1]) == subsets[0]


@unit
def test_a_rest_is_dropped_unless_it_is_all_there_is(media):
    items = media_items(media)
    sizes = {drop: [len(b) for b in batches(items, list(range(10)), 4, 0, drop)] for drop in (True, False)}
    assert sizes == {True: [4, 4], False: [4, 4, 2]}
    assert [len(b) for b in batches(items, [1, 2], 4, 0, drop_last=True)] == [2]
    assert list(batches(items, [], 4, 0, drop_last=True)) == []


@unit
@pytest.mark.parametrize("case", CASES)
def test_resident_tokens_give_the_same_batches_to_the_bit(features, case):
    items, kept = (feature_items(features, case, missing=0.4) for _ in range(2))
    kept.make_resident(torch.device("cpu"))
    for epoch in range(3):
        items.epoch = kept.epoch = epoch
        order = epoch_order(ids(23), 0, epoch)
        for drop in (True, False):
            found, wanted = (list(batches(x, order, 5, 0, drop)) for x in (kept, items))
            assert [len(batch) for batch in found] == [len(batch) for batch in wanted]
            for a, b in zip(found, wanted, strict=True):
                assert torch.equal(a.index, b.index)
                assert torch.equal(a.present, b.present)
                assert same(a.audio, b.audio)
                assert same(a.visual, b.visual)
                assert torch.equal(a.label, b.label)


@unit
def test_an_unknown_label_names_sample_file_and_remedy(tmp_path):
    media_dataset(tmp_path, {"train": 4}, label=lambda i: "gong" if i == 2 else LABELS[i % 3])
    with pytest.raises(InputError, match=r"'clip train002'.*'gong'") as error:
        media_items(tmp_path)
    text = str(error.value)
    assert str(tmp_path) in text
    assert "label" in text
    assert "known labels: bell, drum, rain" in text


def batch_of(folder: Path) -> AVBatch:
    return collate([media_items(folder)[i] for i in range(10)])


def rng(seed: int) -> Uniform:
    return lambda n: np.random.default_rng(seed).random((10, n))


@unit
def test_augmentation_keeps_shapes_and_absent_rows_and_repeats(media):
    batch, config = batch_of(media), Augment(rotate=0.5, time_mask=8)
    kept = batch.audio.clone(), batch.visual.clone()
    state = torch.get_rng_state()
    once, again, other = (augment(batch, config, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for modality in (0, 1):
        name = ("audio", "visual")[modality]
        x = getattr(once, name)
        assert x.shape == kept[modality].shape
        there = batch.present[:, modality]
        assert x[~there].isnan().all()
        assert (~there).any()
        assert x[there].isfinite().all()
        assert same(x, getattr(again, name))
        assert not same(x, getattr(other, name))
        assert same(getattr(batch, name), kept[modality])
    assert torch.equal(once.label, batch.label)
    assert torch.equal(once.present, batch.present)


@unit
def test_no_augmentation_changes_nothing(media):
    batch = batch_of(media)
    off = Augment(frequency_mask=0, time_mask=0, time_shift=0, rotate=0, scale=0, shift=0)
    out = augment(batch, off, rng(0))
    assert same(out.audio, batch.audio)
    there = batch.present[:, 1]
    torch.testing.assert_close(out.visual[there], batch.visual[there], atol=1e-4, rtol=0)


@unit
def test_a_mask_is_never_wider_than_asked(media):
    batch = batch_of(media)
    config = Augment(frequency_mask=24, time_mask=6, time_shift=0)
    there = batch.present[:, 0]
    widest = [0, 0]
    for seed in range(30):
        masked = augment(batch, config, rng(seed)).audio[there] == 0
        frames, bins = masked.all(dim=2).sum(dim=1), masked.all(dim=1).sum(dim=1)
        widest = [max(widest[0], int(frames.max())), max(widest[1], int(bins.max()))]
    assert widest == [6, 24]
