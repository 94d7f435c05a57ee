"""What a recipe computes is pinned with its revision: a change of either without the other fails here.

Changed on purpose: raise the recipe's revision in `trainers/recipes.py`, and pin the losses that this test prints.
Runs of the old revision are then other runs, and none of them is taken for a new one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.asking import AVR, RMM, asking_world, settings
from tests.fixtures.dense import dense_world
from tests.test_loop import STEPS, Log, case_wise, finetune, fuse
from tests.test_loop import world as world
from trainers.avqa.config import AnyRecoveryConfig, AVQAConfig, AVRConfig, RMMConfig
from trainers.classification.config import AdapterConfig, DenseConfig, LoraConfig, PromptConfig
from trainers.config import TrainConfig
from trainers.loop import Rank, train_stage
from trainers.recipes import RECIPES, recipe_of

pytestmark = pytest.mark.integration
PINNED: dict[str, tuple[int, list[float]]] = {  # recipe -> revision, training losses of two epochs
    "finetune": (2, [2.381488681, 1.51037995]),
    "dense": (1, [9.749439478, 4.586146355]),
    "fuse": (2, [2.582884828, 2.062794209]),
    "prompt": (2, [1.05826954, 1.01084427]),
    "lora": (2, [1.277270794, 1.247767051]),
    "adapter": (2, [1.27682515, 1.248194416]),
    "avqa": (4, [6.983683904, 6.976646794]),
    "recovery": (3, [3.090842758, 3.074477911]),
    "rmm": (3, [2.688095365, 2.676804304]),
    "avr": (3, [0.4003719006, 0.4045647085]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 24})
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_world(tmp_path_factory.mktemp("dense"), {"train": 16})


def config(recipe: str, world: Path, root: Path, dense: Path) -> TrainConfig:
    """A small run of a recipe, every part of it at work."""
    shared = {k: v for k, v in settings(root).items() if k in ("data", "questions", "batch_size", "workers", "cpus")}
    makers = {
        "finetune": lambda: finetune(world, epochs=2),
        "dense": lambda: DenseConfig(
            data=dense / "media",
            backbone=dense / "run",
            targets=dense / "targets.jsonl",
            side=2,
            epochs=2,
            batch_size=8,
        ),
        "fuse": lambda: fuse(world, epochs=2),
        "prompt": lambda: case_wise(PromptConfig, world, epochs=2, deep=True),
        "lora": lambda: case_wise(LoraConfig, world, epochs=2),
        "adapter": lambda: case_wise(AdapterConfig, world, epochs=2),
        "avqa": lambda: AVQAConfig(**settings(root, "avst", "rmm_avr", epochs=2)),
        "recovery": lambda: AnyRecoveryConfig(**shared, epochs=2, recovery="rmm_avr", sizes={"rmm": RMM, "avr": AVR}),
        "rmm": lambda: RMMConfig(**shared, epochs=2, sizes=RMM),
        "avr": lambda: AVRConfig(**shared, epochs=2, sizes=AVR),
    }
    return makers[recipe]()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_change_of_what_is_computed_raises_the_revision(recipe, world, root, dense, tmp_path):
    run, log = config(recipe, world, root, dense), Log()
    (stage,) = recipe_of(run).stages(run)
    train_stage(stage, run, Rank(), tmp_path, log)
    found = (RECIPES[recipe].revision, [metrics["loss"] for _, _, metrics in log])
    revision, losses = PINNED[recipe]
    told = f"{recipe} computes {found}, pinned is {PINNED[recipe]}; see the top of this file"
    assert found[1] == pytest.approx(losses, rel=1e-4), told
    assert found[0] == revision, told


def test_every_recipe_is_pinned():
    assert set(PINNED) == set(RECIPES)
    assert STEPS > 1
