"""Processes of a measurement, found by a mark in their environment, which whatever they start inherits."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shards.command import Terminated, signals_raised

ROOT = Path(__file__).resolve().parent.parent
_NAME = "AVMEND_MARK"


@dataclass
class Marked:
    """A command and all that it starts, directly or not.

    >>> run = Marked.start("-m", "pipelines.ingest", ...)
    >>> run.kill(run.pids("decoder_child"))
    """

    process: subprocess.Popen[bytes]
    mark: str
    begin: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, *arguments: str, log: Path, **environment: str) -> Marked:
        """Run this Python with ``arguments`` from the repository's root; what it prints goes to ``log``."""
        mark = secrets.token_hex(8)
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment, _NAME: mark}
        command = [sys.executable, *arguments]
        with log.open("ab") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
        return cls(process, mark)

    def pids(self, what: str = "") -> list[int]:
        """Living processes whose command line holds ``what``."""
        mark, found = f"{_NAME}={self.mark}".encode(), []
        for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes() and what in _command(pid):
                    found.append(pid)
        return found

    def kill(self, pids: list[int]) -> int:
        """SIGKILL; how many there were."""
        count = 0
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                count += 1
        return count

    def left(self, seconds: float) -> list[str]:
        """Command lines, without folders, of what lives ``seconds`` after the command's end; then it is killed."""
        end = time.monotonic() + seconds
        while (pids := self.pids()) and time.monotonic() < end:
            time.sleep(0.1)
        lines = [re.sub(r"\S*/", "", _command(pid)).strip()[:120] for pid in pids]
        self.kill(pids)
        return lines

    def held(self) -> dict[str, tuple[int, int]]:
        """By role (driver, decoder, worker): how many processes, and the most open files that one has."""
        found: dict[str, list[int]] = {}
        for pid in self.pids():
            role = _role(_command(pid)) if pid != self.process.pid else "driver"
            with suppress(OSError):
                found.setdefault(role, []).append(len(os.listdir(f"/proc/{pid}/fd")))
        return {role: (len(files), max(files)) for role, files in found.items() if role}

    def __enter__(self) -> Marked:
        return self

    def __exit__(self, *_: object) -> None:
        """Whoever leaves the block, in whatever way, leaves nothing running."""
        self.kill(self.pids())
        self.process.wait()

    def resident(self) -> int:
        """MiB of memory that the processes hold."""
        pages = 0
        for pid in self.pids():
            with suppress(OSError, IndexError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def _role(command: str) -> str:
    """Of a process that lives through many clips; the others (ffmpeg, Ray's own) have none."""
    roles = {"pipelines.decoder_child": "decoder", "ray::": "worker"}
    return next((role for what, role in roles.items() if what in command), "")


@contextmanager
def stoppable(how_to_go_on: str) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block in the same way: its own clean-up runs, one line says how to go on."""
    try:
        with signals_raised():
            yield
    except (KeyboardInterrupt, Terminated) as stopped:
        print(f"stopped; {how_to_go_on}", file=sys.stderr)
        raise SystemExit(getattr(stopped, "code", 128 + signal.SIGINT)) from None


@dataclass(frozen=True)
class Kill:
    """What was killed, after how many seconds of the run, and how many processes that were."""

    target: str
    seconds: float
    processes: int


def kill_after(run: Marked, delay: float, target: str, strike: Callable[[Marked, str], int]) -> Kill:
    """Wait so long, and until there is something to kill; none if the run ended before."""
    end, count = time.monotonic() + delay, 0
    while run.process.poll() is None and not count:
        time.sleep(min(0.05, max(0.005, end - time.monotonic())))
        if time.monotonic() >= end and run.process.poll() is None:
            count = strike(run, target)
    return Kill(target, round(time.monotonic() - run.begin, 3), count)


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
