"""Sweeps for tests: a config over small media shards, with outcomes that need no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from configs import load_config
from tuning.config import SweepConfig
from tuning.outcome import Outcome
from tuning.space import Params

SMALL = {"dim": 32, "heads": 2, "mlp_ratio": 2, "depth": 2, "target_length": 32, "image_size": 32}
QUICK = {"batch_size": 8, "workers": 0, "cpus": 1}
SWEEP: dict[str, Any] = {
    "recipe": "prompt",
    "data": {
        "media": ".",
        "before": {"backbone": {"recipe": "finetune", "epochs": 1, "backbone": SMALL, **QUICK}},
        "features": {"draws": 1, "workers": 0},
    },
    "settings": {"epochs": 3, "batch_size": 8, "cases": ["complete", "noisy_audio"]},
    "space": {"length": [1, 2], "depth": [0, 1]},
}


def sweep_file(folder: Path, **changes: Any) -> Path:
    """A sweep's YAML file: the small one with some of its fields replaced."""
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))
    return path


def sweep_config(folder: Path, **changes: Any) -> SweepConfig:
    return load_config(SweepConfig, sweep_file(folder, **changes))


def an_outcome(number: int, params: Params, value: float, **changes: Any) -> Outcome:
    """A finished trial whose validation accuracy is `value` after two epochs."""
    given: dict[str, Any] = {
        "number": number,
        "name": f"prompt-{number}",
        "params": params,
        "seed": params.get("seed", 0),
        "status": "finished",
        "epochs": 2,
        "metrics": {"val_accuracy": value, "best/val_accuracy": value},
        "trained": 100,
        "epoch_seconds": 1.0,
        "train_seconds": 2.0,
        "peak_memory_mb": 10.0,
        "curve": (0.0, value),
    }
    return Outcome(**{**given, **changes})
