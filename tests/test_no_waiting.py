"""A training step never waits for the device: nothing is read back from it.

The meta device has shapes and no values, so any read of a value raises there: `item`, `bool`, `nonzero`, an
index of booleans, a copy to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from models.batch import take_away
from models.host import index, moved, on_host
from models.modality import all_present
from tests.fixtures.asking import RECOVERY_SIZES, SIZES, asking_world, question_stages, settings
from trainers.avqa.config import AVQAConfig

PAIRS = [(n, "zero") for n in SIZES] + [("avst", r) for r in RECOVERY_SIZES if r not in ("zero", "dropout")]
READS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "nonzero": lambda x: x.nonzero(),
    "index of booleans": lambda x: x[x > 1],
    "copy": lambda x: x.cpu(),
    "lengths": lambda x: pack_padded_sequence(x[:, None, None], x.long().cpu()),
    "values not remembered": on_host,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of which some lack a modality."""
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 12})
    return folder


def shorter(sizes: dict[str, Any]) -> dict[str, Any]:
    """Diffusion in two steps: one that is not the last, and the last."""
    parts = {name: shorter(size) if isinstance(size, dict) else size for name, size in sizes.items()}
    return parts | ({"timesteps": 2} if "timesteps" in parts else {})


@pytest.mark.integration
@pytest.mark.parametrize(("network", "recovery"), PAIRS)
def test_a_step_reads_nothing_from_the_device(root, network, recovery):
    sizes = shorter(RECOVERY_SIZES[recovery])
    (stage,) = question_stages(AVQAConfig(**settings(root, network, recovery, recovery_sizes=sizes)))
    objective = stage.objective.train().to("meta")
    objective.alternate_missing, objective.distillation = network == "avsd", 1.0
    output = objective(stage.train.batch(range(24)).to("meta"))
    loss, figures = output.loss, output.metrics
    loss.backward()
    assert loss.is_meta
    assert "ce_complete" in figures


@pytest.mark.unit
@pytest.mark.parametrize("read", READS)
def test_the_meta_device_refuses_every_read(read):
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|fake"):
        READS[read](torch.arange(3.0, device="meta"))


@pytest.mark.unit
def test_values_stay_known_through_moving_selecting_and_taking_away(root):
    (stage,) = question_stages(AVQAConfig(**settings(root)))
    batch = stage.train.batch(range(24))
    there = batch.to("meta")
    assert (on_host(there.present) == batch.present.numpy()).all()
    rows = batch.present.all(dim=1)
    some = there.select(moved(rows, "meta"))
    assert len(some) == int(rows.sum())
    assert (on_host(some.question) == batch.question[rows].numpy()).all()
    less = take_away(some, "audio")
    assert on_host(less.present).tolist() == [[False, True]] * len(some)
    assert [(m, len(r)) for m, r in less.groups()] == [(("visual",), len(some))]
    assert on_host(all_present(3, torch.device("meta"))).all()
    for positions in ([0, 1, 2], [1, 4, 7], [5, 2], [3], []):
        found = index(torch.tensor(positions, dtype=torch.int64).numpy(), torch.device("cpu"))
        assert (found.tolist(), found.dtype) == (positions, torch.int64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("network", SIZES)
def test_a_step_does_not_synchronise_a_gpu(root, network):
    (stage,) = question_stages(AVQAConfig(**settings(root, network, "rmm_avr")))
    objective = stage.objective.train().to("cuda")
    batch = stage.train.batch(range(24)).to("cuda")
    objective(batch).loss.backward()  # libraries load at their first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        objective(batch).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
