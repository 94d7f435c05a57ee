"""The loop: epochs over batches, resumable after any of them to the same bits. No Ray, no MLflow."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.batch import AVBatch
from models.noise import generator
from shards.checkpoint import LAST, has_checkpoint, load_checkpoint, load_resumable, save_checkpoint
from shards.errors import InputError
from trainers.config import TrainConfig
from trainers.data import Items, batches, validation_order
from trainers.draws import Uniform, uniform
from trainers.metrics import MeanMetrics, RankedClips, StepOutput
from trainers.optimisation import MeanWeights, Optimisation, halving
from trainers.resources import Meter
from trainers.sampler_state import Position, epoch_batches, last_taken

# A GPU checks losses by itself; they are read every so many steps, at the epoch's end and before anything is saved.
CHECK_STEPS = 50


@dataclass(frozen=True)
class Rank:
    """One worker: its index among `world_size`, and its device."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    index: int = 0
    world_size: int = 1

    def total(self, *values: float) -> list[float]:
        """Sums over all ranks."""
        if self.world_size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()

    def union(self, names: Iterable[str]) -> list[str]:
        """All ranks' names, sorted: the same list on every rank."""
        mine = sorted(set(names))
        if self.world_size == 1:
            return mine
        gathered: list[list[str]] = [[] for _ in range(self.world_size)]
        torch.distributed.all_gather_object(gathered, mine)
        return sorted({name for names in gathered for name in names})

    def parts(self, own: Sequence[np.ndarray]) -> list[np.ndarray]:
        """All ranks' arrays, one rank's after the other's; a rank may have none."""
        if self.world_size == 1:
            return list(own)
        gathered: list[list[np.ndarray]] = [[] for _ in range(self.world_size)]
        torch.distributed.all_gather_object(gathered, list(own))
        return [part for parts in gathered for part in parts]


def local_rank(threads: int | None = None, gpu: bool | None = None) -> Rank:
    """This process alone: its GPU if there is one and `gpu` is not False, else `threads` CPU threads.

    Raises:
        InputError: `gpu` is True and there is none.
    """
    if gpu is not False and torch.cuda.is_available():
        return Rank(torch.device("cuda", 0))
    if gpu:
        remedy = "gpu=false, or a machine with a CUDA device"
        raise InputError("this machine has no GPU that torch can use", field="gpu", remedy=remedy)
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    return Rank()


@dataclass(frozen=True)
class Stage:
    """One thing to train.

    Attributes:
        name: its folder and its name in logs: "finetune", a case, "avqa", ...
        objective: module; batch -> `StepOutput`.
        train, val: items; an epoch begins by setting `train.epoch`.
        weights: what a checkpoint holds, by name.
        load: puts such weights back.
        meta: what the checkpoint says about itself.
        augment: changes a training batch, given its samples' random numbers.
        unused_parameters: a step may leave trained parameters without gradient (DDP then looks for them).
        optimisation: what it asks of the optimizer; validation and the result are of the averaged weights, if any.
    """

    name: str
    objective: nn.Module
    train: Items
    val: Items | None
    weights: Callable[[], dict[str, Tensor]]
    load: Callable[[dict[str, Tensor]], None]
    meta: dict
    augment: Callable[[AVBatch, Uniform], AVBatch] | None = None
    unused_parameters: bool = False
    optimisation: Optimisation = field(default_factory=Optimisation)

    def sizes(self) -> dict[str, int]:
        """Parameters that train, and all that the objective holds."""
        parameters = list(self.objective.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        return {"trained": trained, "parameters": sum(p.numel() for p in parameters)}


Report = Callable[[str, int, dict[str, float]], None]  # stage, epoch (from 1), metrics


def train_stage(
    stage: Stage,
    config: TrainConfig,
    rank: Rank,
    folder: Path,
    report: Report,
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Train a stage to its end, resuming from `folder`/last/<stage>; the result is `folder`/<stage>.

    Every epoch leaves a resumable state behind, and so do every `save_steps` steps. A finished stage returns
    at once.

    Args:
        saved: called on rank 0 after each save.

    Raises:
        FloatingPointError: a loss is not finite; names stage, epoch and step, or the validation.
    """
    done, last = folder / stage.name, folder / LAST / stage.name
    if has_checkpoint(done):
        stage.load(load_checkpoint(done).weights)
        return
    loop = _Loop(stage, config, rank, last, saved)
    _make_resident(stage, rank.device if getattr(config, "resident", False) else None)
    while loop.position.epoch < config.epochs:
        metrics = loop.epoch()
        loop.mean.add(loop.position.epoch + 1)
        if stage.val is not None:
            with loop.mean.in_place():
                metrics |= validate(stage, config, rank)
        report(stage.name, loop.position.epoch + 1, metrics)
        loop.next_epoch(metrics)
    _make_resident(stage, None)
    loop.mean.settle()
    if rank.index == 0:
        save_checkpoint(done, stage.weights(), {**stage.meta, "metrics": loop.metrics})
        saved()


class _Loop:
    """A stage's training in one worker: its state, and how that is saved and resumed.

    Attributes:
        position: the next batch.
        sums: of the epoch so far, over all ranks (see `MeanMetrics`).
        spent: seconds of the epoch so far, and those of them that it waited for data, of this rank.
        metrics: of the last whole epoch.
    """

    def __init__(self, stage: Stage, config: TrainConfig, rank: Rank, last: Path, saved: Callable[[], None]):
        self.stage, self.config, self.rank, self.last, self.saved = stage, config, rank, last, saved
        self.meter = Meter(rank.device)
        objective = stage.objective.to(rank.device)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        wanted, steps = stage.optimisation, steps_per_epoch(stage, config, rank)
        groups = wanted.groups(objective, config.lr)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, betas=wanted.betas)
        after = wanted.halve_after
        factor = cosine(config.epochs * steps, config.warmup) if after is None else halving(steps, after)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.mean = MeanWeights(stage.weights, stage.load, wanted.average_from)
        self.position, self.sums, self.metrics = Position(), dict[str, list[float]](), dict[str, float]()
        self.spent = dict[str, float]()
        if has_checkpoint(last):
            self._resume()
        self.model: nn.Module = objective
        if rank.world_size > 1:
            self.model = DistributedDataParallel(objective, find_unused_parameters=stage.unused_parameters)

    def _resume(self) -> None:
        found = load_resumable(self.last)
        if found.note and self.rank.index == 0:
            print(f"note: {found.note}", file=sys.stderr)
        self.stage.load(found.weights)
        state = found.state
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]
        self.position, self.sums = Position(state["epoch"], state["taken"]), state["sums"]
        self.metrics, self.spent = state["metrics"], state.get("spent", {})  # earlier versions saved none
        self.mean.restore(state)

    def _save(self) -> None:
        if self.rank.index == 0:
            state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.last_epoch}
            state |= {"metrics": self.metrics, "sums": self.sums, "spent": self.spent}
            state |= {**self.position.state(), **self.mean.state()}
            save_checkpoint(self.last, self.stage.weights(), self.stage.meta, state, keep_previous=True)
            self.saved()

    def next_epoch(self, metrics: dict[str, float]) -> None:
        """Close the epoch and save."""
        self.position, self.sums, self.metrics = Position(self.position.epoch + 1), {}, metrics
        self.spent = {}
        self._save()

    def epoch(self) -> dict[str, float]:
        """Train from the position to the epoch's end; seconds are of the whole epoch, as far as it was saved."""
        self.model.train()
        config, rank, epoch = self.config, self.rank, self.position.epoch
        running = MeanMetrics(rank.device, self.sums if rank.index == 0 else {})
        finite = _FiniteLoss(self.stage.name, epoch, rank.device)
        before, waited = self.spent.get("epoch_seconds", 0.0), self.spent.get("data_wait_seconds", 0.0)
        self.meter.reset_clock()
        clock = time.perf_counter()
        first = self.position.taken // _whole(config, rank)
        for number, (batch, reached) in enumerate(self._batches(), first):
            waited += time.perf_counter() - clock
            output = self._step(batch, epoch, number, running)
            finite.add(output.loss, number)
            if config.save_steps and (number + 1) % config.save_steps == 0 and reached.epoch == epoch:
                finite.check()
                self.position, self.sums = reached, running.sums(rank)
                self.spent = {"epoch_seconds": before + self.meter.seconds, "data_wait_seconds": waited}
                self._save()
            elif rank.device.type == "cpu" or (number + 1) % CHECK_STEPS == 0:
                finite.check()
            clock = time.perf_counter()
        finite.check()
        means, seen = running.means(rank)
        metrics = {"train_accuracy" if k == "accuracy" else k: v for k, v in means.items()}
        metrics["lr"] = float(self.schedule.get_last_lr()[0])
        metrics |= {"data_wait_seconds": waited, "samples": seen, "epoch_seconds": before + self.meter.seconds}
        return metrics | {"peak_memory_mb": self.meter.peak_bytes / 2**20}

    def _batches(self) -> Iterator[tuple[AVBatch, Position]]:
        config, rank = self.config, self.rank
        return epoch_batches(
            self.stage.train,
            self.position,
            seed=config.seed,
            batch_size=config.batch_size,
            loaders=config.loaders,
            proportion=config.proportion,
            rank=rank.index,
            world=rank.world_size,
        )

    def _step(self, batch: AVBatch, epoch: int, number: int, running: MeanMetrics) -> StepOutput:
        """One step of the optimizer; the host waits for nothing of it."""
        stage, config, rank = self.stage, self.config, self.rank
        positions = batch.index  # still on the host
        batch = batch.to(rank.device)
        if stage.augment is not None:
            ids = stage.train.drawn_by(positions.numpy(force=True))
            batch = stage.augment(batch, lambda n: uniform(ids, n, "augment", config.seed, epoch))
        with arithmetic(config, rank.device), seeded(rank.device, config.seed, epoch, number, rank.index):
            output: StepOutput = self.model(batch)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        nn.utils.clip_grad_norm_(self.trained, config.clip)
        self.optimizer.step()
        self.schedule.step()
        running.add(batch, output)
        return output


class _FiniteLoss:
    """The first step of an epoch whose loss is not finite, found on the device."""

    NONE = 2**62

    def __init__(self, stage: str, epoch: int, device: torch.device):
        self.stage, self.epoch = stage, epoch
        self.first = torch.full((), self.NONE, dtype=torch.int64, device=device)
        self.value = torch.zeros((), device=device)

    def add(self, loss: Tensor, number: int) -> None:
        bad = ~loss.detach().isfinite() & (self.first == self.NONE)
        self.value = torch.where(bad, loss.detach().float(), self.value)
        self.first = torch.where(bad, number, self.first)

    def check(self) -> None:
        """Wait for the device and raise what was found."""
        if (number := int(self.first)) != self.NONE:
            where = f"epoch {self.epoch + 1}, step {number + 1}"
            raise FloatingPointError(f"{self.stage}: loss is {float(self.value)} in {where}")


def _make_resident(stage: Stage, device: torch.device | None) -> None:
    """Hold the stage's items on a device, or no longer."""
    for items in (stage.train, stage.val):
        if items is not None:
            items.make_resident(device)


def finished_epochs(folder: Path, stage: str) -> int:
    """Epochs of a stage that a resumed run need not repeat."""
    last = folder / LAST / stage
    return load_resumable(last).state["epoch"] if has_checkpoint(last) else 0


def steps_per_epoch(stage: Stage, config: TrainConfig, rank: Rank) -> int:
    """Batches of an epoch; a rest is dropped, unless it is all there is."""
    whole = _whole(config, rank)
    return -(-last_taken(len(stage.train), config.proportion, whole) // whole)


def _whole(config: TrainConfig, rank: Rank) -> int:
    """Samples of a batch over all ranks."""
    return max(1, config.batch_size // rank.world_size) * rank.world_size


def cosine(total: int, warmup: float) -> Callable[[int], float]:
    """Learning-rate factor by step: linear over the first `warmup` share, then a half cosine to zero."""
    rise = max(1, round(warmup * total))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))

    return factor


@torch.no_grad()
def validate(stage: Stage, config: TrainConfig, rank: Rank) -> dict[str, float]:
    """Loss, accuracy (of clips with several labels, mAP) and the objective's other metrics on the stage's validation
    items, over all ranks.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    assert stage.val is not None
    stage.objective.eval()
    order = validation_order(stage.val, rank.index, rank.world_size)
    running, ranked = MeanMetrics(rank.device), RankedClips()
    for step, batch in enumerate(batches(stage.val, order, config.batch_size, config.loaders, drop_last=False)):
        batch = batch.to(rank.device)
        with arithmetic(config, rank.device), seeded(rank.device, "val", config.seed, step, rank.index):
            output = stage.objective(batch)
        running.add(batch, output)
        ranked.add(batch, output)
    means, _ = running.means(rank)
    means |= ranked.means(rank)
    if not math.isfinite(means.get("loss", 0.0)):
        raise FloatingPointError(f"{stage.name}: the validation loss is {means['loss']}")
    return {f"val_{name}": value for name, value in means.items()}


@contextlib.contextmanager
def seeded(device: torch.device, *key: object) -> Iterator[None]:
    """Torch's own random draws in the block (dropout) depend on `key` alone, so a resumed run repeats them;
    the state outside is left as it was."""
    seed = int(generator("step", *key).integers(2**62))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for devices at every step
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


@contextlib.contextmanager
def arithmetic(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """bf16 autocast where the config and the device ask for it."""
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        yield
