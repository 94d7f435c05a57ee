"""One training of a question-answering network, measured from the inside."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import training
from benchmarks.avqa_job import Job
from models.avqa.batch import AVQABatch
from models.avqa.contract import Recovered
from models.avqa.networks import NETWORKS
from models.avqa.recovery import RECOVERIES
from models.batch import take_away
from models.settings import MODALITIES
from trainers.resources import Meter

WORDS, ANSWERS, LENGTH, MATCH = 93, 42, 14, 0.5  # MUSIC-AVQA; weight of AVST's match loss
SMALL: dict[str, dict[str, Any]] = {
    "avst": {"dim": 96},
    "avsd": {"dim": 96},
    "lavit": {"dim": 96, "heads": 4, "language": 2, "visual": 1, "audio": 1, "cross": 2},
    "pstp": {"dim": 96},
    "avst_prompts": {"dim": 96},
    "avst_drfuse": {"dim": 96},
}


class Objective(nn.Module):
    """What a step computes: Eq. 8, or its first term where there is no recovery method."""

    def __init__(self, job: Job):
        super().__init__()
        sizes = SMALL[job.network] if job.preset == "tiny" else {}
        self.network = NETWORKS[job.network](job.spec, WORDS, ANSWERS, **sizes)
        self.recovery = None if job.recovery == "none" else RECOVERIES[job.recovery](job.spec, WORDS)

    def forward(self, batch: AVQABatch) -> Tensor:
        if self.recovery is None:
            return self._answer(Recovered(batch.audio, batch.visual, batch.present), batch)
        whole = self._recovered(batch)
        loss = self._answer(whole, batch)
        for modality in MODALITIES:
            away = replace(take_away(batch, modality), negative=None)
            loss = loss + self._answer(self._recovered(away), away)
        return loss + sum(v.mean() for v in whole.losses().values())

    def _recovered(self, batch: AVQABatch) -> Recovered:
        assert self.recovery is not None
        return self.recovery(batch.audio, batch.visual, batch.present, batch.question)

    def _answer(self, seen: Recovered, batch: AVQABatch) -> Tensor:
        logits, own = self.network(seen.audio, seen.visual, seen.present, batch.question, batch.negative)
        return F.cross_entropy(logits, batch.label) + sum(MATCH * v.mean() for v in own.values())


def train(job: Job) -> dict[str, Any]:
    """Seconds per step and memory (bytes) of one training."""
    if job.threads:
        torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    _steps(Job(job.network, job.recovery, "common", "tiny", 2, 0, 2, job.device, None), device)
    training._settle()  # what libraries load and allocate at their first use is no cost of a network
    meter = Meter(device)
    seconds, objective, batch = _steps(job, device)
    return {
        "step_seconds": statistics.median(seconds[job.warmup :]),
        "trained": sum(p.numel() for p in objective.parameters()),
        "memory": {"peak": meter.peak_bytes, **breakdown(objective, batch)},
    }


def _steps(job: Job, device: torch.device) -> tuple[list[float], Objective, AVQABatch]:
    """Seconds of each step, the objective as trained, its batch."""
    batch = random_batch(job).to(device)
    objective = Objective(job).to(device).train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-4)
    seconds = []
    for _ in range(job.warmup + job.steps):
        start = _clock(device)
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()
        seconds.append(_clock(device) - start)
    return seconds, objective, batch


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def random_batch(job: Job) -> AVQABatch:
    """Features of unit scale; negative frames for the network that looks at them."""
    rng, spec, n = torch.Generator().manual_seed(0), job.spec, job.batch_size
    visual = (n, spec.steps, spec.rows, spec.visual)
    return AVQABatch(
        audio=torch.randn(n, spec.steps, spec.audio, generator=rng),
        visual=torch.randn(visual, generator=rng),
        present=torch.ones(n, 2, dtype=torch.bool),
        label=torch.randint(ANSWERS, (n,), generator=rng),
        index=torch.arange(n),
        question=torch.randint(1, WORDS, (n, LENGTH), generator=rng),
        negative=torch.randn(visual, generator=rng) if NETWORKS[job.network].takes_negatives else None,
    )


def breakdown(objective: Objective, batch: AVQABatch) -> dict[str, float]:
    """Bytes that must be there at the peak, counted from tensors."""
    weights = sum(training._bytes(p) for p in objective.parameters())
    given = [t for t in vars(batch).values() if t is not None]
    own = {t.untyped_storage().data_ptr() for t in (*objective.parameters(), *given)}
    with training._kept(own) as kept:
        loss = objective(batch)
    activations = sum(kept.values())
    del loss
    return {
        "parameters": weights,
        "gradients": weights,
        "optimizer": 2 * weights,
        "activations": activations,
        "inputs": sum(training._bytes(t) for t in given),
    }
