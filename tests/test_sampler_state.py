"""Resuming between any two batches, with other ranks and loader processes: the same samples to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.batch import AVBatch
from shards.positions import hashed
from shards.reader import ShardDataset
from shards.streaming import StreamDataset
from tests.fixtures.builders import LABELS, SMALL, feature_dataset
from trainers.classification.items import FeatureItems
from trainers.data import Items, epoch_order
from trainers.sampler_state import Position, epoch_batches, last_taken
from trainers.streams import Lanes

pytestmark = pytest.mark.integration
BATCH, EPOCHS = 4, 2


@pytest.fixture(scope="module", params=["by position", "4 lanes", "3 lanes"])
def items(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Items:
    folder = tmp_path_factory.mktemp("features")
    feature_dataset(folder, {"train": 19}, SMALL, "f" * 64)
    if request.param == "by position":
        return FeatureItems(ShardDataset(folder, "train"), LABELS, "noisy_both", missing=0.3)
    items = FeatureItems(StreamDataset(folder, "train"), LABELS, "noisy_both", missing=0.3)
    items.lanes = Lanes(int(request.param[0]), buffer=6)
    return items


def ranks_together(items: Items, position: Position, world: int, loaders: int = 0) -> list[tuple]:
    """The rest of an epoch: per global batch its rows, sample by sample, and the position after it."""
    own = [
        list(epoch_batches(items, position, seed=0, batch_size=BATCH, rank=r, world=world, loaders=loaders))
        for r in range(world)
    ]
    assert len({len(batches) for batches in own}) == 1
    out = []
    for step in zip(*own, strict=True):
        assert len({(len(batch), reached) for batch, reached in step}) == 1
        rows = {int(batch.index[i]): row(batch, i) for batch, _ in step for i in range(len(batch))}
        out.append((rows, step[0][1]))
    return out


def row(batch: AVBatch, i: int) -> tuple[bytes, ...]:
    """To the bit, NaN included."""
    return tuple(x[i].numpy().tobytes() for x in (batch.audio, batch.visual, batch.present, batch.label))


def run(items: Items, position: Position, world: int, loaders: int = 0) -> list[tuple]:
    out: list[tuple] = []
    while position.epoch < EPOCHS:
        out += ranks_together(items, position, world, loaders)
        position = out[-1][1]
    return out


@pytest.mark.parametrize("world", [1, 2, 4])
def test_k_batches_and_the_rest_are_all_batches_for_every_k_and_world(items, world):
    whole = run(items, Position(), 1)
    assert len(whole) == EPOCHS * (19 // BATCH)
    for k, (_, reached) in enumerate(whole, 1):
        assert run(items, Position(**reached.state()), world) == whole[k:]


@pytest.mark.parametrize("loaders", [1, 2])
def test_loader_processes_change_nothing(items, loaders):
    whole = run(items, Position(), 1)
    assert run(items, whole[5][1], 3 - loaders, loaders) == whole[6:]


@given(
    size=st.integers(1, 60),
    batch=st.integers(1, 20),
    worlds=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    cut=st.integers(0, 20),
)
@settings(max_examples=200, deadline=None)
def test_no_sample_twice_and_ranks_are_even_under_any_change(size, batch, worlds, cut):
    taken: list[int] = []
    ids = hashed(map(str, range(size)))
    for world, steps in ((worlds[0], cut), (worlds[1], None)):
        whole = max(1, batch // world) * world
        at = len(taken)
        end = last_taken(size, 1.0, whole, at)
        orders = [epoch_order(ids, 0, 3, rank=r, world=world, taken=at) for r in range(world)]
        assert len({len(order) for order in orders}) == 1
        mixed = [i for step in zip(*orders, strict=True) for i in step][: end - at]
        taken += mixed if steps is None else mixed[: steps * whole]
        if len(taken) == size:
            break
    assert len(set(taken)) == len(taken) <= size
    assert taken == epoch_order(ids, 0, 3)[: len(taken)].tolist()
    assert torch.tensor(taken).numel() > 0
