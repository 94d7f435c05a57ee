from __future__ import annotations

import io

import pytest

from shards.progress import Progress, format_seconds

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_most_every_five_seconds_and_once_at_the_end():
    clock, stream = Clock(), io.StringIO()
    with Progress("ingest", 40, stream=stream, clock=clock, stage="2/6") as progress:
        for _ in range(40):
            clock.now += 0.5
            progress.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[2/6] ingest  10/40 clips  2 clips/s  0:15 left"
    assert [line.split()[2] for line in lines] == ["10/40", "20/40", "30/40", "40/40", "40/40"]
    assert lines[-1] == "[2/6] ingest  40/40 clips  2 clips/s  done in 0:20"


def test_terminal_rewrites_one_line_and_ends_it_once():
    clock, stream = Clock(), Terminal()
    with Progress("train", 3, "epochs", stream, clock) as progress:
        for loss in (2.0, 1.0, 0.51234):
            clock.now += 1
            progress.advance(loss=loss)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert text.count("\r") == 5  # at the start, per advance, at the end
    assert "loss 0.5123" in text


def test_terminal_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with Progress("x" * 100, 1, stream=stream):
        pass
    assert all(len(part) <= 39 + len("\x1b[K\n") for part in stream.getvalue().split("\r"))


def test_waiting_share_is_shown_only_when_used():
    clock, stream = Clock(), io.StringIO()
    with Progress("train", 2, stream=stream, clock=clock) as progress:
        assert "waiting" not in progress.line()
        with progress.waiting():
            clock.now += 1
        clock.now += 3
        assert progress.waiting_share == 0.25
        assert "waiting for data 25%" in progress.line()


def test_resumed_units_count_as_done_but_not_in_the_rate():
    clock = Clock()
    progress = Progress("ingest", 100, clock=clock, done=50, stream=io.StringIO())
    clock.now += 5
    progress.done += 10
    assert progress.line() == "ingest  60/100 clips  2 clips/s  0:20 left"


def test_failure_says_stopped_not_done():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("ingest", None, stream=stream, clock=Clock()):
        raise RuntimeError
    assert stream.getvalue() == "ingest  0/? clips  0 clips/s  stopped after 0:00\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (75.2, "1:15"), (59.9, "1:00"), (4000, "1:06:40")])
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
