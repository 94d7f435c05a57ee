"""The command wrapper: exit statuses, one-line errors, signals."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards.command import Terminated, command, explain
from shards.errors import InputError

unit, integration = pytest.mark.unit, pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent


def status(error: BaseException | int, capsys, **options) -> tuple[int, str]:
    @command(**options)
    def main(argv: list[str]) -> int:
        if isinstance(error, int):
            return error
        raise error

    return main([]), capsys.readouterr().err


@unit
def test_arguments_are_those_given_or_the_processes_own(monkeypatch):
    seen = []
    main = command(lambda argv: seen.append(argv) or 0)
    monkeypatch.setattr(sys, "argv", ["avmend", "a", "b"])
    assert main() == main(("c",)) == 0
    assert seen == [["a", "b"], ["c"]]


@unit
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (3, 3, ""),
        (InputError("is empty", file="m.csv", remedy="add"), 2, "error: m.csv: is empty\n  remedy: add\n"),
        (FloatingPointError("loss is nan in stage x"), 1, "error: loss is nan in stage x\n"),
        (OSError(errno.ENOSPC, "no", "f.tar"), 2, "error: f.tar: No space left on device\n  remedy: make room"),
        (OSError(errno.EROFS, "no"), 2, "error: Read-only file system\n  remedy: "),
        (PermissionError(errno.EACCES, "no", "f"), 2, "error: f: Permission denied\n  remedy: "),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "error: No space left on device\n"),
        (RuntimeError("x\nOSError: [Errno 30] Read-only file system"), 2, "error: Read-only file system\n"),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), 2, "error: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (Terminated(143), 143, "terminated\n"),
        (SystemExit(15), 143, "terminated\n"),  # Ray's handler of SIGTERM exits with the signal's number
        (Terminated(129), 129, "terminal closed\n"),
    ],
)
def test_status_and_words(error, code, words, capsys):
    ended, said = status(error, capsys)
    assert ended == code
    assert said.startswith(words) if words else said == ""
    assert said.count("\n") <= 2


@unit
def test_a_command_that_resumes_says_so(capsys):
    assert status(KeyboardInterrupt(), capsys, resumes=True) == (130, "interrupted; the same command goes on\n")


@unit
@pytest.mark.parametrize("error", [KeyError("frames"), FileNotFoundError(errno.ENOENT, "x"), RuntimeError("a defect")])
def test_a_defect_keeps_its_traceback(error, capsys):
    with pytest.raises(type(error)):
        status(error, capsys)


@unit
@pytest.mark.parametrize("code", [0, 1, 2, None])
def test_an_exit_of_the_parser_passes_through(code, capsys):
    with pytest.raises(SystemExit) as ended:
        status(SystemExit(code), capsys)
    assert ended.value.code == code


@unit
def test_what_a_worker_raised_is_found_behind_what_wraps_it():
    inner = InputError("no such file", file="a.mp4")
    wrapped = RuntimeError("task failed\nTraceback ...")
    wrapped.cause = inner  # type: ignore[attr-defined]
    assert explain(wrapped) == (2, "a.mp4: no such file")
    unsaved = RuntimeError("can't save")
    unsaved.__cause__ = OSError(errno.ENOSPC, "full", "x.tar")
    assert explain(unsaved) == (2, "x.tar: No space left on device\n  remedy: make room, then the same command again")


SLEEPER = """
import sys, time
from shards.command import command

@command(resumes=True)
def main(argv):
    try:
        print("begun", flush=True)
        time.sleep(30)
    finally:
        print("cleaning", flush=True)
        time.sleep(float(argv[0]))
        print("clean", flush=True)
    return 0

raise SystemExit(main())
"""


def stopped(signals: list[int], cleaning: float) -> tuple[int, str, str]:
    """Send signals to a command that sleeps: the first once it has begun, the others while it cleans up."""
    arguments = [sys.executable, "-c", SLEEPER, str(cleaning)]
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=-1,
        stderr=-1,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.readline(), ""
    process.send_signal(signals[0])
    out += process.stdout.readline()
    for number in signals[1:]:
        process.send_signal(number)
        if "once more" not in err:  # wait, or two of a kind would arrive as one
            err += process.stderr.readline() + process.stderr.readline()
    try:
        rest, more = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out + rest, err + more


@integration
@pytest.mark.parametrize(
    ("signals", "code", "word"),
    [
        ([signal.SIGINT], 130, "interrupted"),
        ([signal.SIGTERM, signal.SIGTERM], 143, "terminated"),
    ],
)
def test_a_signal_unwinds_the_stack_once(signals, code, word):
    ended, out, err = stopped(signals, cleaning=0.3)
    assert (ended, out) == (code, "begun\ncleaning\nclean\n")
    assert err.endswith(f"{word}; the same command goes on\n")
    assert "Traceback" not in err


@unit
def test_the_third_signal_ends_at_once_with_the_same_status():
    ended, out, err = stopped([signal.SIGINT] * 3, cleaning=300)
    assert (ended, out) == (130, "begun\ncleaning\n")
    assert "once more ends at once" in err


@unit
def test_a_reader_that_has_enough_is_no_error():
    code = "from shards.command import command\nraise SystemExit(command(lambda argv: print('x\\n' * 100000) or 0)([]))"
    line = f'"{sys.executable}" -c "$CODE" | head -n 1; echo "${{PIPESTATUS[0]}}"'
    env = os.environ | {"CODE": code, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "x\n141\n"
    assert done.stderr == ""
