"""One process at a time at a set on a store, which has no locks: an object, made only if there is none, that its owner
renews; one that nobody renews is taken over.

Shards and ledgers need none of it (whoever writes one writes the same bytes). The plan does: two commands with
different manifests would write two plans under one name. No clock is compared with another: who waits looks whether
the object changes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shards.errors import InputError
from shards.store import StorePath

RENEWED = 10.0  # seconds between two renewals
ABANDONED = 35.0  # seconds without one after which the owner counts as dead
LOOK = 1.0  # seconds between two looks at another's lease
SETTLED = 2.0  # seconds after which no other taker of the same abandoned lease is on its way


@contextmanager
def lease(folder: StorePath, work: str, wait: float, remedy: str) -> Iterator[Lease]:
    """Hold the object ``.<work>.lease`` in ``folder`` while the block runs.

    The lease of a process that is gone, if it was of this machine, is taken over at once, another after `ABANDONED`
    seconds in which it was not renewed.

    Args:
        wait: seconds to wait for the end of another owner; below 0: without limit.

    Raises:
        InputError: another process renews it; or, at the end, this one was taken for dead and lost it.
    """
    held = Lease(folder / f".{work}.lease")
    if not held.take(wait):
        raise InputError(f"another {work} is at work here: {held.seen}", file=folder, remedy=remedy)
    held.thread.start()
    try:
        yield held
    finally:
        held.release()
    if held.lost:
        raise held.taken()


class Lease:
    """Ours, or on its way to be."""

    def __init__(self, address: StorePath):
        self.address, self.beat, self.lost = address, 0, False
        self.owner = {"host": _host(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        self.seen, self.told = "", False
        self.work = address.name.removeprefix(".").removesuffix(".lease")
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def _text(self) -> bytes:
        self.beat += 1
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return json.dumps({**self.owner, "beat": self.beat, "time": now}).encode()

    def _read(self) -> dict[str, object] | None:
        try:
            found = json.loads(self.address.read_bytes())
            return found if isinstance(found, dict) else {}
        except FileNotFoundError:
            return None
        except ValueError:
            return {}

    def take(self, wait: float) -> bool:
        """Make it ours; False: another one renews it."""
        begin = time.monotonic()
        while not self.address.create(self._text()):
            found = self._read()
            if found is None:
                continue
            self.seen = f"process {found.get('pid')} on {str(found.get('host')).partition('/')[0]}"
            if not _is_gone(found) and not self._abandoned(found):
                if 0 <= wait <= time.monotonic() - begin:
                    return False
                continue
            self.address.unlink(missing_ok=True)
            if self.address.create(self._text()):
                time.sleep(0 if _is_gone(found) else SETTLED)
                if self._ours():
                    return True
        return True

    def _abandoned(self, found: dict[str, object]) -> bool:
        """Whether nobody renews it for long enough."""
        end = time.monotonic() + ABANDONED
        if not self.told:
            print(f"waiting up to {ABANDONED:.0f} s: is {self.seen} still at work here?", file=sys.stderr)
        self.told = True
        while time.monotonic() < end:
            time.sleep(LOOK)
            if self._read() != found:
                return False
        return True

    def check(self) -> None:
        """Ask the store whether it is still ours.

        Raises:
            InputError: another process took this one for dead.
        """
        self.lost = self.lost or not self._ours()
        if self.lost:
            raise self.taken()

    def taken(self) -> InputError:
        """What is wrong where it was lost."""
        message = f"another {self.work} took this for dead and went on here"
        remedy = "wait for its end, then run the same command again"
        return InputError(message, file=self.address.parent, remedy=remedy)

    def _ours(self) -> bool:
        found = self._read()
        return found is not None and found.get("token") == self.owner["token"]

    def _renew(self) -> None:
        while not self._over.wait(RENEWED):
            with suppress(InputError):  # the store does not answer: at the next turn
                if not self._ours():
                    self.lost = True
                    return
                self.address.write_bytes(self._text())

    def release(self) -> None:
        """Give it back, unless it was lost."""
        self._over.set()
        self.thread.join()
        with suppress(InputError):  # the store does not answer: it will be found abandoned
            self.lost = self.lost or not self._ours()
            if not self.lost:
                self.address.unlink(missing_ok=True)


def _host() -> str:
    """This machine since its start, and whose numbers its processes have: a container counts its own."""
    boot, counted = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    told = [boot.read_text().strip() if boot.exists() else "", str(counted.readlink()) if counted.exists() else ""]
    return "/".join([socket.gethostname(), *told])


def _is_gone(found: dict[str, object]) -> bool:
    """Whether a lease's owner was a process of this machine that is no more."""
    pid = found.get("pid")
    if found.get("host") != _host() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
