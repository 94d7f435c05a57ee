"""The loop: epochs over batches, resumable after any of them to the same bits. No Ray, no MLflow."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.batch import AVBatch
from models.noise import generator
from shards.checkpoint import has_checkpoint, load_checkpoint, load_state, save_checkpoint
from trainers.config import TrainConfig
from trainers.data import Items, batches, epoch_order
from trainers.resources import Meter
from trainers.tally import Tally


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

    def union(self, names: Iterable[str]) -> list[str]:
        """All ranks' names, sorted: the same list on every rank."""
        mine = sorted(set(names))
        if self.world == 1:
            return mine
        everyones: list[list[str]] = [[] for _ in range(self.world)]
        torch.distributed.all_gather_object(everyones, mine)
        return sorted({name for names in everyones for name in names})


@dataclass(frozen=True)
class Stage:
    """One thing to train.

    Attributes:
        name: its folder and its name in logs: "finetune", a case, "avqa", ...
        objective: module; batch -> (mean loss [], logits [B, C]) and, if it has more to tell, figures by
            name: each a sum and the count that it is over, [2]. Logits None: there is nothing to classify.
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

    Every epoch leaves a resumable state behind. A finished stage returns at once.

    Raises:
        FloatingPointError: the loss is not finite; names stage, epoch and step.
    """
    done, last = folder / stage.name, folder / "last" / stage.name
    if has_checkpoint(done):
        stage.load(load_checkpoint(done).weights)
        return
    meter = Meter(place.device)
    objective = stage.objective.to(place.device)
    size = max(1, config.batch_size // place.world)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    total = config.epochs * steps_per_epoch(stage, config, place, size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(total, config.warmup))
    first, metrics = _resume(stage, optimizer, schedule, last)
    model = DistributedDataParallel(objective, find_unused_parameters=True) if place.world > 1 else objective
    for epoch in range(first, config.epochs):
        meter.reset_clock()
        metrics = _train_epoch(stage, model, trained, optimizer, schedule, config, place, epoch, size)
        seconds = meter.seconds
        metrics |= {"epoch_seconds": seconds, "peak_memory_mb": meter.peak_bytes / 2**20}
        if stage.val is not None:
            metrics |= validate(stage, config, place)
        report(stage.name, epoch + 1, metrics)
        if place.rank == 0:
            state = {"optimizer": optimizer.state_dict(), "schedule": schedule.last_epoch, "epoch": epoch + 1}
            save_checkpoint(last, stage.weights(), stage.meta, state | {"metrics": metrics})
    if place.rank == 0:
        save_checkpoint(done, stage.weights(), {**stage.meta, "metrics": metrics})


def finished_epochs(folder: Path, stage: str) -> int:
    """Epochs of a stage that a resumed run need not repeat."""
    last = folder / "last" / stage
    return load_state(last)["epoch"] if has_checkpoint(last) else 0


def _resume(stage: Stage, optimizer, schedule, last: Path) -> tuple[int, dict[str, float]]:
    """Epochs done and the metrics of the last of them."""
    if not has_checkpoint(last):
        return 0, {}
    stage.load(load_checkpoint(last).weights)
    state = load_state(last)
    optimizer.load_state_dict(state["optimizer"])
    schedule.last_epoch = state["schedule"]
    return state["epoch"], state["metrics"]


def _order(stage: Stage, config: TrainConfig, place: Place, epoch: int) -> list[int]:
    return epoch_order(len(stage.train), config.seed, epoch, config.proportion, place.rank, place.world)


def steps_per_epoch(stage: Stage, config: TrainConfig, place: Place, size: int) -> int:
    """Batches of `size` that one rank makes of an epoch; a rest is dropped, unless it is all there is."""
    return max(1, len(_order(stage, config, place, 0)) // size)


def cosine(total: int, warmup: float) -> Callable[[int], float]:
    """Learning-rate factor by step: linear over the first `warmup` share, then a half cosine to zero."""
    rise = max(1, round(warmup * total))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

    return factor


def _train_epoch(stage, model, trained, optimizer, schedule, config, place, epoch, size) -> dict[str, float]:
    model.train()
    stage.train.epoch = epoch
    order = _order(stage, config, place, epoch)
    tally = Tally()
    waited, clock = 0.0, time.perf_counter()
    for step, batch in enumerate(batches(stage.train, order, size, config.loaders, drop_last=True)):
        waited += time.perf_counter() - clock
        batch = batch.to(place.device)
        if stage.augment is not None:
            rng = generator("augment", config.seed, epoch, step, place.rank)
            batch = stage.augment(batch, torch.Generator().manual_seed(int(rng.integers(2**62))))
        with arithmetic(config, place.device), seeded(place.device, config.seed, epoch, step, place.rank):
            loss, logits, *told = model(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"{stage.name}: loss is {value} in epoch {epoch + 1}, step {step + 1}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        schedule.step()
        tally.add(value, batch, logits, told[0] if told else {})
        clock = time.perf_counter()
    means, seen = tally.means(place)
    metrics = {"train_accuracy" if k == "accuracy" else k: v for k, v in means.items()}
    metrics["lr"] = schedule.get_last_lr()[0]
    return metrics | {"data_wait_seconds": waited, "samples": seen}


@torch.no_grad()
def validate(stage: Stage, config: TrainConfig, place: Place) -> dict[str, float]:
    """Loss, accuracy and what else the objective tells on the stage's validation items, over all ranks."""
    assert stage.val is not None
    stage.objective.eval()
    order = list(range(len(stage.val)))[place.rank :: place.world]
    tally = Tally()
    for step, batch in enumerate(
        batches(stage.val, order, config.batch_size, config.loaders, drop_last=False)
    ):
        batch = batch.to(place.device)
        with arithmetic(config, place.device), seeded(place.device, "val", config.seed, step, place.rank):
            loss, logits, *told = stage.objective(batch)
        tally.add(loss.item(), batch, logits, told[0] if told else {})
    return {f"val_{name}": value for name, value in tally.means(place)[0].items()}


@contextlib.contextmanager
def seeded(device: torch.device, *key: object) -> Iterator[None]:
    """Torch's own random draws in the block (dropout) depend on `key` alone, so a resumed run repeats them;
    the state outside is left as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(generator("step", *key).integers(2**62)))
        yield


@contextlib.contextmanager
def arithmetic(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """bf16 autocast where the config and the device ask for it."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield
