"""Options of the published fine-tuning: mixtures, smoothing, balance, rates, averaged weights that resume exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchaudio.compliance import kaldi

from models.batch import AVBatch
from models.inputs import Normalisation
from shards.errors import InputError
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS, media_dataset, media_records, split_info, two_of
from tests.fixtures.tiers import told_by
from tests.test_loop import STEPS, Killed, Log, train
from tests.test_loop import finetune as finetune_config
from tests.test_loop import world as world
from trainers.classification.config import FinetuneConfig
from trainers.classification.items import InputSpec, MediaItems
from trainers.classification.mixup import mixed_sound, partner
from trainers.classification.stages import finetune_stages
from trainers.classification.targets import TargetForm
from trainers.data import epoch_order
from trainers.loop import Rank, train_stage
from trainers.optimisation import Optimisation, halving

unit, integration = pytest.mark.unit, pytest.mark.integration
SPEC = InputSpec(32, 32, Normalisation())


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media shards with waveforms, two labels on every other clip."""
    folder = tmp_path_factory.mktemp("waves")
    media_dataset(folder, {"train": 24, "val": 6}, two_of(LABELS))
    info, splits = DatasetInfo.load(folder), {}
    for split, count in (("train", 24), ("val", 6)):
        records = []
        for i, (key, members) in enumerate(media_records(split, count, two_of(LABELS))):
            if "audio.npy" in members:
                members["wave.npy"] = np.random.default_rng(i).integers(
                    -9000, 9000, 6400 + 160 * (i % 3), dtype=np.int16
                )
            records.append((key, members))
        splits[split] = split_info(folder, split, records, 9)
    info.model_copy(update={"splits": splits, "preprocessing": {"wave": True}}).save(folder)
    return folder


def items(waves: Path, **settings) -> MediaItems:
    form = TargetForm(several=True, smoothing=0.1, shares=True)
    return MediaItems(ShardDataset(waves, "train"), LABELS, SPEC, form=form, seed=3, **settings)


# --- mixtures ----------------------------------------------------------------------------------------------


@unit
def test_a_mixture_of_sounds_is_the_released_one():
    """Each without its mean, the second cut or padded, the mixture without its mean; as the released loader."""
    rng = np.random.default_rng(0)
    for lengths in ((6000, 4800), (4800, 6000)):
        first, second = (rng.integers(-20000, 20000, n, dtype=np.int16) for n in lengths)
        x, y = (torch.from_numpy(w / 32768).float()[None] for w in (first, second))
        x, y = x - x.mean(), y - y.mean()
        padded = torch.zeros_like(x)
        padded[:, : min(lengths)] = y[:, : min(lengths)]
        mixture = 0.3 * x + 0.7 * padded
        mixture = mixture - mixture.mean()
        expected = kaldi.fbank(
            mixture, htk_compat=True, sample_frequency=16000, use_energy=False, window_type="hanning",
            num_mel_bins=128, dither=0.0, frame_shift=10,
        )  # fmt: skip
        torch.testing.assert_close(torch.from_numpy(mixed_sound(first, second, 0.3)), expected, atol=1e-4, rtol=1e-4)


@unit
def test_a_mixed_sample_is_sound_picture_and_labels_by_one_share(waves):
    mixing = items(waves, mixup=1.0)
    plain = items(waves)
    data, seen = plain.data, 0
    for i in range(len(data)):
        audio, visual, present, label, _ = mixing[i]
        drawn = partner(3, 0, data.keys[i], 1.0, len(data))
        assert drawn is not None
        other, share = int(np.argsort(plain.ids)[drawn[0]]), drawn[1]
        both = [data.metas[j].audio.present and data.metas[j].visual.present for j in (i, other)]
        if not all(both):
            if both[0] != both[1]:
                assert torch.equal(label, plain[i][3])  # nothing stands in for what one of them lacks
            continue
        seen += 1
        torch.testing.assert_close(visual, share * plain[i][1] + (1 - share) * plain[other][1])
        wanted = torch.zeros(3)
        for j, part in ((i, share), (other, 1 - share)):
            for name in data.metas[j].labels:
                wanted[LABELS.index(name)] += 0.9 * part
        torch.testing.assert_close(label, wanted + 0.1 / 3)
        assert present.all()
        assert audio.isfinite().all()
    assert seen > 5


@integration
def test_nothing_is_mixed_in_that_is_not_trained_on(waves, tmp_path, monkeypatch):
    (stage,) = finetune_stages(finetune_config(tmp_path, data=waves, mixup=1.0, proportion=0.3))
    mixing, read, rows = stage.train, Counter[int](), ShardDataset.rows
    monkeypatch.setattr(ShardDataset, "rows", lambda self, i, choose: (read.update([i]), rows(self, i, choose))[1])
    trained = epoch_order(mixing.ids, 0, 0, proportion=0.3).tolist()
    for mixing.epoch in range(6):
        for i in trained:
            mixing[i]
    assert set(read) == set(trained)
    assert read.total() > 6 * len(trained), "of mixtures both are read"


@unit
def test_a_clip_that_comes_again_in_an_epoch_has_draws_of_its_own(waves):
    """Frame, noise, mixture, grain and augmentation; the first time they are those of a clip that comes once."""
    changes = {"conditions": ("noisy_both",), "mixup": 1.0, "grain": 0.1, "random_frame": True}
    mixing, once, count = items(waves, **changes), items(waves, **changes), 24
    both = np.flatnonzero(mixing.data.present.all(axis=1)).tolist()
    for i in both:
        times = [mixing[i + count * time] for time in range(3)]
        assert all(torch.equal(x, y) for x, y in zip(times[0], once[i], strict=True))
        assert not any(torch.equal(times[a][m], times[b][m]) for a, b in ((0, 1), (0, 2), (1, 2)) for m in (0, 1))
        assert [int(time[4]) for time in times] == [i, i + count, i + 2 * count]
    positions = np.array([both[0], both[1], both[0] + count, both[0] + 2 * count])
    drawn = mixing.drawn_by(positions)
    assert drawn[:2].tolist() == mixing.ids[both[:2]].tolist()
    assert len(set(drawn.tolist())) == 4


@integration
def test_balanced_training_meets_no_clip_twice_alike(waves, tmp_path):
    config = finetune_config(tmp_path, data=waves, balanced=True, noisy=False, epochs=1, batch_size=24)
    (stage,) = finetune_stages(config)
    stage.train.weights = np.where(np.arange(24) % 3, 0.0, 1.0)  # a third of the clips alone
    met: list[AVBatch] = []
    stage.objective.register_forward_pre_hook(lambda _, given: met.extend(given))
    train_stage(replace(stage, val=None), config, Rank(), tmp_path, Log())
    (batch,) = met
    assert set((batch.index % 24).tolist()) <= set(range(0, 24, 3))
    pairs = zip(batch.audio.numpy(), batch.visual.numpy(), strict=True)
    assert len({(sound.tobytes(), picture.tobytes()) for sound, picture in pairs}) == 24


@unit
def test_who_is_mixed_with_whom_is_seeded_by_the_sample():
    shares = [partner(0, epoch, f"clip {i}", 0.5, 100) for epoch in range(4) for i in range(250)]
    assert shares == [partner(0, epoch, f"clip {i}", 0.5, 100) for epoch in range(4) for i in range(250)]
    drawn = [share for _, share in filter(None, shares)]
    assert 420 < len(drawn) < 580
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)
    assert np.std(drawn) == pytest.approx((1 / (4 * 21)) ** 0.5, abs=0.01)  # of Beta(10, 10)


@integration
def test_mixing_needs_waveforms(world):
    with pytest.raises(InputError, match="keep_wave=true"):
        finetune_stages(finetune_config(world, mixup=0.5))


@unit
def test_grain_is_added_within_its_bounds(waves):
    plain, noisy = items(waves), items(waves, grain=0.1)
    change = noisy[0][0] - plain[0][0]
    assert change.min() >= 0
    assert 0 < change.max() <= 0.1
    assert torch.equal(noisy[0][0], items(waves, grain=0.1)[0][0])


# --- order, rates ------------------------------------------------------------------------------------------


@unit
def test_balanced_orders_draw_by_weight():
    weights = np.array([1.0, 0.0, 3.0, 6.0])
    counts = np.zeros(4)
    for epoch in range(500):
        order = epoch_order(hashed(map(str, range(4))), 0, epoch, weights=weights)
        assert len(order) == 4
        assert all(sorted(order[order % 4 == i] // 4) == list(range((order % 4 == i).sum())) for i in range(4))
        counts += np.bincount(order % 4, minlength=4)
    assert counts[1] == 0
    assert counts / counts.sum() == pytest.approx(weights / 10, abs=0.04)
    ranks = [epoch_order(hashed(map(str, range(4))), 0, 7, rank=r, world=2, weights=weights) for r in range(2)]
    whole = epoch_order(hashed(map(str, range(4))), 0, 7, weights=weights)
    assert [i for pair in zip(*ranks, strict=True) for i in pair] == whole.tolist()


@unit
def test_rates_halve_as_the_released_schedule_does():
    net = nn.Linear(1, 1)
    theirs = torch.optim.SGD(net.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(theirs, list(range(2, 1000)), gamma=0.5)
    factor = halving(steps=5, after=2)
    for epoch in range(6):
        assert [factor(5 * epoch + step) for step in range(5)] == [theirs.param_groups[0]["lr"]] * 5
        theirs.step()
        schedule.step()


@integration
def test_the_head_learns_faster(world):
    config = finetune_config(world, head_lr=10.0, lr=1e-3)
    (stage,) = finetune_stages(config)
    slow, fast = stage.optimisation.groups(stage.objective, config.lr)
    assert (slow["lr"], fast["lr"]) == pytest.approx((1e-3, 1e-2))
    named = {id(p): n for n, p in stage.objective.named_parameters()}
    assert sorted(named[id(p)] for p in fast["params"]) == [
        "net.mlp_head.0.bias", "net.mlp_head.0.weight", "net.mlp_head.1.bias", "net.mlp_head.1.weight",
    ]  # fmt: skip
    assert len(slow["params"]) + 4 == len(named)
    assert len(Optimisation().groups(stage.objective, 1.0)) == 1


# --- averaged weights --------------------------------------------------------------------------------------


@integration
def test_the_result_is_the_mean_of_the_epochs_weights(world, tmp_path):
    """Of three epochs, the mean of the last two, each as a run that ended there has it."""
    own = {"halve_after": 3, "noisy": False}  # a constant rate: an epoch is the same however many follow
    ends = [train(finetune_config(world, epochs=n, **own), tmp_path / str(n))[0] for n in (2, 3)]
    found, _ = train(finetune_config(world, epochs=3, average_from=2, **own), tmp_path / "mean")
    for name, x in found.items():
        torch.testing.assert_close(x, (ends[0][name] + ends[1][name]) / 2, atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(x, ends[1][name]) for name, x in found.items())


@pytest.mark.parametrize("step", told_by((STEPS + 2).__eq__, [1, STEPS + 2, 2 * STEPS + 1], pytest.mark.integration))
def test_averaged_weights_resume_to_the_bit(world, tmp_path, step):
    config = finetune_config(world, epochs=3, average_from=1, balanced=True, save_steps=1)
    whole, log = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", killed_at=step)
    resumed, later = train(config, tmp_path / "killed")
    assert all(torch.equal(x, whole[name]) for name, x in resumed.items())
    keys = ("loss", "val_loss", "val_accuracy")
    assert [later[-1][2][k] for k in keys] == [log[-1][2][k] for k in keys]


@unit
def test_everything_at_once_trains(waves, tmp_path):
    config = FinetuneConfig.model_validate(
        {
            "data": waves, "epochs": 2, "batch_size": 8, "backbone": {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 1,
            "target_length": 32, "image_size": 32}, "smoothing": 0.1, "mixup": 0.5, "balanced": True, "average_from": 1,
            "head_lr": 10, "halve_after": 1, "betas": (0.95, 0.999), "augment": {"grain": 0.1},
        }
    )  # fmt: skip
    _, log = train(config, tmp_path)
    assert 0 < log[-1][2]["val_mAP"] <= 1
    single = config.model_copy(update={"loss": "ce"})
    with pytest.raises(InputError, match="2 labels"):
        finetune_stages(single)


@unit
def test_an_average_that_never_begins_is_refused():
    with pytest.raises(ValueError, match="beyond the last of 10 epochs"):
        FinetuneConfig(data=Path(), average_from=11)
