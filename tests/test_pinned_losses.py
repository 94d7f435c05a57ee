"""Losses of a few steps of the question-answering recipes: they change only when what a recipe computes does.

The values were computed before the recovery contract of `models.avqa.contract`, which changed no bit of them on
the machine that made them; other machines may round otherwise. Those of networks were computed again when every sample
of a batch came to weigh the same (revision 3), which changed no bit of batches that are complete, as the first one is.
Those with a diffusion were again when the step's generator came to draw its noise (revision 4), and those of methods
alone when they came to train on complete clips (their revision 3); "avst zero" and "avst rmm" kept their bits.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fixtures.asking import AVR, RMM, asking_world, question_stages, settings
from trainers.avqa.config import AVQAConfig, AVRConfig, QuestionConfig, RMMConfig
from trainers.loop import seeded

pytestmark = pytest.mark.integration
PINNED: dict[str, list[float]] = {
    "avst zero": [1.960716486, 1.887487411, 1.86462307, 1.860467672],
    "avst rmm": [7.842107773, 6.203291416, 6.400364399, 5.88226223],
    "avst rmm_avr": [8.498161316, 6.79152298, 6.985833168, 6.245038033],
    "avsd rmm_avr": [7.948616982, 6.376854897, 6.603456497, 6.046600819],
    "lavit rmm_avr": [8.176342964, 5.496482849, 5.915797234, 6.543631077],
    "pstp rmm_avr": [7.822710991, 6.240559578, 6.45594883, 5.955758095],
    "rmm": [2.753499746, 2.588166714, 2.875715733, 2.479745865],
    "avr": [0.3441525698, 0.2459589243, 0.4600169659, 0.4117243886],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 24})
    return folder


def config(root: Path, name: str) -> QuestionConfig:
    network, _, recovery = name.partition(" ")
    if recovery:
        return AVQAConfig(**settings(root, network, recovery))
    shared = {k: v for k, v in settings(root).items() if k in ("data", "questions", "batch_size", "workers", "cpus")}
    return RMMConfig(**shared, sizes=RMM) if name == "rmm" else AVRConfig(**shared, sizes=AVR)


def losses(config: QuestionConfig, steps: int) -> list[float]:
    """Of training steps on batches of eight, some of whose samples lack a modality."""
    (stage,) = question_stages(config)
    objective = stage.objective.train()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    out = []
    for step in range(steps):
        batch = stage.train.batch([(8 * step + 5 * i) % len(stage.train) for i in range(8)])
        with seeded(torch.device("cpu"), 0, step):
            loss = objective(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out


@pytest.mark.parametrize("name", PINNED)
def test_losses_are_the_pinned_ones(root, name):
    assert losses(config(root, name), len(PINNED[name])) == pytest.approx(PINNED[name], rel=1e-4)
