"""One training, measured from the inside: the project's loop on the project's stages."""

from __future__ import annotations

import ctypes
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import corpus
from benchmarks.cost_job import DRAWS, Job
from models.batch import AVBatch
from models.cavmae import CAVMAE
from models.settings import BackboneConfig
from trainers.classification.augment import augment
from trainers.classification.config import AdapterConfig, Augment, FinetuneConfig, LoraConfig, PromptConfig, Sizes
from trainers.classification.objective import CompetentLoss
from trainers.config import TrainConfig
from trainers.data import batches
from trainers.loop import Rank, Stage, arithmetic, train_stage
from trainers.recipes import recipe_of
from trainers.resources import Meter

CASE = "noisy_both"


class Enough(Exception):
    """All epochs are measured: leave the loop before it writes its result."""


def prepare(values: dict[str, Any]) -> dict[str, Any]:
    """Media, backbone and the features at every depth; seconds of each extraction."""
    folder = Path(values["folder"])
    corpus.write_media(folder / "data", values["preset"], values["clips"])
    backbone = corpus.write_backbone(folder / "finetune", values["preset"])
    made = {}
    for depth in values["depths"]:
        start = time.perf_counter()
        corpus.write_features(folder / "data", backbone, depth, DRAWS, gpu=values["device"] == "cuda")
        made[str(depth)] = {"seconds": time.perf_counter() - start}
    return made


def train(values: dict[str, Any]) -> dict[str, Any]:
    """Time per epoch, share spent waiting for data, and memory of one training (bytes)."""
    job = Job(**values)
    if job.threads:
        torch.set_num_threads(job.threads)
    place = Rank(torch.device(job.device))
    _warm_up(place.device)
    _settle()
    meter = Meter(place.device)
    config = train_config(job)
    stage = recipe_of(config).stages(config)[0]
    _settle()  # what reading the checkpoint left behind is not the training's
    epochs: list[dict[str, float]] = []
    memory: dict[str, float] = {}

    def record(_: str, epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            memory["peak"] = meter.peak_bytes  # before a checkpoint is written for the first time
        if epoch > job.warmup:
            epochs.append(metrics)
        if epoch == config.epochs:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        train_stage(stage, config, place, Path(folder), record)
    return {
        "epoch_seconds": statistics.median(e["epoch_seconds"] for e in epochs),
        "wait_share": statistics.median(e["data_wait_seconds"] / e["epoch_seconds"] for e in epochs),
        "samples": epochs[0]["samples"],
        "classes": len(corpus.LABELS),
        "trained": sum(p.numel() for p in stage.objective.parameters() if p.requires_grad),
        "memory": memory | breakdown(stage, config, place),
    }


def train_config(job: Job) -> TrainConfig:
    """The recipe's config with its defaults, but for what is measured."""
    shared: dict[str, Any] = {
        "data": Path(job.data),
        "batch_size": job.batch_size,
        "epochs": job.warmup + job.epochs,
        "workers": 0,
        "loaders": job.loaders,
    }
    if job.method == "finetune":
        return FinetuneConfig(**shared, backbone=Sizes(preset=job.preset))
    shared |= {"backbone": Path(job.backbone), "depth": job.depth, "cases": (CASE,)}
    if job.method == "prompt":
        return PromptConfig(**shared, length=job.size)
    if job.method == "lora":
        return LoraConfig(**shared, rank=job.size)
    return AdapterConfig(**shared, width=job.size)


def _warm_up(device: torch.device) -> None:
    """One step of a small network: what libraries load, compile and allocate at their first use is no cost of
    a method."""
    net = CAVMAE(BackboneConfig(dim=32, heads=2, depth=1, target_length=32, image_size=32), 2).to(device)
    batch = AVBatch(
        torch.randn(2, 32, 128),
        torch.randn(2, 3, 32, 32),
        torch.ones(2, 2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.long),
        torch.arange(2),
    ).to(device)
    optimizer = torch.optim.AdamW(net.parameters())
    with arithmetic(TrainConfig(recipe="", data=Path()), device):
        output = CompetentLoss(net, 1.0)(augment(batch, Augment(), lambda n: np.full((len(batch), n), 0.5)))
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def _settle() -> None:
    """Give freed memory back, so that the next training doesn't hide in it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc's; elsewhere the resident memory starts a little higher
        ctypes.CDLL(None).malloc_trim(0)


def breakdown(stage: Stage, config: TrainConfig, place: Rank) -> dict[str, float]:
    """Bytes that must be there at the peak, counted from tensors: the network's parameters, gradients and
    AdamW's moments of what trains, what one batch's forward keeps for backward, and the batch."""
    objective = stage.objective.train()
    trained = sum(_bytes(p) for p in objective.parameters() if p.requires_grad)
    batch = next(batches(stage.train, list(range(config.batch_size)), config.batch_size, 0, True))
    batch = batch.to(place.device)
    own = {t.untyped_storage().data_ptr() for t in (*objective.parameters(), *vars(batch).values())}
    with _kept(own) as kept, arithmetic(config, place.device):
        loss = objective(batch).loss
    activations = sum(kept.values())
    del loss
    return {
        "parameters": sum(_bytes(p) for p in objective.parameters()),
        "gradients": trained,
        "optimizer": 2 * trained,
        "activations": activations,
        "inputs": sum(_bytes(t) for t in vars(batch).values()),
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _kept(own: set[int]) -> Iterator[dict[int, int]]:
    """Storages that autograd keeps while inside, by address, without those in `own`."""
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # keeps addresses from being used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"prepare": prepare, "train": train}
