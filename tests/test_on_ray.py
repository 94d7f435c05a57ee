"""Work in slots on Ray: as many as there is room for at the time; who dies is tried again, and who is to blame."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines import on_ray
from pipelines.on_ray import (
    NODES,
    Flow,
    Slot,
    Stage,
    _Losses,
    _Lost,
    places,
    run_in_line,
    run_in_slots,
    run_tasks,
)
from pipelines.throttle import Turns, requests, run_throttle
from shards.errors import InputError
from shards.store import StorePath

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
    with requests(StorePath.of(f"s3://a/{item.name}"), turns, 1).turn():
        begin = time.monotonic()
        time.sleep(0.1)
        return begin, time.monotonic()


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


class Threads:
    """Two stages of threads in the place of Ray's workers, each item as slow as its stage says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.order: list[tuple[str, str]] = []  # stage and item, as they are begun
        self.told: list[tuple[Flow, Flow]] = []
        monkeypatch.setattr(on_ray, "_ready", self.ready)
        monkeypatch.setattr(on_ray, "_result", lambda reference, slot: reference.result())
        monkeypatch.setattr(on_ray, "LOOK", 0.01)

    def ready(self, running: Iterable[Future[str]]) -> list[Future[str]]:
        return list(wait(running, timeout=0.01, return_when=FIRST_COMPLETED).done)

    def stage(
        self, pool: ThreadPoolExecutor, name: str, slots: int, seconds: float, starting: Any = None
    ) -> Stage[Item]:
        def work(item: Item) -> str:
            time.sleep(seconds)
            return f"{name} {item.name}"

        def submit(item: Item) -> Future[str]:
            self.order.append((name, item.name))
            return pool.submit(work, item)

        return Stage(lambda: Slot(submit, starting), lambda: slots)

    def stop(self, running: Iterable[Future[str]]) -> list[Future[str]]:
        raise TimeoutError

    def run(
        self, items: list[Item], first: float, second: float, slots: tuple[int, int], late: bool = False, **more: Any
    ) -> list[Any]:
        """Results in their order; nine of ten items go on to the second stage.

        Args:
            late: slots of the second stage are up once the first has made all.
        """
        up = Future[str]()

        def following(name: str, result: str) -> Item | None:
            assert result == f"first {name}"
            return None if name.endswith("4") else Item(name)

        def watch(first: Flow, second: Flow) -> None:
            self.told.append((first, second))
            if first.done == len(items) and not up.done():
                up.set_result("node")

        with ThreadPoolExecutor(8) as pool:
            making = self.stage(pool, "first", slots[0], first)
            using = self.stage(pool, "second", slots[1], second, up if late else None)
            return [result for _, result in run_in_line(items, making, using, following, out=OUT, watch=watch, **more)]


@pytest.mark.unit
@pytest.mark.parametrize(("first", "second"), [(0.0, 0.01), (0.01, 0.0), (0.003, 0.003)])
def test_what_lies_between_two_stages_is_bounded(monkeypatch, first, second):
    threads = Threads(monkeypatch)
    items = [Item(f"i{n}") for n in range(30)]
    found = threads.run(items, first, second, (3, 2))
    wanted = [f"first i{n}" for n in range(30)] + [f"second i{n}" for n in range(30) if n % 10 != 4]
    assert sorted(found) == sorted(wanted), "each once"
    between = [a.at_work + b.waiting + b.at_work for a, b in threads.told]
    assert max(between) <= places(3, 2) == 7
    assert max(a.at_work for a, _ in threads.told) == 3, "all slots of the first are used"
    assert threads.told[-1][0].done == 30
    assert threads.told[-1][1].done == 27
    if second > first:  # the second lags: the queue is full, and free slots of the first wait
        assert max(between) == 7
        assert any(a.held and a.at_work < 3 for a, _ in threads.told)
    if first > second:  # the first lags: nothing waits for the second
        assert max(b.waiting for _, b in threads.told) <= 3
        assert not any(a.held for a, _ in threads.told)


@pytest.mark.unit
def test_what_was_there_before_is_not_counted_among_what_lies_between(monkeypatch):
    threads = Threads(monkeypatch)
    old, new = [Item(f"old{n}") for n in range(12)], [Item(f"i{n}") for n in range(4)]
    found = threads.run(new, 0.0, 0.01, (2, 1), before=old)
    assert len(found) == len(set(found)) == 4 + 4 + 12
    assert not any(a.held for a, _ in threads.told), "the old hold nothing back"


@pytest.mark.unit
def test_all_that_is_new_is_made_before_the_old_by_workers_that_come_up_late(monkeypatch):
    threads = Threads(monkeypatch)
    old, new = [Item(f"old{n}") for n in range(3)], [Item(f"i{n}") for n in range(places(1, 1))]
    threads.run(new, 0.0, 0.0, (1, 1), late=True, before=old)
    begun = [name for stage, name in threads.order if stage == "second"]
    assert begun == ["i0", "i1", "i2", "old0", "old1", "old2"]


@pytest.mark.unit
def test_a_stage_whose_workers_never_come_up_stops_the_other_at_the_bound(monkeypatch):
    threads = Threads(monkeypatch)
    never = Future[str]()
    with ThreadPoolExecutor(4) as pool:
        second: Stage[Item] = Stage(lambda: Slot(lambda item: never, starting=never), lambda: 1)
        first = threads.stage(pool, "first", 3, 0.0)
        line = run_in_line([Item(f"i{n}") for n in range(30)], first, second, lambda name, _: Item(name), out=OUT)
        found = [next(line) for _ in range(places(3, 1))]
        monkeypatch.setattr(on_ray, "_ready", threads.stop)
        with pytest.raises(TimeoutError):
            next(line)
    assert len(threads.order) == len(found) == 5


@pytest.mark.unit
def test_where_room_is_lost_those_that_are_up_work_and_those_that_are_not_are_ended(monkeypatch):
    threads = Threads(monkeypatch)
    rooms, closed, told = iter([1, 3]), list[str](), list[Flow]()
    with ThreadPoolExecutor(1) as pool:
        up = threads.stage(pool, "only", 1, 0.02).make()
        late = [Slot(up.submit, Future[str](), lambda name=name: closed.append(name)) for name in ("b", "c")]
        slots = iter([up, *late])

        def watch(flow: Flow) -> None:
            told.append(flow)
            if len(told) > 500:
                raise TimeoutError

        stage: Stage[Item] = Stage(lambda: next(slots), lambda: next(rooms, 2 if len(told) < 4 else 1))
        found = [name for name, _ in run_in_slots(ITEMS, stage, out=OUT, watch=watch)]
    assert found == [item.name for item in ITEMS]
    assert told[-1].slots == 1
    assert closed == ["c", "b"], "the youngest first"


@pytest.mark.ray
def test_slots_follow_the_room_that_there_is(ray_cluster, monkeypatch):
    import ray

    monkeypatch.setattr(on_ray, "LOOK", 0.1)
    rooms, told = iter([1, 1, 3, 2, *[2] * 1000]), list[Flow]()
    task = ray.remote(slow)
    stage = Stage(lambda: Slot(task.remote), lambda: next(rooms))
    found = dict(run_in_slots(ITEMS, stage, out=OUT, watch=told.append))
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
    with run_throttle(1, 5, 2) as turns:
        assert turns is not None
        times = sorted(span for _, span in run_tasks(overlapping, ITEMS, (turns,), 2, 0, OUT))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    assert Counter(name for name, _ in run_tasks(slow, ITEMS, (), 2, 0, OUT)) == Counter(item.name for item in ITEMS)
