"""Turns at the sources of clips (a host, a bucket): so many requests together, so many a second, none while a source
asks for a pause. Held by one process, or by a Ray actor for all workers of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from configs.cluster import ray_session
from shards.repeated import repeated
from shards.store import Requests, StorePath

LOOK = 0.1  # seconds before a full or pausing source is asked for again
KEPT = 300.0  # seconds after which a turn that nobody renews is given away: its worker is gone


class Turns(Protocol):
    """Who gives turns."""

    def ask(self, source: str) -> tuple[int, float]: ...
    def held(self, source: str) -> float: ...
    def renew(self, source: str, turn: int) -> None: ...
    def give_back(self, source: str, turn: int) -> None: ...
    def hold(self, source: str, seconds: float) -> None: ...


@dataclass
class _Source:
    turns: dict[int, float] = field(default_factory=dict)  # when each is given away
    next: float = 0.0  # when the next request may begin
    held: float = 0.0  # until when none may


class Throttle:
    """Turns of all sources.

    Args:
        at_once: turns of one source that are out together; None: any.
        per_second: turns of one source that begin in a second; None: any.
        clock: seconds, monotonic.
    """

    def __init__(
        self, at_once: int | None = None, per_second: float | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self.at_once, self.pause, self._clock = at_once, 1 / per_second if per_second else 0.0, clock
        self._sources: dict[str, _Source] = {}
        self._lock, self._last = threading.Lock(), 0

    def ask(self, source: str) -> tuple[int, float]:
        """A turn, to be given back, and the seconds until it begins; 0: none now, ask again after so many seconds."""
        with self._lock:
            now, state = self._clock(), self._sources.setdefault(source, _Source())
            if state.held > now:
                return 0, state.held - now
            state.turns = {turn: end for turn, end in state.turns.items() if end > now}
            if self.at_once is not None and len(state.turns) >= self.at_once:
                return 0, LOOK
            begin = max(now, state.next)
            state.next, self._last = begin + self.pause, self._last + 1
            state.turns[self._last] = begin + KEPT
            return self._last, begin - now

    def held(self, source: str) -> float:
        """Seconds for which the source still asks for a pause."""
        with self._lock:
            state = self._sources.get(source, _Source())
            return max(state.held - self._clock(), 0.0)

    def renew(self, source: str, turn: int) -> None:
        """The request goes on."""
        with self._lock:
            self._sources[source].turns[turn] = self._clock() + KEPT

    def give_back(self, source: str, turn: int) -> None:
        """The request has ended."""
        with self._lock:
            self._sources[source].turns.pop(turn, None)

    def hold(self, source: str, seconds: float) -> None:
        """The source asks for a pause."""
        with self._lock:
            state = self._sources.setdefault(source, _Source())
            state.held = max(state.held, self._clock() + seconds)


@dataclass(frozen=True)
class Shared:
    """The same from a Ray actor."""

    actor: Any

    def ask(self, source: str) -> tuple[int, float]:
        """As `Throttle.ask`."""
        import ray

        turn, seconds = ray.get(self.actor.ask.remote(source))
        return turn, seconds

    def held(self, source: str) -> float:
        """As `Throttle.held`."""
        import ray

        return ray.get(self.actor.held.remote(source))

    def renew(self, source: str, turn: int) -> None:
        """As `Throttle.renew`."""
        self.actor.renew.remote(source, turn)

    def give_back(self, source: str, turn: int) -> None:
        """As `Throttle.give_back`."""
        self.actor.give_back.remote(source, turn)

    def hold(self, source: str, seconds: float) -> None:
        """As `Throttle.hold`."""
        self.actor.hold.remote(source, seconds)


@contextmanager
def run_throttle(at_once: int | None, per_second: float | None, workers: int | None) -> Iterator[Turns | None]:
    """For all workers of a run: an actor on the driver's node, which lives as long as the run; where all is done in
    this process (``workers``: 0), here. None: nothing is limited."""
    if workers == 0 or (at_once is None and per_second is None):
        yield Throttle(at_once, per_second) if workers == 0 else None
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with ray_session(workers):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        kind: Any = ray.remote(Throttle)
        actor = kind.options(num_cpus=0, scheduling_strategy=here).remote(at_once, per_second)
        try:
            yield Shared(actor)
        finally:
            ray.kill(actor)


def requests(address: StorePath, turns: Turns, tries: int) -> Requests:
    """How an address is asked: in turn with all others of its source."""

    @contextmanager
    def turn() -> Iterator[None]:
        number = _begun(turns, address.source)
        try:
            with repeated(lambda: turns.renew(address.source, number), KEPT / 3, "turn"):
                yield
        finally:
            turns.give_back(address.source, number)

    return Requests(tries, turn, lambda seconds: turns.hold(address.source, seconds))


def _begun(turns: Turns, source: str) -> int:
    """A turn that begins now; one that the source asked to pause in the meantime is given back."""
    while True:
        number, seconds = turns.ask(source)
        time.sleep(seconds)
        if number and not (seconds and turns.held(source)):
            return number
        if number:
            turns.give_back(source, number)
