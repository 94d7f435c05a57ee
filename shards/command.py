"""Command wrapper: exit statuses, one-line errors and signals, the same for every entry point."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn

from shards.errors import InputError, nearest
from shards.redaction import redacted
from shards.store import Place, place

Main = Callable[[list[str]], int]
WRONG_INPUT, FAILED = 2, 1
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AT_ONCE = 3  # so many signals end the process without clean-up
WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminal closed"}

ROOM = "make room, then the same command again"
RIGHTS = "correct the rights, or write to another folder"
LIMIT = "raise the limit of open files (ulimit -n), or use fewer workers"
MACHINE = {  # what the machine refuses to any program: no defect of this one
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "write to a file system that takes larger files",
    errno.EROFS: RIGHTS,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EMFILE: LIMIT,
    errno.ENFILE: LIMIT,
    errno.EIO: "look at the disk (dmesg), then the same command again",
    errno.ESTALE: "mount the network folder again, then the same command again",
    errno.ENOTDIR: "give a folder where a file stands",
    errno.ENAMETOOLONG: "give a shorter path",
}
NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")  # Python's, Ray's and Rust's ways to write it
DATABASE = {"database or disk is full": errno.ENOSPC, "attempt to write a readonly database": errno.EROFS}


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are InputErrors with the nearest name."""

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments.

        Raises:
            InputError: wrong ones.
            SystemExit: after ``--help``.
        """
        return self.parse_args(list(argv))

    def error(self, message: str) -> NoReturn:
        """What argparse refuses, with the nearest of what it would take."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        hint = nearest(choice[1], re.findall(r"[\w.-]+", choice[2])) if choice else ""
        raise InputError(message, remedy=f"{hint}see {self.prog} --help")


def location(text: str) -> Place:
    """`shards.store.place` of an argument."""
    try:
        return place(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f"{error.message}: {error.remedy}") from None


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived: raised through the stack, so that every context manager cleans up."""


def command(main: Main | None = None, *, resumes: bool = False) -> Callable:
    """Decorate a command's ``main``: takes the arguments (``None``: the process's), returns its exit status.

    0, or what ``main`` returns; 1 a loss that is not finite; 2 wrong input, or a machine that refuses (disk
    full, read-only); 130, 143, 129 stopped by SIGINT, SIGTERM, SIGHUP. Each of them is said in one or two
    lines on standard error, without a traceback. Any other exception is a defect and keeps its traceback.

    A first signal is raised as KeyboardInterrupt or :class:`Terminated`; further ones wait for the clean-up,
    and the third ends the process at once, with the same status.

    Args:
        resumes: an interrupted command says that the same command goes on.
    """
    if main is None:
        return functools.partial(command, resumes=resumes)

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        with signals_raised(ends=True) as signals:
            return _status(main, list(sys.argv[1:] if argv is None else argv), resumes, signals)

    return run


def _status(main: Main, arguments: list[str], resumes: bool, signals: _Signals | None) -> int:
    try:
        status = main(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _stopped(signal.SIGINT, resumes)
    except SystemExit as error:
        if (number := _signal_of(error, signals)) is None:
            raise
        return _stopped(number, resumes)
    except BrokenPipeError:
        if _reader_is_there():
            raise
        return 128 + signal.SIGPIPE
    except Exception as error:
        if (said := explain(error)) is None:
            sys.excepthook = _without_secrets
            raise
        print(f"error: {said[1]}", file=sys.stderr)
        return said[0]


def _without_secrets(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a defect's traceback, as Python does, with passwords redacted."""
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def explain(error: BaseException) -> tuple[int, str] | None:
    """Exit status and text for an error that is no defect of the program; ``None`` for one that is."""
    for cause in _chain(error):
        if isinstance(cause, InputError):
            return WRONG_INPUT, str(cause)
        if isinstance(cause, FloatingPointError):
            return FAILED, str(cause).partition("\n")[0]
        if (number := _refused(cause)) is not None:
            file = getattr(cause, "filename", None)
            said = f"{file}: {os.strerror(number)}" if file else os.strerror(number)
            return WRONG_INPUT, f"{said}\n  remedy: {MACHINE[number]}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What was raised in a worker of Ray's (``cause``), and what it was raised from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        inner = getattr(following, "cause", None)
        if isinstance(inner, BaseException):
            yield inner
        yield following
        following = following.__cause__


def _refused(error: BaseException) -> int | None:
    """The number of a refusal by the machine, from an OSError or from the text of another library's error."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and not isinstance(error, BrokenPipeError):
        text = str(error)
        found = NUMBER.search(text)
        number = int(found[1] or found[2]) if found else None
        number = number or next((code for words, code in DATABASE.items() if words in text), None)
    return number if number in MACHINE else None


def _signal_of(error: SystemExit, signals: _Signals | None) -> int | None:
    """The signal that this exit comes from: what arrived (Ray turns Terminated into an exit of its own, with 1), or
    128 + its number, or (Ray's of SIGTERM) the number."""
    if signals is not None and signals.first is not None:
        return signals.first
    if error.code == signal.SIGTERM:
        return signal.SIGTERM
    return next((number for number in SIGNALS if error.code == 128 + number), None)


def _stopped(number: int, resumes: bool) -> int:
    again = "; the same command goes on" if resumes else ""
    print(f"{WORDS.get(number, 'stopped')}{again}", file=sys.stderr)
    return 128 + number


def _reader_is_there() -> bool:
    """Standard output still has a reader; if not, nothing is written to it any more, at exit neither."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors alone: what a pipe has whose reader is gone
    if not poll.poll(0):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


class _Signals:
    """Handlers that raise once, then wait for the clean-up, then end the process."""

    def __init__(self) -> None:
        self.count = 0
        self.first: int | None = None
        self.before: dict[int, object] = {}

    def install(self) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, a shell's background job
                self.before[number] = signal.signal(number, self.handle)

    def restore(self) -> None:
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, handler)  # type: ignore[arg-type]

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count >= AT_ONCE:
            os._exit(128 + number)
        if self.count > 1:
            os.write(2, b"\ncleaning up; once more ends at once\n")
            return
        self.first = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(128 + number)


@contextmanager
def signals_raised(*, ends: bool = False) -> Iterator[_Signals | None]:
    """SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP :class:`Terminated`, in the main thread, once.

    Within such a block, and outside the main thread, nothing changes.

    Args:
        ends: the process ends after the block: once a signal came, the rest of its life is clean-up, too.
    """
    outer = next((held for n in SIGNALS if isinstance(held := _owner(n), _Signals)), None)
    if outer is not None or threading.current_thread() is not threading.main_thread():
        yield outer
        return
    signals = _Signals()
    signals.install()
    try:
        yield signals
    finally:
        if not (ends and signals.count):
            signals.restore()


def _owner(number: int) -> object:
    return getattr(signal.getsignal(number), "__self__", None)
