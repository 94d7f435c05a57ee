"""Shards as work for Ray, on the nodes that are there: each slot makes one at a time, results are taken as they come.

Nodes may join and leave. There are as many slots as the cluster has room for, looked at every second; what is lost with
a node is made elsewhere, and does not count as a failure of the shard's own. Two kinds of work may stand in line, the
second on what the first has made: between them is a bounded queue.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from configs.cluster import ray_session
from shards.errors import InputError
from shards.store import Place

LOOK = 1.0  # seconds between two looks at the cluster
NODES = 20  # that one shard may take part in losing before it counts as the cause
LONGEST = 30.0  # seconds before what was lost is tried again; doubled each time up to this
AHEAD = 2  # items between two stages, for each slot of the second: one it works on, one that waits for it


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str: ...


ItemT = TypeVar("ItemT", bound=Named)
NextT = TypeVar("NextT", bound=Named)
Submit = Callable[[ItemT], Any]  # starts the work on one item and returns its ObjectRef


@dataclass(eq=False)
class Slot(Generic[ItemT]):
    """Makes one item at a time.

    Attributes:
        submit: starts it.
        starting: of an actor: ObjectRef of its node's id, which is there once it takes items.
        close: ends an actor.
        node: of an actor, once it is up.
    """

    submit: Submit[ItemT]
    starting: Any = None
    close: Callable[[], None] | None = None
    node: str | None = None


@dataclass(frozen=True)
class Stage(Generic[ItemT]):
    """How items of one kind are made.

    Attributes:
        make: another slot. An actor that never comes up holds nothing back while others work.
        room: how many slots there may be now.
        tries: how often an item is tried again after its worker died, its node's end not counted.
    """

    make: Callable[[], Slot[ItemT]]
    room: Callable[[], int]
    tries: int = 0


@dataclass(frozen=True)
class Flow:
    """Where the shards are: the queue before the workers is bounded by the slots, the rest waits here.

    Attributes:
        lost: with nodes, each time counted.
        held: slots are free, and what waits does so for the next stage.
    """

    waiting: int
    at_work: int
    slots: int
    done: int
    lost: int = 0
    held: bool = False

    def line(self, work: str) -> str:
        """``12 to decode, 4 in flight of 4, 7 done, 1 lost with nodes``."""
        lost = f", {self.lost} lost with nodes" if self.lost else ""
        return f"{self.waiting} to {work}, {self.at_work} in flight of {self.slots}, {self.done} done{lost}"


Watch = Callable[[Flow], None]
WatchBoth = Callable[[Flow, Flow], None]


def run_in_slots(
    items: Sequence[ItemT], stage: Stage[ItemT], *, out: Place, watch: Watch = lambda _: None
) -> Iterator[tuple[str, Any]]:
    """Name and result of each item, in the order in which they are finished.

    Args:
        out: the folder, for messages.
        watch: is told at least every second where the items are.

    Raises:
        InputError: as the work raised it; or a worker died once too often.
        OSError: as the work raised it.
    """
    pool = _Pool(items, stage, out)
    try:
        while pool.left:
            pool.look()
            pool.submit()
            watch(pool.flow())
            for reference in _ready(pool.running):
                yield from pool.take(reference)
        watch(pool.flow())
    finally:
        pool.close()


def run_in_line(
    items: Sequence[ItemT],
    first: Stage[ItemT],
    second: Stage[NextT],
    following: Callable[[str, Any], NextT | None],
    *,
    before: Sequence[NextT] = (),
    out: Place,
    watch: WatchBoth = lambda _, __: None,
) -> Iterator[tuple[str, Any]]:
    """Name and result of each item of both stages, in the order in which they are finished.

    What the first stage makes is work for the second at once. Between them are no more than `places` items: where the
    second lags, no item of the first is begun.

    Args:
        following: name and result of the first stage to the second's item; None: nothing follows.
        before: items of the second that are there already; done where nothing newer waits, and not counted among those
            between the stages.
        out, watch: as of `run_in_slots`.

    Raises:
        as `run_in_slots`.
    """
    making, using = _Pool(items, first, out), _Pool(before, second, out, to_come=len(items))
    newer = {item.name for item in items}
    between = 0
    try:
        while making.left or using.left:
            for pool in (making, using):
                pool.look()
            using.submit()
            making.submit(places(making.slots, using.slots) - between)
            watch(making.flow(), using.flow())
            for reference in _ready([*making.running, *using.running]):
                if reference in using.running:
                    for name, result in using.take(reference):
                        between -= name in newer
                        yield name, result
                    continue
                for name, result in making.take(reference):
                    item = following(name, result)
                    if item is not None:
                        between += 1
                        using.add(item)
                    yield name, result
        watch(making.flow(), using.flow())
    finally:
        making.close()
        using.close()


def places(first: int, second: int) -> int:
    """How many items may be begun by the first stage and not be done by the second, of so many slots each.

    All slots of the first may be at work while the second has what it needs.
    """
    return first + AHEAD * second


def _ready(running: Iterable[Any]) -> list[Any]:
    """What is there within a second."""
    import ray

    if not (references := list(running)):
        time.sleep(LOOK / 10)
        return []
    return ray.wait(references, num_returns=1, timeout=LOOK)[0]


class _Pool(Generic[ItemT]):
    """Slots, what each of them makes, and what waits for one.

    Args:
        to_come: how many more may be added, which are made before `items`.
    """

    def __init__(self, items: Sequence[ItemT], stage: Stage[ItemT], out: Place, to_come: int = 0):
        self.make, self.room, self.losses = stage.make, stage.room, _Losses(stage.tries, out)
        self.waiting = [(0.0, number, item) for number, item in enumerate(items, to_come)]  # not before, in order
        self.added = count()
        self.free: list[Slot[ItemT]] = []
        self.running: dict[Any, tuple[Slot[ItemT], tuple[int, ItemT] | None]] = {}
        self.slots, self.looked, self.failed_start = 0, -LOOK, -LOOK
        self.left = self.total = len(items)
        self.held = False

    def look(self) -> None:
        """Follow the cluster: new slots where there is more room; where there is less, those that are not up end."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.slots, self.looked = self.room(), time.monotonic()
        while len(self.free) + len(self.running) < self.slots:
            slot = self.make()
            if slot.starting is None:
                self.free.append(slot)
            else:
                self.running[slot.starting] = (slot, None)
        beyond = len(self.free) + len(self.running) - self.slots
        starting = [reference for reference, (_, work) in self.running.items() if work is None]
        for reference in starting[::-1][: max(beyond, 0)]:
            _end(self.running.pop(reference)[0])

    def add(self, item: ItemT) -> None:
        """One more item."""
        heapq.heappush(self.waiting, (0.0, next(self.added), item))
        self.left, self.total = self.left + 1, self.total + 1

    def submit(self, at_most: float = math.inf) -> None:
        """Give each free slot an item, while no more than `at_most` are at work."""
        self.held = False
        while self.free and self.waiting and self.at_work < self.slots:
            if self.waiting[0][0] > time.monotonic():
                return
            if self.at_work >= at_most:
                self.held = True
                return
            _, number, item = heapq.heappop(self.waiting)
            slot = self.free.pop()
            self.running[slot.submit(item)] = (slot, (number, item))

    def take(self, reference: Any) -> Iterator[tuple[str, Any]]:
        """What came of one of `running`: name and result of an item; nothing where it was lost, or an actor came up."""
        slot, work = self.running.pop(reference)
        try:
            result = _result(reference, slot)
        except _Lost as lost:
            self._again(slot, work, lost)
            return
        self.free.append(slot)
        if work is None:
            slot.node = result
            self.losses.started()
        else:
            self.left -= 1
            yield work[1].name, result

    def _again(self, slot: Slot[ItemT], work: tuple[int, ItemT] | None, lost: _Lost) -> None:
        if slot.starting is None:
            self.free.append(slot)
        else:
            _end(slot)  # another is made in its place
        if work is not None:
            pause = self.losses.note(work[1].name, lost)
            heapq.heappush(self.waiting, (time.monotonic() + pause, *work))
        elif self.looked != self.failed_start:  # one a look: a node may have taken many with it
            self.failed_start = self.looked
            self.losses.note("", _Lost(by_node=True))

    @property
    def at_work(self) -> int:
        """Items in slots."""
        return sum(work is not None for _, work in self.running.values())

    def flow(self) -> Flow:
        """Where the items are."""
        done, lost = self.total - self.left, self.losses.with_nodes
        return Flow(len(self.waiting), self.at_work, self.slots, done, lost, self.held)

    def close(self) -> None:
        """End the actors."""
        for slot in [*self.free, *(slot for slot, _ in self.running.values())]:
            _end(slot)


def _end(slot: Slot[Any]) -> None:
    if slot.close is not None:
        slot.close()


class _Lost(Exception):
    """The worker of an item is gone; ``by_node``: its node went, or had no memory left."""

    def __init__(self, by_node: bool):
        self.by_node = by_node


class _Losses:
    """How often each item was lost, by its own worker's death and with a node."""

    def __init__(self, tries: int, out: Place):
        self.tries, self.out = tries, out
        self._own, self._nodes = Counter[str](), Counter[str]()

    @property
    def with_nodes(self) -> int:
        """Items that were lost with a node, each time counted."""
        return self._nodes.total() - self._nodes[""]

    def started(self) -> None:
        """A worker did start."""
        del self._nodes[""]

    def note(self, name: str, lost: _Lost) -> float:
        """Seconds before it is tried again.

        Raises:
            InputError: it was lost too often.
        """
        times = self._nodes if lost.by_node else self._own
        times[name] += 1
        if times[name] <= (NODES if lost.by_node else self.tries):
            return min(LONGEST, 0.5 * 2.0 ** times[name]) if lost.by_node else 0.0
        what = f"shard {name} was lost with its node" if lost.by_node else f"the worker of shard {name} died"
        message = f"{what} {times[name]} times" if name else "a worker did not start"
        remedy = "look at the machine's memory and kernel log; the same command then goes on"
        raise InputError(message, file=self.out, remedy=remedy)


def _result(reference: Any, slot: Slot[ItemT]) -> Any:
    """Raises _Lost, or what the work raised."""
    import ray

    of = ray.exceptions
    try:
        return ray.get(reference)
    except of.RayTaskError as error:
        raise error.cause if isinstance(error.cause, (OSError, InputError)) else error from None
    except (of.NodeDiedError, of.ObjectLostError, of.OutOfMemoryError):
        raise _Lost(by_node=True) from None
    except of.RayActorError as error:
        raise _Lost(by_node=error.preempted or _is_gone(slot.node)) from None
    except (of.WorkerCrashedError, of.LocalRayletDiedError):
        raise _Lost(by_node=False) from None


def _is_gone(node: str | None) -> bool:
    import ray

    return node is not None and all(found["NodeID"] != node for found in ray.nodes() if found["Alive"])


def cluster_has(resource: str, before: int = 1) -> int:
    """How many CPUs or GPUs the nodes that are there have, 1 at least: what waits for one makes a cluster grow.

    Args:
        before: the answer while the cluster gives none.
    """
    import ray

    with suppress(ray.exceptions.RayError):
        return max(int(ray.cluster_resources().get(resource, 0)), 1)
    return before


def run_tasks(
    work: Callable[..., Any],
    items: Sequence[ItemT],
    arguments: Sequence[Any],
    workers: int | None,
    tries: int,
    out: Place,
    watch: Watch = lambda _: None,
) -> Iterator[tuple[str, Any]]:
    """Name and result of ``work(item, *arguments)`` for each item: one Ray task per item, never more in flight
    than can run soon; in the order in which they are finished.

    Args:
        workers: tasks at a time; ``None``: two per CPU that the cluster has at the time; 0: in this process,
            without Ray.
        tries: how often a task is tried again after its worker process died, its node's end not counted.
        out: the folder, for messages.
        watch: is told at least every second where the items are.

    Raises:
        as `run_in_slots`.
    """
    if workers == 0:
        for number, item in enumerate(items):
            watch(Flow(len(items) - number - 1, 1, 1, number))
            yield item.name, work(item, *arguments)
        watch(Flow(0, 0, 1, len(items)))
        return
    with ray_session(workers):
        yield from run_in_slots(items, task_stage(work, arguments, workers, tries), out=out, watch=watch)


def task_stage(
    work: Callable[..., Any], arguments: Sequence[Any], workers: int | None, tries: int, cpus: float = 1.0
) -> Stage[Any]:
    """``work(item, *arguments)`` as Ray tasks of so many CPUs each; else as `run_tasks`, within a Ray session."""
    import ray

    task = ray.remote(num_cpus=cpus, max_retries=0)(work)  # Ray's own count does not tell a node's end apart
    return Stage(
        lambda: Slot(lambda item: task.remote(item, *arguments)), lambda: workers or 2 * cluster_has("CPU"), tries
    )
