"""Work in slots on Ray: as many as there is room for at the time; who dies is tried again, and who is to blame."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines import on_ray
from pipelines.on_ray import NODES, Flow, Slot, _Losses, _Lost, run_in_slots, run_tasks
from pipelines.throttle import Turns, run_throttle
from shards.errors import InputError

OUT = Path("out")


@dataclass(frozen=True)
class Item:
    name: str


ITEMS = [Item(f"i{n}") for n in range(6)]


def slow(item: Item) -> str:
    time.sleep(0.15)
    return item.name * 2


def deadly(item: Item, folder: Path) -> int:
    """How often it was begun; i1 dies twice, i2 whenever it is begun."""
    with (folder / item.name).open("a") as file:
        file.write("x")
    begun = len((folder / item.name).read_text())
    if (item.name == "i1" and begun < 3) or item.name == "i2":
        os._exit(9)
    return begun


def overlapping(item: Item, turns: Turns) -> tuple[float, float]:
    """When it had its turn, by the system's clock."""
    while not (turn := turns.ask("s3://a"))[0]:
        time.sleep(turn[1])
    begin = time.monotonic()
    time.sleep(0.1)
    end = time.monotonic()
    turns.give_back("s3://a", turn[0])
    return begin, end


@pytest.mark.unit
def test_a_nodes_end_is_no_failure_of_the_shard():
    losses = _Losses(tries=1, out=OUT)
    pauses = [losses.note("a", _Lost(by_node=True)) for _ in range(NODES)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert max(pauses) == on_ray.LONGEST
    assert losses.note("a", _Lost(by_node=False)) == 0
    assert losses.with_nodes == NODES
    with pytest.raises(InputError, match="the worker of shard a died 2 times"):
        losses.note("a", _Lost(by_node=False))
    with pytest.raises(InputError, match=f"shard a was lost with its node {NODES + 1} times"):
        losses.note("a", _Lost(by_node=True))


@pytest.mark.unit
def test_without_ray_the_queue_is_told_too():
    told: list[Flow] = []
    assert list(run_tasks(slow, ITEMS[:2], (), 0, 1, OUT, told.append)) == [("i0", "i0i0"), ("i1", "i1i1")]
    assert [(flow.waiting, flow.at_work, flow.done) for flow in told] == [(1, 1, 0), (0, 1, 1), (0, 0, 2)]
    assert Flow(12, 4, 4, 7, 1).line("decode") == "12 to decode, 4 in flight of 4, 7 done, 1 lost with nodes"


@pytest.mark.ray
def test_slots_follow_the_room_that_there_is(ray_cluster, monkeypatch):
    import ray

    monkeypatch.setattr(on_ray, "LOOK", 0.1)
    rooms, told = iter([1, 1, 3, 2, *[2] * 1000]), list[Flow]()
    task = ray.remote(slow)
    found = dict(
        run_in_slots(ITEMS, lambda: Slot(task.remote), lambda: next(rooms), tries=0, out=OUT, watch=told.append)
    )
    assert found == {item.name: item.name * 2 for item in ITEMS}
    assert all(flow.waiting + flow.at_work + flow.done == len(ITEMS) for flow in told)
    assert {flow.slots for flow in told} == {1, 2, 3}
    assert max(flow.at_work for flow in told) > 1
    assert told[-1].done == len(ITEMS)


@pytest.mark.ray
def test_who_dies_is_tried_again_so_often_and_the_others_are_made(ray_cluster, tmp_path):
    found = dict(run_tasks(deadly, [ITEMS[0], ITEMS[1]], (tmp_path,), 2, 2, OUT))
    assert found == {"i0": 1, "i1": 3}
    with pytest.raises(InputError, match="the worker of shard i2 died 2 times"):
        list(run_tasks(deadly, [ITEMS[2]], (tmp_path,), 2, 1, OUT))
    assert (tmp_path / "i2").read_text() == "xx"


@pytest.mark.ray
def test_turns_are_shared_by_all_workers_of_a_run(ray_cluster):
    with run_throttle(1, None, 2) as turns:
        assert turns is not None
        times = sorted(span for _, span in run_tasks(overlapping, ITEMS, (turns,), 2, 0, OUT))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    assert Counter(name for name, _ in run_tasks(slow, ITEMS, (), 2, 0, OUT)) == Counter(item.name for item in ITEMS)
