"""How many trials a cluster runs at a time, so that none holds what another one waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shards.errors import InputError
from trainers.config import TrainConfig
from tuning.trial import is_nested

Bundle = dict[str, float]  # resource -> amount that one process holds


@dataclass(frozen=True)
class Need:
    """What one trial holds: its own process, and its workers' (none: it trains in its own)."""

    own: Bundle
    workers: tuple[Bundle, ...] = ()

    @property
    def text(self) -> str:
        """In words, for messages."""
        own = " and ".join(f"{amount:g} {name}" for name, amount in self.own.items())
        if not self.workers:
            return own
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.workers[0].items())
        return f"{own} for itself and {len(self.workers)} x {each} for its workers"


def need(config: TrainConfig, gpus: float, gpu_there: bool) -> Need:
    """What a trial of `config` holds.

    Args:
        gpus: GPUs per worker, where it uses one.
        gpu_there: the cluster has GPUs (a config that leaves `gpu` open then uses them).
    """
    on_gpu = gpu_there if config.gpu is None else config.gpu
    worker: Bundle = {"CPU": float(config.cpus or 1), **({"GPU": gpus} if on_gpu else {})}
    if not is_nested(config):
        return Need(worker)
    return Need({"CPU": 1.0}, (worker,) * config.workers)


def concurrency(wanted: Need, nodes: Sequence[Bundle]) -> int:
    """How many whole trials fit on the nodes at once.

    Raises:
        InputError: not even one.
    """
    free = [dict(node) for node in nodes]
    count = 0
    while all(_take(bundle, free) for bundle in (*wanted.workers, wanted.own)):
        count += 1
    if count == 0:
        there = ", ".join(" and ".join(f"{node.get(k, 0):g} {k}" for k in wanted.own) for node in nodes)
        message = f"a trial needs {wanted.text}; the cluster's nodes have {there or 'nothing'}"
        raise InputError(message, field="settings", remedy="give the trials fewer workers, cpus or gpus")
    return count


def _take(bundle: Bundle, free: list[Bundle]) -> bool:
    """Take `bundle` from the first node that has it."""
    for node in free:
        if all(node.get(name, 0.0) + 1e-9 >= amount for name, amount in bundle.items()):
            for name, amount in bundle.items():
                node[name] -= amount
            return True
    return False


def cluster_nodes() -> list[Bundle]:
    """CPUs and GPUs of every node of the Ray cluster that this process is connected to."""
    import ray

    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    return [{k: float(node["Resources"].get(k, 0)) for k in ("CPU", "GPU")} for node in nodes]
