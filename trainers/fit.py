"""The loop: epochs over batches, resumable after any of them to the same bits. No Ray, no MLflow."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.batch import AVBatch
from models.noise import generator
from shards.checkpoint import has_checkpoint, load_checkpoint, load_state, save_checkpoint
from trainers.config import TrainConfig
from trainers.data import FeatureItems, Items, batches
from trainers.position import Position, epoch_batches, last_taken
from trainers.resources import Meter


@dataclass(frozen=True)
class Place:
    """Where one worker runs: its rank among `world`, and its device."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world: int = 1

    def total(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()


@dataclass(frozen=True)
class Stage:
    """One thing to train.

    Attributes:
        name: its folder and its name in logs: "finetune", or a case.
        objective: module; batch -> (mean loss [], logits [B, C]).
        train, val: items; an epoch begins by setting `train.epoch`.
        weights: what a checkpoint holds, by name.
        load: puts such weights back.
        meta: what the checkpoint says about itself.
        augment: changes a training batch, given a generator seeded by (seed, epoch, step, rank).
    """

    name: str
    objective: nn.Module
    train: Items
    val: Items | None
    weights: Callable[[], dict[str, Tensor]]
    load: Callable[[dict[str, Tensor]], None]
    meta: dict
    augment: Callable[[AVBatch, torch.Generator], AVBatch] | None = None


Report = Callable[[str, int, dict[str, float]], None]  # stage, epoch (from 1), metrics


def fit(stage: Stage, config: TrainConfig, place: Place, folder: Path, report: Report) -> None:
    """Train a stage to its end, resuming from `folder`/last/<stage>; the result is `folder`/<stage>.

    Every epoch leaves a resumable state behind, and so do every `save_steps` steps. A finished stage returns
    at once.

    Raises:
        FloatingPointError: the loss is not finite; names stage, epoch and step.
    """
    done, last = folder / stage.name, folder / "last" / stage.name
    if has_checkpoint(done):
        stage.load(load_checkpoint(done).weights)
        return
    meter = Meter(place.device)
    objective = stage.objective.to(place.device)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    total = config.epochs * steps_per_epoch(stage, config, place)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(total, config.warmup))
    position, sums, metrics = _resume(stage, optimizer, schedule, last)
    model = DistributedDataParallel(objective, find_unused_parameters=True) if place.world > 1 else objective

    def save(position: Position, sums: list[float]) -> None:
        if place.rank == 0:
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.last_epoch, "metrics": metrics}
            state |= {"epoch": position.epoch, "taken": position.taken, "sums": sums}
            save_checkpoint(last, stage.weights(), stage.meta, state)

    _keep(stage, place.device if getattr(config, "resident", False) else None)
    while position.epoch < config.epochs:
        meter.reset_clock()
        model.train()
        step = partial(_step, stage, model, trained, optimizer, schedule, config, place)
        metrics = _train_epoch(stage, step, schedule, config, place, position, sums, save)
        seconds = meter.seconds
        metrics |= {"epoch_seconds": seconds, "peak_memory_mb": meter.peak_bytes / 2**20}
        if stage.val is not None:
            metrics |= validate(stage, config, place)
        report(stage.name, position.epoch + 1, metrics)
        position, sums = Position(position.epoch + 1), [0.0, 0.0, 0.0]
        save(position, sums)
    _keep(stage, None)
    if place.rank == 0:
        save_checkpoint(done, stage.weights(), {**stage.meta, "metrics": metrics})


def _keep(stage: Stage, device: torch.device | None) -> None:
    """Have the stage's tokens on a device, or no longer."""
    for items in (stage.train, stage.val):
        if isinstance(items, FeatureItems):
            items.keep(device)


def finished_epochs(folder: Path, stage: str) -> int:
    """Epochs of a stage that a resumed run need not repeat."""
    last = folder / "last" / stage
    return load_state(last)["epoch"] if has_checkpoint(last) else 0


def _resume(stage: Stage, optimizer, schedule, last: Path) -> tuple[Position, list[float], dict[str, float]]:
    """Where to go on, the sums of the epoch so far (`_train_epoch`), the metrics of the last whole one."""
    if not has_checkpoint(last):
        return Position(), [0.0, 0.0, 0.0], {}
    stage.load(load_checkpoint(last).weights)
    state = load_state(last)
    optimizer.load_state_dict(state["optimizer"])
    schedule.last_epoch = state["schedule"]
    return Position(state["epoch"], state["taken"]), state["sums"], state["metrics"]


def steps_per_epoch(stage: Stage, config: TrainConfig, place: Place) -> int:
    """Batches of an epoch; a rest is dropped, unless it is all there is."""
    whole = _whole(config, place)
    return -(-last_taken(len(stage.train), config.proportion, whole) // whole)


def _whole(config: TrainConfig, place: Place) -> int:
    """Samples of a batch over all ranks."""
    return max(1, config.batch_size // place.world) * place.world


def cosine(total: int, warmup: float) -> Callable[[int], float]:
    """Learning-rate factor by step: linear over the first `warmup` share, then a half cosine to zero."""
    rise = max(1, round(warmup * total))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

    return factor


def _train_epoch(
    stage: Stage,
    step: Callable[[AVBatch, int, int], tuple[float, int]],
    schedule,
    config: TrainConfig,
    place: Place,
    position: Position,
    sums: list[float],
    save: Callable[[Position, list[float]], None],
) -> dict[str, float]:
    """Train from a position to the epoch's end; `sums` are loss, right and seen over all ranks before it."""
    loss_sum, right, seen = sums if place.rank == 0 else (0.0, 0.0, 0.0)
    waited, clock = 0.0, time.perf_counter()
    loaded = epoch_batches(
        stage.train,
        position,
        seed=config.seed,
        batch_size=config.batch_size,
        loaders=config.loaders,
        proportion=config.proportion,
        rank=place.rank,
        world=place.world,
    )
    before = position.taken // _whole(config, place)
    for number, (batch, reached) in enumerate(loaded, before):
        waited += time.perf_counter() - clock
        value, correct = step(batch, position.epoch, number)
        loss_sum += value * len(batch)
        right += correct
        seen += len(batch)
        if config.save_steps and (number + 1) % config.save_steps == 0 and reached.epoch == position.epoch:
            save(reached, place.total(loss_sum, right, seen))
        clock = time.perf_counter()
    loss_sum, right, seen = place.total(loss_sum, right, seen)
    metrics = {"loss": loss_sum / seen, "train_accuracy": right / seen, "lr": schedule.get_last_lr()[0]}
    return metrics | {"data_wait_seconds": waited, "samples": seen}


def _step(
    stage: Stage,
    model: nn.Module,
    trained: list[nn.Parameter],
    optimizer,
    schedule,
    config: TrainConfig,
    place: Place,
    batch: AVBatch,
    epoch: int,
    number: int,
) -> tuple[float, int]:
    """One step of the optimizer: the loss, and how many samples were classified rightly."""
    batch = batch.to(place.device)
    if stage.augment is not None:
        rng = generator("augment", config.seed, epoch, number, place.rank)
        batch = stage.augment(batch, torch.Generator().manual_seed(int(rng.integers(2**62))))
    with arithmetic(config, place.device):
        loss, logits = model(batch)
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"{stage.name}: loss is {value} in epoch {epoch + 1}, step {number + 1}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trained, config.clip)
    optimizer.step()
    schedule.step()
    return value, int((logits.argmax(dim=1) == batch.label).sum())


@torch.no_grad()
def validate(stage: Stage, config: TrainConfig, place: Place) -> dict[str, float]:
    """Loss and accuracy on the stage's validation items, over all ranks."""
    assert stage.val is not None
    stage.objective.eval()
    order = list(range(len(stage.val)))[place.rank :: place.world]
    loss_sum = right = seen = 0.0
    for batch in batches(stage.val, order, config.batch_size, config.loaders, drop_last=False):
        batch = batch.to(place.device)
        with arithmetic(config, place.device):
            loss, logits = stage.objective(batch)
        loss_sum += loss.item() * len(batch)
        right += (logits.argmax(dim=1) == batch.label).sum().item()
        seen += len(batch)
    loss_sum, right, seen = place.total(loss_sum, right, seen)
    return {"val_loss": loss_sum / max(seen, 1), "val_accuracy": right / max(seen, 1)}


@contextlib.contextmanager
def arithmetic(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """bf16 autocast where the config and the device ask for it."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield
