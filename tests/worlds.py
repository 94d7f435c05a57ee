"""A small world of real files: media shards, a fine-tuned backbone, its features, one run per recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from configs import load_config
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from tests.builders import media_dataset
from trainers.recipes import RECIPES
from trainers.train import train

SIZES = {"train": 24, "val": 6, "test": 20}
NET = ["backbone.dim=32", "backbone.heads=2", "backbone.mlp_ratio=2", "backbone.depth=2"]
NET += ["backbone.target_length=32", "backbone.image_size=32"]
QUICK = ["epochs=1", "batch_size=8", "workers=0", "cpus=1"]
CASE_WISE = {
    "prompt": ["length=2", "deep=true", "lr=0.3", "missing=0.2"],
    "lora": ["depth=1", "lr=0.3"],
    "adapter": ["head=true", "lr=0.3"],
}


@dataclass(frozen=True)
class World:
    """Where its parts are: media shards, runs, the backbone's run, and the other runs by recipe."""

    media: Path
    runs: Path
    backbone: Path
    others: dict[str, Path]

    @property
    def all(self) -> list[Path]:
        return [self.backbone, *self.others.values()]


def train_run(recipe: str, media: Path, runs: Path, *overrides: str) -> Path:
    """`avmend train` in this process."""
    return train(load_config(RECIPES[recipe], None, [f"data={media}", *QUICK, *overrides]), runs)


def build_world(root: Path, mlflow: Path) -> World:
    """Runs to evaluate, trained for an epoch in this process; `mlflow` is an empty store's file.

    A world that was finished in `root` before is found again.
    """
    made = root / "world.json"
    if made.exists():
        return _read(json.loads(made.read_text()))
    media, runs = root / "media", root / "runs"
    runs.mkdir(parents=True)
    shutil.copy(mlflow, runs)
    media_dataset(media, SIZES)
    backbone = train_run("finetune", media, runs, *NET, "lr=0.01")
    for depth in (0, 1):
        extract(media, backbone, FeatureConfig(depth=depth, draws=1, workers=0))
    others = {
        recipe: train_run(recipe, media, runs, f"backbone={backbone}", *overrides)
        for recipe, overrides in CASE_WISE.items()
    }
    world = World(media, runs, backbone, others)
    made.write_text(json.dumps(asdict(world), default=str))
    return world


def _read(record: dict) -> World:
    others = {recipe: Path(run) for recipe, run in record.pop("others").items()}
    return World(**{name: Path(path) for name, path in record.items()}, others=others)
