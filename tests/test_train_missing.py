"""Missing modality in training: the table by its statistics, and that what it takes away is never seen by anything."""

from __future__ import annotations

import csv
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.avqa.batch import AVQABatch
from shards.errors import InputError
from tests.fixtures import asking
from tests.fixtures.asking import RECOVERY_SIZES, RMM, asking_world, question_stages, settings
from trainers.avqa.config import AnyRecoveryConfig, AVQAConfig, AVRConfig, RMMConfig, TrainMissing
from trainers.avqa.masks import Draws, draw, lacking
from trainers.avqa.objective import AnswerLoss
from trainers.avqa.stages import World
from trainers.identity import content_settings
from trainers.job import prepare
from trainers.loop import Rank, train_stage, validate

unit, integration = pytest.mark.unit, pytest.mark.integration
IDS = [f"clip {i}" for i in range(10_000)]
HALF = {"audio": 50, "visual": 50, "balanced": True}  # no complete clip is left
SOME = {"audio": 30, "visual": 40}
CLIPS = 20
METHODS = [("avst", name) for name in asking.RECOVERY_SIZES]
METHODS += [(name, "masking") for name in asking.SIZES if name != "avst"]


@cache
def drawn(seed: int, apart: bool) -> Draws:
    return draw(seed, IDS, apart)


def counts(table: dict[str, tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    found = list(table.values())
    return {of: found.count(of) for of in {("audio",), ("visual",), ("audio", "visual")}}


@unit
@pytest.mark.parametrize("rates", [(30, 30), (10, 60), (45, 45), (0, 90)])
def test_clips_lack_each_modality_at_its_rate_and_never_both(rates):
    """Within five standard deviations of a binomial count."""
    found = counts(lacking(drawn(0, True), dict(zip(("audio", "visual"), rates, strict=True))))
    assert found["audio", "visual"] == 0
    for m, rate in zip(("audio", "visual"), rates, strict=True):
        p = rate / 100
        assert abs(found[(m,)] - 10_000 * p) <= 5 * (10_000 * p * (1 - p)) ** 0.5


@unit
def test_with_both_the_modalities_are_independent():
    found = counts(lacking(drawn(0, False), {"audio": 60, "visual": 70}))
    expected = {("audio",): 0.6 * 0.3, ("visual",): 0.4 * 0.7, ("audio", "visual"): 0.6 * 0.7}
    for of, p in expected.items():
        assert abs(found[of] - 10_000 * p) <= 5 * (10_000 * p * (1 - p)) ** 0.5


@unit
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_tables_are_nested_in_the_rate_and_seeded(balanced, apart):
    draws, some = draw(1, IDS[:500], apart), draw(2, IDS[:500], apart)
    tables = [lacking(draws, {"audio": r, "visual": r}, balanced) for r in (0, 15, 30, 50)]
    assert tables[0] == {}
    for less, more in pairwise(tables):
        assert len(less) < len(more)
        assert all(set(of) <= set(more[clip]) for clip, of in less.items())
    assert lacking(some, {"audio": 15, "visual": 15}, balanced) != tables[1]


@unit
@pytest.mark.parametrize(("clips", "rate", "each"), [(500, 15, 75), (7, 50, 3), (9, 10, 0), (1000, 30, 300)])
def test_balanced_is_exact(clips, rate, each):
    found = counts(lacking(draw(0, IDS[:clips], apart=True), {"audio": rate, "visual": rate}, balanced=True))
    assert found == {("audio",): each, ("visual",): each, ("audio", "visual"): 0}


@unit
def test_a_clip_s_lot_depends_on_seed_and_clip_alone():
    rates = {"audio": 30, "visual": 30}
    whole, few = (lacking(of, rates) for of in (drawn(0, True), draw(0, IDS[100:0:-1], apart=True)))
    assert few == {clip: of for clip, of in whole.items() if clip in IDS[1:101]}


@unit
@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"audio": 60, "visual": 50}, ["110 %", "both=true"]),
        ({"audio": 101}, ["audio", "100"]),
        ({"audio": 20, "balanced": True}, ["audio (20)", "visual (0)", "equal"]),
        ({"sound": 20}, ["sound"]),
    ],
)
def test_rates_that_can_not_be_are_refused(given, parts):
    with pytest.raises(ValueError) as error:
        TrainMissing(**given)
    assert [part for part in parts if part not in str(error.value)] == []
    TrainMissing(audio=60, visual=50, both=True)


# What is taken away never reaches anything.


def taken_away(rates: dict[str, Any], clips: int = CLIPS) -> dict[str, tuple[str, ...]]:
    config = TrainMissing(**rates)
    names = [f"clip train{i:03d}" for i in range(clips)]
    return lacking(draw(config.seed, names, apart=not config.both), config.rates, config.balanced)  # type: ignore


def world(folder: Path, monkeypatch: pytest.MonkeyPatch, gone: dict[str, tuple[str, ...]], scale: float) -> Path:
    """Clips without gaps; where `gone`, other content, far away: statistics of all clips would tell."""
    true_features = asking.features

    def other(i: int, split: str, noise: float = 0.5) -> dict[str, np.ndarray]:
        arrays, rng = true_features(i, split, noise), np.random.default_rng(i)
        for m in gone.get(f"clip {split}{i:03d}", ()):
            arrays[m] = (scale * rng.normal(5, 1, arrays[m].shape)).astype(np.float16)
        return arrays

    with monkeypatch.context() as patch:
        patch.setattr(asking, "features", other)
        asking_world(folder, {"train": CLIPS, "val": 6}, gaps=False)
    return folder


def trained(root: Path, network: str, recovery: str, rates: dict[str, Any], **more: Any) -> list[Tensor]:
    """Losses of steps on batches of eight, and the weights after them."""
    (stage,) = question_stages(AVQAConfig(**settings(root, network, recovery, train_missing=rates, **more)))
    objective, out = stage.objective.train(), []
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    for step in range(2):
        batch = stage.train.batch([(8 * step + 5 * i) % len(stage.train) for i in range(8)])
        torch.manual_seed(step)
        loss = objective(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.detach())
    return [*out, *(x.clone() for x in stage.weights().values())]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips three times: what `SOME` takes away is other in the second; in the third so is one that is there."""
    patch, gone, folder = pytest.MonkeyPatch(), taken_away(SOME), tmp_path_factory.mktemp("worlds")
    seen = next(f"clip train{i:03d}" for i in range(CLIPS) if f"clip train{i:03d}" not in gone)
    versions = {"one": (gone, 1.0), "other": (gone, 90.0), "third": ({**gone, seen: ("audio",)}, 90.0)}
    return {name: world(folder / name, patch, *version) for name, version in versions.items()}


@integration
@pytest.mark.parametrize(("network", "recovery"), METHODS)
def test_the_content_of_what_is_missing_changes_no_bit_of_training(worlds, network, recovery):
    """Losses and weights: not by features, statistics, the bank, slots, frames of other clips or targets of losses."""
    more = {"memorise": True} if recovery in ("rmm", "rmm_avr") else {}
    one, other = (trained(worlds[name], network, recovery, SOME, **more) for name in ("one", "other"))
    assert all(x.isfinite().all() for x in one)
    assert equal(one, other)


@unit
def test_the_test_sees_what_is_there(worlds):
    one, third = (trained(worlds[name], "avst", "rmm", SOME) for name in ("one", "third"))
    assert not equal(one, third)
    assert not equal(one, trained(worlds["other"], "avst", "rmm", {}))


@unit
def test_mapped_shards_give_what_resident_ones_do(worlds):
    one, other = (trained(worlds["other"], "avst", "rmm", SOME, resident=kept) for kept in (True, False))
    assert equal(one, other)


@unit
@pytest.mark.parametrize("resident", [True, False])
def test_nothing_missing_is_read(worlds, resident, monkeypatch):
    """Of every read of a training clip, whether it was allowed."""
    from trainers.avqa.clips import Clips

    gone, views = taken_away(SOME), []
    true_views = Clips._views

    def noted(self: Clips, modality: Any, clip: int, step: int | None) -> Any:
        views.append((modality, clip))
        return true_views(self, modality, clip, step)

    monkeypatch.setattr(Clips, "_views", noted)
    config = AVQAConfig(**settings(worlds["one"], "avst", "retrieval", train_missing=SOME, resident=resident))
    (stage,) = question_stages(config)
    stage.train.batch(range(len(stage.train)))
    clips = stage.train.clips  # type: ignore[attr-defined]
    wrong = {(m, clips.number[clip]) for clip, of in gone.items() for m in of}
    assert wrong
    assert views
    assert wrong.isdisjoint(views)


@unit
def test_a_batch_holds_nan_where_the_table_says_and_validation_is_whole(worlds):
    (stage,) = question_stages(AVQAConfig(**settings(worlds["one"], train_missing=SOME)))
    batch, gone = stage.train.batch(range(len(stage.train))), taken_away(SOME)
    assert isinstance(batch, AVQABatch)
    for i, question in enumerate(stage.train.questions):  # type: ignore[attr-defined]
        lacks = [m in gone.get(question.clip, ()) for m in ("audio", "visual")]
        assert batch.present[i].tolist() == [not lost for lost in lacks]
        assert [x[i].isnan().all().item() for x in (batch.audio, batch.visual)] == lacks
        assert [x[i].isnan().any().item() for x in (batch.audio, batch.visual)] == lacks
    assert batch.negative is not None
    assert batch.negative.isfinite().all(), "frames of other clips are those that are there"
    assert stage.val is not None
    assert stage.val.batch(range(len(stage.val))).present.all()


@unit
def test_features_are_standardised_by_what_is_there(worlds):
    (stage,) = question_stages(AVQAConfig(**settings(worlds["other"], train_missing=SOME)))
    gone = taken_away(SOME)
    there = [i for i in range(CLIPS) if "visual" not in gone.get(f"clip train{i:03d}", ())]
    pictures = [asking.features(i, "train")["visual"].astype(np.float64) for i in there]
    rows = np.concatenate([x.reshape(-1, x.shape[-1]) for x in pictures])
    mean, deviation = stage.meta["scale"]["visual"]
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(deviation, rows.std(axis=0), rtol=1e-9)


# Where the table leaves a kind of sample empty.


@unit
@pytest.mark.parametrize(("network", "recovery"), [pair for pair in METHODS if pair[1] != "retrieval"])
def test_without_any_complete_clip_every_method_trains_by_what_it_has(worlds, network, recovery):
    (stage,) = question_stages(AVQAConfig(**settings(worlds["one"], network, recovery, train_missing=HALF)))
    assert isinstance(stage.objective, AnswerLoss)
    batch = stage.train.batch(range(24))
    assert not batch.present.all(dim=1).any()
    output = stage.objective.train()(batch)
    output.loss.backward()
    grads = [p.grad for p in stage.objective.parameters() if p.grad is not None]
    assert all(x.isfinite().all() for x in (output.loss, *grads))
    assert any(x.abs().sum() > 0 for x in grads)
    figures = set(output.metrics)
    paired = {"rmmr", "ave", "match", "shared_l1", "reconstruction", "divergence", "ranking", "ce_audio_missing"}
    assert "ce_complete" in figures
    assert not figures & paired


@unit
@pytest.mark.parametrize("alternate", [False, True], ids=["either in each", "in turns"])
@pytest.mark.parametrize(("network", "recovery"), [("avst", "dropout"), ("avst", "rmm"), ("avst_drfuse", "masking")])
def test_every_sample_weighs_the_same_however_few_are_complete(worlds, network, recovery, alternate):
    """What a batch minimises is the mean of what each of its samples would minimise alone. With turns, of a batch in
    which every sample stands twice, once for either turn."""
    sizes = {"recovery_sizes": RMM} if recovery == "rmm" else {}
    made = settings(worlds["one"], network, recovery, train_missing={"audio": 40, "visual": 40}, **sizes)
    (stage,) = question_stages(AVQAConfig(**made, distillation=0.5))
    objective = stage.objective.eval()
    assert isinstance(objective, AnswerLoss)
    rows = range(24)
    whole = stage.train.batch(rows).present.all(dim=1)
    assert 0 < whole.sum() < len(rows) / 2
    alone = [objective(stage.train.batch([i])).loss.item() for i in rows]
    objective.alternate_missing = alternate
    drawn = [i for i in rows for _ in range(2)] if alternate else rows
    assert objective(stage.train.batch(drawn)).loss.item() == pytest.approx(np.mean(alone), rel=1e-5)


@unit
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"recovery": "retrieval", "recovery_sizes": RECOVERY_SIZES["retrieval"], "train_missing": HALF}, ["both"]),
        ({"recovery": "rmm", "recovery_sizes": RMM, "memorise": True, "train_missing": HALF}, ["memorise"]),
        ({"train_missing": {"audio": 100, "visual": 100, "both": True}}, ["'train_missing'", "nothing could train"]),
        ({"train_missing": {"visual": 100}, "absent": "audio"}, ["'train_missing'", "nothing could train"]),
        ({"train_missing": {"visual": 100}}, ["weights.match=0"]),
    ],
)
def test_what_could_not_train_is_refused(worlds, changes, parts):
    with pytest.raises(InputError) as error:
        question_stages(AVQAConfig(**settings(worlds["one"]) | changes))
    assert [part for part in [*parts, "remedy: "] if part not in str(error.value)] == []


@unit
@pytest.mark.parametrize("kind", [RMMConfig, AVRConfig])
def test_a_method_alone_needs_complete_clips(worlds, kind):
    taken = {k: v for k, v in settings(worlds["one"]).items() if k in ("data", "questions", "batch_size", "workers")}
    config = kind(**taken, sizes=RMM if kind is RMMConfig else asking.AVR, train_missing=HALF)
    with pytest.raises(InputError, match="no training clip has both modalities"):
        question_stages(config)
    (stage,) = question_stages(config.model_copy(update={"train_missing": TrainMissing(**SOME)}))
    assert stage.objective(stage.train.batch(range(24))).loss > 0


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of which a third lacks a modality at the source, of both splits."""
    folder = tmp_path_factory.mktemp("gaps")
    asking_world(folder, {"train": 18, "val": 18})
    return folder


def alone(root: Path, recovery: str, **more: Any) -> AnyRecoveryConfig:
    values = {k: v for k, v in settings(root).items() if k in ("data", "questions", "epochs", "workers", "cpus")}
    return AnyRecoveryConfig(**values, recovery=recovery, sizes=RECOVERY_SIZES[recovery], **more)


@integration
@pytest.mark.parametrize(("recovery", "size"), [("rmm", 1), ("rmm", 2), ("avr", 1), ("shaspec", 2), ("actionmae", 1)])
def test_a_method_alone_trains_by_every_complete_clip_and_no_other(gaps, tmp_path, recovery, size):
    """However small the batches, and however few of the clips are complete; three questions are about each."""
    rates, log = {"audio": 45, "visual": 45}, dict[str, float]()
    config = alone(gaps, recovery, train_missing=rates, batch_size=size)
    (stage,) = question_stages(config)
    train_stage(stage, config, Rank(), tmp_path, lambda name, epoch, metrics: log.update(metrics))
    gone = taken_away(rates, 18)
    left = [i for i in range(18) if all(asking.there(i)) and f"clip train{i:03d}" not in gone]
    assert 0 < len(left) < 9
    assert log["samples"] == 3 * len(left) // size * size
    assert np.isfinite([log["loss"], log["val_loss"]]).all()


@unit
@torch.no_grad()
def test_the_validation_loss_of_a_method_alone_is_the_mean_over_complete_clips(gaps):
    """By hand, whatever the batches: RMMR of each, its squared errors recalled from the other modality."""
    config = alone(gaps, "rmm", batch_size=2)
    (stage,) = question_stages(config)
    items = World.of(config).val_items(0)
    assert items is not None
    batch, method = stage.objective.standardise(items.batch(range(54))), stage.objective.recovery
    errors = []
    for i in (j for j in range(54) if batch.present[j].all()):
        heard, seen, asked = batch.audio[[i]], batch.visual[[i]], batch.question[[i]]
        recalled = method.recall("audio", seen, asked), method.recall("visual", heard, asked)
        errors.append(sum((x - y).square().mean().item() for x, y in zip(recalled, (heard, seen), strict=True)))
    assert len(errors) == 3 * sum(all(asking.there(i)) for i in range(18))
    assert validate(stage, config, Rank())["val_loss"] == pytest.approx(np.mean(errors), rel=1e-5)


@unit
def test_a_method_alone_says_what_it_leaves_out_and_standardises_as_a_network_does(gaps, tmp_path):
    """So that a network may start from it."""
    rates = {"audio": 30, "visual": 30}
    config = alone(gaps, "rmm", train_missing=rates)
    notes = prepare(config, tmp_path).notes
    incomplete = 18 - sum(all(asking.there(i)) for i in range(18))
    assert sum("questions are about clips without sound or picture" in note for note in notes) == 2
    assert any(note.startswith(f"{3 * incomplete} validation questions") for note in notes)
    (method,) = question_stages(config)
    (network,) = question_stages(AVQAConfig(**settings(gaps, "avst", "rmm", train_missing=rates)))
    assert method.meta["scale"] == network.meta["scale"]


@unit
def test_clips_that_lack_both_are_left_out_and_specialists_are_as_before(worlds):
    both = {"audio": 50, "visual": 50, "both": True}
    (stage,) = question_stages(AVQAConfig(**settings(worlds["one"], train_missing=both)))
    gone = taken_away(both)
    kept = {q.clip for q in stage.train.questions}  # type: ignore[attr-defined]
    assert kept == {f"clip train{i:03d}" for i in range(CLIPS)} - {c for c, of in gone.items() if len(of) == 2}
    assert len(kept) < CLIPS
    (deaf,) = question_stages(AVQAConfig(**settings(worlds["one"], absent="audio", train_missing={"audio": 40})))
    (plain,) = question_stages(AVQAConfig(**settings(worlds["one"], absent="audio")))
    assert len(deaf.train) == len(plain.train) == 3 * CLIPS
    assert equal([deaf.train.batch([0, 5, 9]).visual], [plain.train.batch([0, 5, 9]).visual])


@unit
def test_clips_that_have_one_modality_alone_keep_it(tmp_path):
    asking_world(tmp_path, {"train": 27})  # three are silent, three dark
    (plain,) = question_stages(AVQAConfig(**settings(tmp_path)))
    (stage,) = question_stages(AVQAConfig(**settings(tmp_path, train_missing={"audio": 45, "visual": 45})))
    before, after = (s.train.batch(range(81)).present for s in (plain, stage))
    assert len(stage.train) == len(plain.train) == 81
    alone = ~before.all(dim=1)
    assert alone.sum() == 18
    assert torch.equal(before[alone], after[alone])
    assert not after[~alone].all()


# The run.


@unit
def test_the_run_keeps_its_table_and_says_so(worlds, tmp_path):
    rates = {"audio": 30, "visual": 30, "balanced": True}
    job = prepare(AVQAConfig(**settings(worlds["one"], train_missing=rates)), tmp_path)
    job.begin()
    with (job.folder / "missing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    gone = taken_away(rates)
    assert {row["clip"]: (row["audio_missing"], row["visual_missing"]) for row in rows} == {
        f"clip train{i:03d}": tuple(str(int(m in gone.get(f"clip train{i:03d}", ()))) for m in ("audio", "visual"))
        for i in range(CLIPS)
    }
    assert job.notes == (f"of {CLIPS} training clips 6 lack audio, 6 lack visual, as missing.csv of the run says",)
    plain = prepare(AVQAConfig(**settings(worlds["one"])), tmp_path)
    plain.begin()
    assert not (plain.folder / "missing.csv").exists()
    assert plain.identity != job.identity


@unit
def test_no_table_leaves_identities_as_they_were():
    plain = AVQAConfig(data=Path("x"), questions=Path("y"))
    assert "train_missing" not in content_settings(plain)
    names = [{"audio": 30}, {"audio": 40}, {"visual": 30}, {"audio": 30, "seed": 1}, {"audio": 30, "both": True}]
    found = [content_settings(AVQAConfig(data=Path("x"), questions=Path("y"), train_missing=of)) for of in names]
    assert all(a != b for i, a in enumerate(found) for b in [*found[:i], content_settings(plain)])
