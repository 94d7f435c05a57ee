"""The loop: interrupted and resumed training ends in the same bits; what is not finite stops it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.backbone import load_backbone
from models.backbone import Backbone
from models.batch import AVBatch
from models.inputs import Normalisation
from models.settings import BackboneConfig
from shards.checkpoint import has_checkpoint, load_checkpoint, load_resumable, save_checkpoint
from tests.fixtures.builders import LABELS, feature_dataset, media_dataset, small_net
from tests.fixtures.tiers import told_by
from trainers.classification.config import AdapterConfig, FinetuneConfig, FuseConfig, LoraConfig, PromptConfig, Sizes
from trainers.config import TrainConfig
from trainers.draws import Uniform
from trainers.journal import FILE, append_metrics, logs
from trainers.loop import Rank, Stage, _FiniteLoss, cosine, steps_per_epoch, train_stage
from trainers.metrics import MeanMetrics, StepOutput, sum_and_count
from trainers.recipes import recipe_of
from trainers.run import run

unit, integration = pytest.mark.unit, pytest.mark.integration

NET = BackboneConfig(dim=32, heads=2, mlp_ratio=2.0, depth=1, target_length=32, image_size=32)
SIZES = Sizes(dim=32, heads=2, mlp_ratio=2.0, depth=1, target_length=32, image_size=32)
SAMPLES = {"train": 24, "val": 8}
STEPS = 3  # an epoch's batches of 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media shards, a backbone's checkpoint and its feature shards."""
    root = tmp_path_factory.mktemp("world")
    media_dataset(root / "media", SAMPLES)
    backbone = Backbone(small_net(NET, len(LABELS)), LABELS, Normalisation())
    save_checkpoint(root / "run" / "finetune", backbone.net.state_dict(), backbone.meta())
    fingerprint = load_backbone(root / "run").fingerprint
    feature_dataset(root / "features", SAMPLES, NET, fingerprint)
    return root


def finetune(world: Path, **changes) -> FinetuneConfig:
    values = {"data": world / "media", "backbone": SIZES, "epochs": 2, "batch_size": 8, "noisy": True}
    return FinetuneConfig(**{**values, **changes})  # type: ignore[arg-type]


def case_wise(kind: type, world: Path, **changes) -> TrainConfig:
    values = {
        "data": world / "media",
        "backbone": world / "run",
        "features": world / "features",
        "cases": ("noisy_audio",),
        "epochs": 2,
        "batch_size": 8,
        "missing": 0.3,
    }
    return kind(**{**values, **changes})


def fuse(world: Path, method: str = "shaspec", **changes) -> FuseConfig:
    values = {"data": world / "media", "start": world / "run", "method": method, "epochs": 2, "batch_size": 8}
    return FuseConfig(**{**values, "sizes": {"dim": 8}, **changes})  # type: ignore[arg-type]


MAKERS: dict[str, Callable[[Path], TrainConfig]] = {
    "finetune": finetune,
    "shaspec": fuse,
    "drfuse": lambda world: fuse(world, "drfuse"),
    "prompt": lambda world: case_wise(PromptConfig, world),
    "prompt with head": lambda world: case_wise(PromptConfig, world, head=True, deep=True),
    "lora": lambda world: case_wise(LoraConfig, world),
    "adapter": lambda world: case_wise(AdapterConfig, world),
    "finetune, streamed": lambda world: finetune(world, stream=True, lanes=2, shuffle_buffer=6),
    "prompt, streamed": lambda world: case_wise(PromptConfig, world, stream=True, lanes=4, shuffle_buffer=8),
}

RESUMED = ("finetune", "drfuse", "prompt with head", "lora", "adapter")  # streams resume in mid-epoch, below


class Log(list):
    """Reports, as the driver of a run would keep them."""

    def __call__(self, stage: str, epoch: int, metrics: dict[str, float]) -> None:
        self.append((stage, epoch, metrics))


class Killed(Exception):
    """Stands for the end of the process."""


def at_step(stage: Stage, step: int, act: Callable[[], None]) -> Stage:
    """The stage, with something that happens as a step begins, counted from 1 over this process's epochs."""
    left = iter(range(step - 1, -1, -1))

    def augment(batch: AVBatch, uniform: Uniform) -> AVBatch:
        if next(left) == 0:
            act()
        return batch if stage.augment is None else stage.augment(batch, uniform)

    return dataclasses.replace(stage, augment=augment)


def kill() -> None:
    raise Killed


def train(config: TrainConfig, folder: Path, killed_at: int | None = None) -> tuple[dict[str, Tensor], Log]:
    """One fresh process's worth of training: stages built anew, global random state of its own."""
    torch.manual_seed(id(folder) % 1000)
    log = Log()
    (stage,) = recipe_of(config).stages(config)
    run = stage if killed_at is None else at_step(stage, killed_at, kill)
    train_stage(run, config, Rank(), folder, log)
    return {n: t.detach().clone() for n, t in stage.weights().items()}, log


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


def without_time(log: Log) -> list:
    measured = ("epoch_seconds", "peak_memory_mb", "data_wait_seconds")
    return [(s, e, {k: v for k, v in m.items() if k not in measured}) for s, e, m in log]


@pytest.mark.parametrize("recipe", told_by(RESUMED.__contains__, MAKERS, pytest.mark.integration))
def test_half_and_resume_equals_the_whole(world, tmp_path, recipe):
    config = MAKERS[recipe](world)
    whole, log = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "halves", STEPS + 2)  # in the midst of the second epoch
    resumed, later = train(config, tmp_path / "halves")
    assert_equal(whole, resumed)
    assert [epoch for _, epoch, _ in later] == [2]
    assert without_time(later) == without_time(log)[1:]
    name = recipe_of(config).stage_names(config)[0]
    assert_equal(load_checkpoint(tmp_path / "whole" / name).weights, whole)


@integration
@pytest.mark.parametrize(("recipe", "every", "redone"), [("lora", 2, 2), ("prompt", 1, 1), ("prompt, streamed", 1, 1)])
def test_a_resume_in_mid_epoch_equals_the_whole(world, tmp_path, recipe, every, redone):
    config = MAKERS[recipe](world).model_copy(update={"save_steps": every})
    whole, log = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "parts", STEPS + 2)
    more = 2 * STEPS - (STEPS + 2 - redone) + 1  # a step beyond those that are left: it never comes
    resumed, later = train(config, tmp_path / "parts", more)
    assert_equal(whole, resumed)
    assert without_time(later) == without_time(log)[1:]


@integration
@pytest.mark.parametrize("version", ["this", "earlier"])
def test_a_resume_in_mid_epoch_counts_the_seconds_before_it(world, tmp_path, version):
    """As if they had been an hour, half of it waiting for data; states of earlier versions don't tell."""
    config = MAKERS["prompt"](world).model_copy(update={"save_steps": 1})
    with pytest.raises(Killed):
        train(config, tmp_path, STEPS)
    last = tmp_path / "last" / "noisy_audio"
    found = load_resumable(last)
    spent = found.state.pop("spent")
    assert 0 <= spent["data_wait_seconds"] < spent["epoch_seconds"] < 600
    hour = {"spent": {"epoch_seconds": 3600.0, "data_wait_seconds": 1800.0}} if version == "this" else {}
    save_checkpoint(last, found.weights, found.meta, found.state | hour)
    _, log = train(config, tmp_path)
    (first, waited), (second, less) = ((m["epoch_seconds"], m["data_wait_seconds"]) for *_, m in log)
    whole = 3600 if hour else 0
    assert whole < first < whole + 600
    assert whole / 2 <= waited < whole / 2 + 600
    assert 0 <= less < second < 600
    assert not load_resumable(last).state["spent"]


@integration
def test_killed_before_the_first_epoch_ends_starts_anew(world, tmp_path):
    config = case_wise(PromptConfig, world, epochs=1)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", 2)
    assert_equal(train(config, tmp_path / "killed")[0], train(config, tmp_path / "whole")[0])


@pytest.mark.parametrize("recipe", told_by("prompt".__eq__, ["finetune", "prompt"], pytest.mark.integration))
def test_killed_after_the_last_epoch_finishes_with_the_same_result(world, tmp_path, recipe):
    """Between the last epoch's resumable state and the result."""
    config = MAKERS[recipe](world).model_copy(update={"epochs": 1})
    name = recipe_of(config).stage_names(config)[0]
    whole, _ = train(config, tmp_path)
    before = load_checkpoint(tmp_path / name)
    shutil.rmtree(tmp_path / name)
    again, log = train(config, tmp_path)
    after = load_checkpoint(tmp_path / name)
    assert log == []
    assert_equal(again, whole)
    assert_equal(after.weights, before.weights)
    assert after.meta == before.meta


@pytest.mark.parametrize("recipe", told_by("prompt".__eq__, ["finetune", "prompt"], pytest.mark.integration))
def test_a_finished_stage_returns_at_once_with_its_weights(world, tmp_path, recipe):
    config = MAKERS[recipe](world).model_copy(update={"epochs": 1})
    whole, _ = train(config, tmp_path)
    again, log = train(config, tmp_path, 1)
    assert log == []
    assert_equal(again, whole)


@unit
def test_the_metrics_of_a_finished_stage_stay_without_what_it_could_be_resumed_from(tmp_path):
    """A run that was exported and imported has no last/."""
    media_dataset(tmp_path / "media", SAMPLES)
    config, folder = finetune(tmp_path), tmp_path / "finished"
    (stage,) = recipe_of(config).stages(config)
    save_checkpoint(folder / stage.name, stage.weights(), stage.meta)
    journal = logs(folder, stage.name) / FILE
    journal.parent.mkdir(parents=True)
    for epoch in (1, 2):
        append_metrics(journal.parent, epoch, {"loss": 1 / epoch})
    before = journal.read_bytes()
    run(config, folder, Rank())
    assert journal.read_bytes() == before


@integration
def test_training_learns_and_the_seed_decides(world, tmp_path):
    """Clean data whose class is plain to hear and see: the loss falls, and another seed ends elsewhere."""
    config = finetune(world, noisy=False, epochs=6, lr=3e-3)
    _, log = train(config, tmp_path / "a")
    losses = [metrics["loss"] for *_, metrics in log]
    assert losses[-1] < 0.7 * losses[0]
    assert log[-1][2]["val_accuracy"] > 0.6
    one, other = (train(finetune(world, epochs=1, seed=s), tmp_path / f"{s}")[0] for s in (0, 1))
    assert not torch.equal(one["mlp_head.1.weight"], other["mlp_head.1.weight"])


@integration
def test_the_result_is_a_backbone_that_loads(world, tmp_path):
    weights, _ = train(finetune(world, epochs=1), tmp_path)
    backbone = load_backbone(tmp_path)
    assert backbone.labels == LABELS
    assert backbone.net.config == NET
    assert_equal(dict(backbone.net.state_dict()), weights)
    assert len(backbone.fingerprint) == 64


@integration
def test_only_the_case_module_trains_and_is_saved(world, tmp_path):
    config = case_wise(PromptConfig, world, epochs=1)
    (stage,) = recipe_of(config).stages(config)
    backbone = stage.objective.tuned.backbone  # type: ignore[union-attr]
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    train_stage(stage, config, Rank(), tmp_path, Log())
    assert_equal(dict(backbone.state_dict()), before)
    saved = load_checkpoint(tmp_path / "noisy_audio")
    assert all(name.startswith("module.") for name in saved.weights)
    assert saved.meta["trained"] == sum(t.numel() for t in saved.weights.values())
    assert saved.meta["case"] == "noisy_audio"


@pytest.mark.parametrize("recipe", told_by("lora".__eq__, ["finetune", "lora"], pytest.mark.integration))
def test_a_loss_that_is_not_finite_stops_and_names_the_place(world, tmp_path, recipe):
    config = MAKERS[recipe](world)
    name = recipe_of(config).stage_names(config)[0]
    with pytest.raises(Killed):
        train(config, tmp_path, STEPS + 1)  # one good epoch
    good = load_checkpoint(tmp_path / "last" / name).weights
    (stage,) = recipe_of(config).stages(config)

    def explode() -> None:
        with torch.no_grad():
            next(p for p in stage.objective.parameters() if p.requires_grad).fill_(math.inf)

    with pytest.raises(FloatingPointError, match=rf"{name}: loss is (nan|inf) in epoch 2, step 2"):
        train_stage(at_step(stage, 2, explode), config, Rank(), tmp_path, Log())
    assert_equal(load_checkpoint(tmp_path / "last" / name).weights, good)
    assert not has_checkpoint(tmp_path / name)


@integration
def test_steps_and_learning_rate(world):
    config = finetune(world)
    (stage,) = recipe_of(config).stages(config)
    steps = [steps_per_epoch(stage, config, Rank(index=0, world_size=w)) for w in (1, 2)]
    assert steps == [3, 3]
    rate = cosine(100, 0.1)
    assert rate(0) == pytest.approx(0.1)
    assert rate(9) == rate(10) == pytest.approx(1.0)
    assert rate(55) == pytest.approx(0.5)
    assert rate(100) == pytest.approx(0.0, abs=1e-9)
    assert rate(1000) == pytest.approx(0.0, abs=1e-9)


@integration
def test_a_stage_without_validation_reports_training_alone(world, tmp_path):
    config = finetune(world, epochs=1)
    (stage,) = recipe_of(config).stages(config)
    log = Log()
    train_stage(dataclasses.replace(stage, val=None), config, Rank(), tmp_path, log)
    assert {"loss", "train_accuracy", "lr", "epoch_seconds", "peak_memory_mb"} <= set(log[0][2])
    assert not any(name.startswith("val_") for name in log[0][2])


@unit
@pytest.mark.parametrize("read", [lambda x: x.item(), lambda x: x.tolist(), lambda x: bool(x)])
def test_the_meta_device_refuses_to_be_read(read):
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        read(torch.zeros((), device="meta"))


@unit
def test_metrics_and_the_check_of_losses_read_nothing_from_the_device():
    device = torch.device("meta")
    audio, visual, present = (torch.zeros(4, 2, device=device) for _ in range(3))
    batch = AVBatch(audio, visual, present, torch.zeros(4, device=device), torch.arange(4))
    running, finite = MeanMetrics(device), _FiniteLoss("stage", 0, device)
    for number in range(3):
        pair = sum_and_count(torch.zeros(4, device=device))
        output = StepOutput(torch.zeros((), device=device), torch.zeros(4, 5, device=device), {"own": pair})
        running.add(batch, output)
        finite.add(output.loss, number)


@unit
def test_the_first_loss_that_is_not_finite_is_named_however_late_it_is_checked():
    finite = _FiniteLoss("stage", 1, torch.device("cpu"))
    for number, loss in enumerate([1.0, 2.0, math.inf, 3.0, math.nan]):
        finite.add(torch.tensor(loss), number)
    with pytest.raises(FloatingPointError, match="stage: loss is inf in epoch 2, step 3"):
        finite.check()


@integration
def test_a_validation_loss_that_is_not_finite_stops(world, tmp_path):
    config = MAKERS["finetune"](world)
    (stage,) = recipe_of(config).stages(config)

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = stage.objective

        def forward(self, batch):
            output = self.inner(batch)
            return output if self.training else dataclasses.replace(output, loss=output.loss * math.nan)

    with pytest.raises(FloatingPointError, match="finetune: the validation loss is nan"):
        train_stage(dataclasses.replace(stage, objective=Broken()), config, Rank(), tmp_path, Log())


@integration
def test_a_damaged_state_is_left_for_the_one_before_it(world, tmp_path, capsys):
    config = MAKERS["prompt"](world).model_copy(update={"epochs": 3})
    whole, _ = train(config, tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, tmp_path / "cut", 2 * STEPS + 1)  # two good epochs
    state = tmp_path / "cut" / "last" / "noisy_audio" / "state.pt"
    state.write_bytes(state.read_bytes()[:100])
    resumed, _ = train(config, tmp_path / "cut")
    assert "training goes on from the state before it" in capsys.readouterr().err
    assert_equal(resumed, whole)
