"""Shards as work for Ray: each slot makes one at a time, results are taken as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from configs.cluster import ray_session
from shards.errors import InputError
from shards.store import Place


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str: ...


ItemT = TypeVar("ItemT", bound=Named)
Submit = Callable[[ItemT], Any]  # starts the work on one item and returns its ObjectRef


def run_in_slots(
    items: Sequence[ItemT],
    slots: Sequence[Submit[ItemT]] = (),
    starting: Mapping[Any, Submit[ItemT]] | None = None,
    *,
    tries: int,
    out: Place,
) -> Iterator[tuple[str, Any]]:
    """Name and result of each item, in the order in which they are finished.

    Args:
        slots: what starts an item; each has at most one under way.
        starting: slots that take items once their ObjectRef is there (actors on their way up); one that never
            comes up holds nothing back while others work.
        tries: how often Ray tries an item again, for the message.
        out: the folder, for the message.

    Raises:
        InputError: as the work raised it; or a worker died once too often.
        OSError: as the work raised it.
    """
    import ray

    waiting, free = list(reversed(items)), list(slots)
    running: dict[Any, tuple[Submit[ItemT], str | None]] = {ref: (slot, None) for ref, slot in (starting or {}).items()}
    left = len(items)
    while left:
        while waiting and free:
            item, slot = waiting.pop(), free.pop()
            running[slot(item)] = (slot, item.name)
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        slot, name = running.pop(ready)
        result = _get(ready, name, tries, out)
        free.append(slot)
        if name is not None:
            left -= 1
            yield name, result


def _get(reference: Any, name: str | None, tries: int, out: Place) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, (OSError, InputError)) else error from None
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.RayActorError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
    ):
        message = f"the worker of shard {name} died {tries + 1} times" if name else "a worker did not start"
        remedy = "look at the machine's memory and kernel log; the same command then goes on"
        raise InputError(message, file=out, remedy=remedy) from None


def run_tasks(
    work: Callable[..., Any],
    items: Sequence[ItemT],
    arguments: Sequence[Any],
    workers: int | None,
    tries: int,
    out: Place,
) -> Iterator[tuple[str, Any]]:
    """Name and result of ``work(item, *arguments)`` for each item: one Ray task per item, never more in flight
    than can run soon; in the order in which they are finished.

    Args:
        workers: tasks at a time; ``None``: two per CPU; 0: in this process, without Ray.
        tries: how often a task is tried again after its worker process died.
        out: the folder, for messages.

    Raises:
        as `run_in_slots`.
    """
    if workers == 0:
        yield from ((item.name, work(item, *arguments)) for item in items)
        return
    import ray

    with ray_session(workers):
        task = ray.remote(num_cpus=1, max_retries=tries, retry_exceptions=False)(work)
        limit = workers or 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        yield from run_in_slots(items, [lambda item: task.remote(item, *arguments)] * limit, tries=tries, out=out)
