"""One line that tells how far long work is: stage, rate, share of time spent waiting for data, time left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

TERMINAL_SECONDS = 0.1  # a terminal's line is rewritten at most this often
PLAIN_SECONDS = 5.0  # a log file gets a line at most this often


class Progress:
    """Progress of ``total`` units of work, rewritten in place on a terminal, plain lines elsewhere.

    >>> with Progress("ingest", total=480, stage="2/6") as progress:
    ...     for clip in clips:
    ...         progress.advance(failed=3)

    Args:
        label: what is being done, one word if possible.
        total: units of work in all; ``None`` if unknown.
        unit: plural name of a unit.
        stream: where the line goes; ``None`` means standard error.
        clock: seconds, monotonic; injected by tests.
        stage: place of this work in a longer job, such as ``2/6``.
        done: units that were finished before (a resumed job); they count as done, not in the rate.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str = "clips",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        stage: str | None = None,
        done: int = 0,
    ):
        self.label, self.total, self.unit, self.stage = label, total, unit, stage
        self.done = self._resumed = done
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._extra: dict[str, float | str] = {}
        self._waited: float | None = None
        self._start = self._shown = clock()

    def __enter__(self) -> Progress:
        self._start = self._shown = self._clock()
        if self._terminal:
            self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._write(self.line(end="stopped after" if kind else "done in") + "\n")

    def advance(self, n: int = 1, **extra: float | str) -> None:
        """Count ``n`` more units as done; ``extra`` (a loss, say) is shown at the end of the line."""
        self.done += n
        self._extra.update(extra)
        interval = TERMINAL_SECONDS if self._terminal else PLAIN_SECONDS
        if self._clock() - self._shown >= interval:
            self._show()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data; its share of all time is then shown."""
        begin = self._clock()
        try:
            yield
        finally:
            self._waited = (self._waited or 0.0) + self._clock() - begin

    @property
    def elapsed(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._start

    @property
    def waiting_share(self) -> float:
        """Share of the elapsed time spent inside :meth:`waiting`, 0 to 1."""
        return (self._waited or 0.0) / self.elapsed if self.elapsed > 0 else 0.0

    def line(self, end: str | None = None) -> str:
        """The line as it would be shown now; ``end`` replaces the time left by the time taken."""
        rate = (self.done - self._resumed) / self.elapsed if self.elapsed > 0 else 0.0
        parts = [f"[{self.stage}] {self.label}" if self.stage else self.label]
        parts.append(f"{self.done}/{self.total if self.total is not None else '?'} {self.unit}")
        parts.append(f"{rate:.3g} {self.unit}/s" if rate < 1000 else f"{rate:.0f} {self.unit}/s")
        if self._waited is not None:
            parts.append(f"waiting for data {self.waiting_share:.0%}")
        if end:
            parts.append(f"{end} {format_seconds(self.elapsed)}")
        elif self.total is not None and rate > 0:
            parts.append(f"{format_seconds(max(self.total - self.done, 0) / rate)} left")
        parts += [f"{name} {_short(value)}" for name, value in self._extra.items()]
        return "  ".join(parts)

    def _show(self) -> None:
        self._shown = self._clock()
        self._write(self.line() if self._terminal else self.line() + "\n")

    def _write(self, text: str) -> None:
        if self._terminal:  # back to column 0, cut so that the line never wraps, clear what was longer
            ending = "\n" if text.endswith("\n") else ""
            width = max(shutil.get_terminal_size().columns - 1, 20)
            text = f"\r{text.rstrip()[:width]}\x1b[K{ending}"
        self._stream.write(text)
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """``75.2`` seconds as ``1:15``, ``4000`` as ``1:06:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
