"""The detector of what is ruined: it separates on held-out samples, and repeats to the bit."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.cavmae import CAVMAE
from models.detector import QualityDetector, token_statistics
from models.inputs import Normalisation
from models.noise import ruin
from models.settings import BACKBONES, NoiseConfig
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.schema import BackboneInfo, DatasetInfo
from shards.writer import Record
from tests.fixtures.builders import LABELS, SMALL, feature_dataset, meta, split_info
from tests.fixtures.tiers import told_by
from tests.test_loop import case_wise
from tests.test_loop import world as world
from trainers.classification.detector import fit_detector, load_detector, save_detector
from trainers.data import shuffled_subset

unit, integration = pytest.mark.unit, pytest.mark.integration

TINY, NORM = BACKBONES["tiny"], Normalisation()


@cache
def sound(i: int) -> Tensor:
    """A synthetic log-mel, normalised: harmonics that start and decay at random over a noise floor."""
    rng = np.random.default_rng([i, 0])
    frames = np.arange(TINY.target_length)[:, None]
    x = rng.normal(-9, 0.7, (TINY.target_length, 128))
    for _ in range(4):
        onset, pitch = rng.integers(0, 150), rng.uniform(10, 110)
        envelope = np.where(frames >= onset, np.exp(-(frames - onset) / rng.uniform(20, 80)), 0)
        x += 7 * envelope * np.exp(-(((np.arange(128) - pitch) / rng.uniform(2, 8)) ** 2))
    return NORM.fbank(x.astype(np.float16), TINY.target_length)


@cache
def picture(i: int) -> Tensor:
    """A synthetic picture, normalised: a coloured gradient with rectangles and some grain."""
    rng = np.random.default_rng([i, 1])
    y, x = np.mgrid[:96, :96] / 96
    image = np.stack([128 + 90 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) for _ in range(3)], axis=-1)
    for _ in range(5):
        top, left = rng.integers(0, 80, 2)
        high, wide = rng.integers(8, 40, 2)
        image[top : top + high, left : left + wide] = rng.integers(0, 255, 3)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return NORM.picture(image[None], 0, 96)


@lru_cache
def net() -> CAVMAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CAVMAE(TINY, 4).eval()


@torch.no_grad()
def tokens(modality: str, ruined: bool, which: range, severity: int = 5) -> Tensor:
    """Tiny-backbone tokens before block 1 of clean or ruined samples."""
    inputs = [sound(i) if modality == "audio" else picture(i) for i in which]
    if ruined:
        inputs = [
            ruin(x, modality, severity, NoiseConfig(), 0, str(i), 0, floor=NORM.black)[0]
            for i, x in zip(which, inputs, strict=True)
        ]
    return net().encode(modality, net().embed(modality, torch.stack(inputs)), stop=1)  # type: ignore[arg-type]


def fitted(modality: str, clean: Tensor, noisy: Tensor) -> tuple[QualityDetector, float]:
    torch.manual_seed(0)
    detector = QualityDetector(clean.shape[-1])
    both = torch.cat([token_statistics(clean), token_statistics(noisy)])
    ruined = torch.arange(len(both)) >= len(clean)
    return detector, detector.fit(modality, both, ruined)  # type: ignore[arg-type]


@torch.no_grad()
def balanced(detector: QualityDetector, modality, clean: Tensor, noisy: Tensor) -> float:
    wrong = (detector(modality, clean) > 0).float().mean() + (detector(modality, noisy) <= 0).float().mean()
    return 1 - float(wrong) / 2


@pytest.mark.parametrize(
    ("modality", "bound"),
    told_by(lambda case: case[0] == "audio", [("audio", 0.8), ("visual", 0.85)], pytest.mark.integration),
)
def test_it_separates_clean_from_ruined_on_held_out_samples(modality, bound):
    """Measured (200 samples to train on, 60 held out): audio .89, visual .95. What it misses are shifts in
    time, a third of the audio noise: they leave a sound that could have been recorded so."""
    train, test = range(200), range(200, 260)
    detector, accuracy = fitted(modality, tokens(modality, False, train), tokens(modality, True, train))
    held_out = balanced(detector, modality, tokens(modality, False, test), tokens(modality, True, test))
    print(modality, accuracy, held_out)
    assert held_out > bound


def synthetic(n: int, noise: float, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    smooth = torch.randn(n, 20, 16, generator=rng).cumsum(dim=1) / 4 + torch.randn(n, 1, 16, generator=rng)
    return smooth + noise * torch.randn(n, 20, 16, generator=rng)


@unit
def test_synthetic_tokens_are_told_apart_and_classes_weigh_the_same():
    """Twenty times as many clean as noisy samples: the noisy ones must not be written off."""
    detector, accuracy = fitted("audio", synthetic(400, 0.0, 0), synthetic(20, 0.7, 1))
    assert accuracy == pytest.approx(1.0)
    assert balanced(detector, "audio", synthetic(200, 0.0, 2), synthetic(200, 0.7, 3)) > 0.97


@integration
def test_fitting_repeats_to_the_bit_and_leaves_the_other_probe():
    first, second = (fitted("visual", synthetic(60, 0.0, 0), synthetic(60, 0.5, 1))[0] for _ in range(2))
    torch.manual_seed(0)
    fresh = QualityDetector(16).state_dict()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        untouched = "audio" in name or name.startswith("threshold")  # only calibrate sets a threshold
        assert torch.equal(tensor, fresh[name]) == untouched, name


@unit
def test_calibration_bounds_false_alarms():
    """Noise so mild that the balanced fit calls many clean samples ruined: after calibration few are."""
    detector, _ = fitted("audio", synthetic(200, 0.0, 0), synthetic(200, 0.03, 1))
    fresh = synthetic(400, 0.0, 2)
    before = float((detector("audio", fresh) > 0).float().mean())
    detector.calibrate("audio", token_statistics(synthetic(400, 0.0, 3)))
    after = float((detector("audio", fresh) > 0).float().mean())
    print(before, after)
    assert after < 0.06
    assert after < before


@unit
def test_it_survives_saving():
    detector, _ = fitted("visual", synthetic(60, 0.0, 0), synthetic(60, 0.5, 1))
    again = QualityDetector(16)
    again.load_state_dict(detector.state_dict())
    x = synthetic(5, 0.2, 7)
    assert torch.equal(again("visual", x), detector("visual", x))


@unit
def test_statistics_are_of_each_sample_alone():
    x = synthetic(4, 0.3, 0)
    assert token_statistics(x).shape == (4, 48)
    torch.testing.assert_close(token_statistics(x[[2]])[0], token_statistics(x)[2], atol=1e-6, rtol=0)
    mean, spread, _ = token_statistics(x)[1].chunk(3)
    torch.testing.assert_close(mean, x[1].mean(dim=0))
    torch.testing.assert_close(spread.exp(), x[1].std(dim=0))


@unit
def test_one_class_alone_is_refused():
    statistics = token_statistics(synthetic(4, 0.0, 0))
    for ruined in (torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="both classes"):
            QualityDetector(16).fit("audio", statistics, ruined)


@integration
def test_a_fitted_detector_goes_to_disk_and_back(tmp_path):
    feature_dataset(tmp_path / "features", {"train": 12}, SMALL, "f" * 64)
    detector, accuracy = fit_detector(ShardDataset(tmp_path / "features", "train"), seed=0)
    save_detector(tmp_path / "run", detector, 0, accuracy)
    again = load_detector(tmp_path / "run")
    assert set(accuracy) == {"audio", "visual"}
    x = torch.randn(3, 16, SMALL.dim, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again("audio", x), detector("audio", x))


def features_of(folder: Path, pictures: Collection[int], clips: int = 60) -> ShardDataset:
    """Feature shards of clips that all have sound, and a picture where it says so."""
    records: list[Record] = []
    for i in range(clips):
        rng = np.random.default_rng([i, clips])
        key, there = f"train{i:03d}", {"audio": True, "visual": i in pictures}
        tokens = {f"{m}.npy": rng.normal(0, 1, (3, 6, 8)).astype(np.float16) for m in there if there[m]}
        records.append((key, {"json": meta(key, LABELS[0], "train", *there.values()), **tokens}))
    splits = {"train": split_info(folder, "train", records, clips)}
    made_by = BackboneInfo(id="small", fingerprint="f" * 64, depth=0, variants=("clean", "alone0", "both0"))
    DatasetInfo(kind="features", preprocessing={}, labels=LABELS, splits=splits, backbone=made_by).save(folder)
    return ShardDataset(folder, "train")


@unit
@pytest.mark.parametrize(("places", "fitted"), [((0, 1, 2), True), ((0, 1, 59), True), ((0,), False)])
def test_a_modality_that_few_samples_have_is_fitted_to_all_of_them_or_never_ruined(tmp_path, capsys, places, fitted):
    """Those that have it come first in the seeded order, of which the first quarter sets thresholds."""
    order = shuffled_subset(hashed([f"train{i:03d}" for i in range(60)]), 0, 1.0, "detector")
    detector, accuracy = fit_detector(features_of(tmp_path / "features", order[list(places)].tolist()), seed=0)
    assert set(accuracy) == ({"audio", "visual"} if fitted else {"audio"})
    assert detector.threshold_audio.isfinite()
    save_detector(tmp_path / "run", detector, 0, accuracy)
    again, said = load_detector(tmp_path / "run"), capsys.readouterr().err
    if fitted:
        assert said == ""
        assert again.threshold_visual.isfinite()
        assert accuracy["visual"] > 0.9
    else:
        tokens = torch.randn(400, 6, 8, generator=torch.Generator().manual_seed(0)) * 10
        assert (
            said == "note: fewer than 2 train clips with a picture to fit the detector to: it never calls that ruined\n"
        )
        assert not (again("visual", tokens) > 0).any()


@integration
def test_a_detector_reads_nothing_that_is_not_trained_on(world, tmp_path, monkeypatch):
    from trainers.classification.config import PromptConfig
    from trainers.classification.stages import make_detector
    from trainers.data import epoch_order

    read, each = list[int](), ShardDataset.each
    monkeypatch.setattr(ShardDataset, "each", lambda self, rows: (read.extend(rows), each(self, rows))[1])
    make_detector(case_wise(PromptConfig, world, seed=3, proportion=0.5), tmp_path)
    ids = hashed(ShardDataset(world / "features", "train").keys)
    assert sorted(read) == sorted(epoch_order(ids, 3, 0, proportion=0.5).tolist())
