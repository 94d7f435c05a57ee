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
from trainers.data import FeatureItems, Items, batches
from trainers.metrics import Tally
from trainers.resources import Meter
from trainers.sampler_state import Position, epoch_batches, last_taken


@dataclass(frozen=True)
class Rank:
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


def fit(stage: Stage, config: TrainConfig, place: Rank, folder: Path, report: Report) -> None:
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
    loop = _Loop(stage, config, place, last)
    _keep(stage, place.device if getattr(config, "resident", False) else None)
    while loop.position.epoch < config.epochs:
        meter.reset_clock()
        metrics = loop.epoch()
        seconds = meter.seconds
        metrics |= {"epoch_seconds": seconds, "peak_memory_mb": meter.peak_bytes / 2**20}
        if stage.val is not None:
            metrics |= validate(stage, config, place)
        report(stage.name, loop.position.epoch + 1, metrics)
        loop.next_epoch(metrics)
    _keep(stage, None)
    if place.rank == 0:
        save_checkpoint(done, stage.weights(), {**stage.meta, "metrics": loop.metrics})


class _Loop:
    """A stage's training in one worker, where it stands, and how that is kept on disk.

    Attributes:
        position: the next batch.
        sums: of the epoch so far, over all ranks (see `Tally`).
        metrics: of the last whole epoch.
    """

    def __init__(self, stage: Stage, config: TrainConfig, place: Rank, last: Path):
        self.stage, self.config, self.place, self.last = stage, config, place, last
        objective = stage.objective.to(place.device)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=config.lr, weight_decay=config.weight_decay)
        total = config.epochs * steps_per_epoch(stage, config, place)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, cosine(total, config.warmup))
        self.position, self.sums, self.metrics = Position(), dict[str, list[float]](), dict[str, float]()
        if has_checkpoint(last):
            self._resume()
        self.model: nn.Module = objective
        if place.world > 1:
            self.model = DistributedDataParallel(objective, find_unused_parameters=True)

    def _resume(self) -> None:
        self.stage.load(load_checkpoint(self.last).weights)
        state = load_state(self.last)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]
        self.position, self.sums = Position(state["epoch"], state["taken"]), state["sums"]
        self.metrics = state["metrics"]

    def _save(self) -> None:
        if self.place.rank == 0:
            state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.last_epoch}
            state |= {"metrics": self.metrics, "sums": self.sums, **self.position.state()}
            save_checkpoint(self.last, self.stage.weights(), self.stage.meta, state)

    def next_epoch(self, metrics: dict[str, float]) -> None:
        """Leave the epoch that is over behind."""
        self.position, self.sums, self.metrics = Position(self.position.epoch + 1), {}, metrics
        self._save()

    def epoch(self) -> dict[str, float]:
        """Train from the position to the epoch's end."""
        self.model.train()
        config, place, epoch = self.config, self.place, self.position.epoch
        tally = Tally(self.sums if place.rank == 0 else {})
        waited, clock = 0.0, time.perf_counter()
        first = self.position.taken // _whole(config, place)
        for number, (batch, reached) in enumerate(self._batches(), first):
            waited += time.perf_counter() - clock
            self._step(batch, epoch, number, tally)
            if config.save_steps and (number + 1) % config.save_steps == 0 and reached.epoch == epoch:
                self.position, self.sums = reached, tally.sums(place)
                self._save()
            clock = time.perf_counter()
        means, seen = tally.means(place)
        metrics = {"train_accuracy" if k == "accuracy" else k: v for k, v in means.items()}
        metrics["lr"] = float(self.schedule.get_last_lr()[0])
        return metrics | {"data_wait_seconds": waited, "samples": seen}

    def _batches(self) -> Iterator[tuple[AVBatch, Position]]:
        config, place = self.config, self.place
        return epoch_batches(
            self.stage.train,
            self.position,
            seed=config.seed,
            batch_size=config.batch_size,
            loaders=config.loaders,
            proportion=config.proportion,
            rank=place.rank,
            world=place.world,
        )

    def _step(self, batch: AVBatch, epoch: int, number: int, tally: Tally) -> None:
        """One step of the optimizer."""
        stage, config, place = self.stage, self.config, self.place
        batch = batch.to(place.device)
        if stage.augment is not None:
            rng = generator("augment", config.seed, epoch, number, place.rank)
            batch = stage.augment(batch, torch.Generator().manual_seed(int(rng.integers(2**62))))
        with arithmetic(config, place.device), seeded(place.device, config.seed, epoch, number, place.rank):
            loss, logits, *told = self.model(batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"{stage.name}: loss is {value} in epoch {epoch + 1}, step {number + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, config.clip)
        self.optimizer.step()
        self.schedule.step()
        tally.add(value, batch, logits, told[0] if told else {})


def _keep(stage: Stage, device: torch.device | None) -> None:
    """Have the stage's tokens on a device, or no longer."""
    for items in (stage.train, stage.val):
        if isinstance(items, FeatureItems):
            items.keep(device)


def finished_epochs(folder: Path, stage: str) -> int:
    """Epochs of a stage that a resumed run need not repeat."""
    last = folder / "last" / stage
    return load_state(last)["epoch"] if has_checkpoint(last) else 0


def steps_per_epoch(stage: Stage, config: TrainConfig, place: Rank) -> int:
    """Batches of an epoch; a rest is dropped, unless it is all there is."""
    whole = _whole(config, place)
    return -(-last_taken(len(stage.train), config.proportion, whole) // whole)


def _whole(config: TrainConfig, place: Rank) -> int:
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


@torch.no_grad()
def validate(stage: Stage, config: TrainConfig, place: Rank) -> dict[str, float]:
    """Loss, accuracy and what else the objective tells on the stage's validation items, over all ranks."""
    assert stage.val is not None
    stage.objective.eval()
    order = list(range(len(stage.val)))[place.rank :: place.world]
    tally = Tally()
    for step, batch in enumerate(batches(stage.val, order, config.batch_size, config.loaders, drop_last=False)):
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
