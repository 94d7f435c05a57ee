"""Requests to a store, in their order: to a file at once, to a server from a thread of their own, so that no
training waits for one that is dead, slow or refuses."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from trainers.tracking.address import NO_ENTRY, NO_SERVER, reason

logger = logging.getLogger(__name__)
QUICK, RECENT = 1.0, 30.0  # seconds: of a failed try that may be repeated at once; after which any may
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two tries of a server that does not answer
REFUSED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "ABORTED", "IO_ERROR"} | REFUSED
Request = Callable[[], object]


class Delivery:
    """A server's queue. A request that fails because the server is away or refuses entry is tried again, and those
    after it wait; one that the server finds wrong is dropped, with its reason in its future.

    Args:
        shown: the store's address, without passwords.
    """

    def __init__(self, shown: str):
        self.shown, self.is_down = shown, False
        self._queue: deque[tuple[Request, Future[object]]] = deque()
        self._changed = threading.Condition()
        self._tries = self._failed = 0  # the number of the last try, and of the last that failed
        self._outage = 0  # tries that failed since the server went away
        self._waiters = 0
        self._failed_at, self._failed_after = 0.0, 0.0
        self._thread: threading.Thread | None = None

    def put(self, request: Request) -> Future[object]:
        """Deliver `request` after those that were put before."""
        future: Future[object] = Future()
        with self._changed:
            self._queue.append((request, future))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return future

    @property
    def waiting(self) -> int:
        """How many requests were not delivered yet."""
        return len(self._queue)

    def wait(self, future: Future[object], seconds: float) -> bool:
        """Whether a request was delivered, or dropped, in at most so many seconds; a server that is away is asked
        once more (not where that took long a moment ago), and not waited for."""
        end = time.monotonic() + seconds
        with self._changed:
            if self.is_down and self._failed_after > QUICK and time.monotonic() - self._failed_at < RECENT:
                return future.done()
            begin = self._tries
            self._waiters += 1
            self._changed.notify_all()
            while not future.done() and (left := end - time.monotonic()) > 0:
                if self.is_down and self._failed > begin:
                    break
                self._changed.wait(min(left, 1.0))
            self._waiters -= 1
            return future.done()

    def drop(self) -> int:
        """Forget what was not delivered; a request that is under way is let end. How many that were."""
        with self._changed:
            left = len(self._queue)
            for _, future in self._queue:
                future.cancel()
            self._changed.notify_all()
            return left

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                request, future = self._queue[0]
            if future.cancelled() or self._try(request, future):
                with self._changed:
                    self._queue.popleft()
                    self._outage, self.is_down = 0, self.is_down and future.cancelled()
                    self._changed.notify_all()
            else:
                self._pause()

    def _try(self, request: Request, future: Future[object]) -> bool:
        """Whether the request is done with."""
        begin = time.monotonic()
        self._tries += 1
        try:
            result = request()
        except Exception as error:
            if future.cancelled():
                return True
            if is_passing(error):
                self._failed_at = time.monotonic()
                self._failed_after = self._failed_at - begin
                self._say(error)
                return False
            future.set_exception(error)
        else:
            with self._changed:
                if not future.cancelled():
                    future.set_result(result)
        return True

    def _say(self, error: Exception) -> None:
        """Once per outage."""
        if not self.is_down:
            refused = isinstance(error, MlflowException) and error.error_code in REFUSED
            logger.warning(
                "MLflow store %s: %s; the work goes on, its results are on disk, and what is missing there is copied "
                "when it answers, now or by the same command later\n  remedy: %s",
                self.shown,
                reason(error),
                NO_ENTRY if refused else NO_SERVER,
            )

    def _pause(self) -> None:
        with self._changed:
            self.is_down, self._failed = True, self._tries
            self._outage += 1
            self._changed.notify_all()
            end = time.monotonic() + min(FIRST_PAUSE * 2 ** min(self._outage - 1, 10), LONGEST_PAUSE)
            while (left := end - time.monotonic()) > 0 and not self._waiters and not self._queue[0][1].cancelled():
                self._changed.wait(left)


def is_passing(error: Exception) -> bool:
    """Whether the same request may go well later: nobody answered, entry was refused, or the server failed."""
    if isinstance(error, MlflowException):
        return error.error_code in PASSING
    return isinstance(error, OSError | SQLAlchemyError) and not isinstance(error, FileNotFoundError)
