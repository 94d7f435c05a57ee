"""Turns at the sources of clips, and what a source that asks for a pause, refuses, or fails makes of a clip."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines import throttle as throttle_module
from pipelines.manifest import Clip
from pipelines.settings import FetchConfig, IngestConfig
from pipelines.sources import sources
from pipelines.throttle import KEPT, Throttle
from shards import store
from shards.store import StorePath
from shards.store_errors import MachineRefused, failure_of, retry_after

pytestmark = pytest.mark.integration


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_turns_begin_so_many_a_second_and_sources_do_not_wait_for_each_other():
    clock = Clock()
    throttle = Throttle(per_second=4, clock=clock)
    assert [throttle.ask("s3://a")[1] for _ in range(3)] == [0.0, 0.25, 0.5]
    assert throttle.ask("s3://b")[1] == 0.0
    clock.now += 10
    assert [throttle.ask("s3://a")[1] for _ in range(2)] == [0.0, 0.25], "what was not used is not saved up"


def test_so_many_turns_are_out_and_those_of_the_dead_are_given_away():
    clock = Clock()
    throttle = Throttle(at_once=2, clock=clock)
    first, second = throttle.ask("h")[0], throttle.ask("h")[0]
    assert throttle.ask("h")[0] == 0
    throttle.give_back("h", first)
    assert throttle.ask("h")[0] not in (0, first, second)
    assert throttle.ask("h")[0] == 0
    clock.now += KEPT - 1
    throttle.renew("h", second)
    clock.now += 2
    assert throttle.ask("h")[0] > 0, "one was not renewed"
    assert throttle.ask("h")[0] == 0


def test_a_source_that_asks_for_a_pause_gets_it_from_all():
    clock = Clock()
    throttle = Throttle(clock=clock)
    throttle.hold("h", 7.0)
    throttle.hold("h", 2.0)
    assert throttle.ask("h") == (0, 7.0)
    assert (throttle.held("h"), throttle.held("other")) == (7.0, 0.0)
    assert throttle.ask("other")[0] > 0
    clock.now += 7.0
    assert throttle.ask("h")[0] > 0


def test_what_a_store_asks_for_is_read_from_both_kinds_of_clients():
    web = OSError("too many")
    web.headers = {"retry-after": "3"}  # type: ignore[attr-defined]
    assert retry_after(web) == 3.0
    boto, outer = OSError("slow down"), OSError("translated")
    date = formatdate(time.time() + 60, usegmt=True)
    boto.response = {"ResponseMetadata": {"HTTPHeaders": {"Retry-After": date}}}  # type: ignore[attr-defined]
    outer.__cause__ = boto
    assert 55 < (retry_after(outer) or 0) <= 60
    web.headers = {"Retry-After": "soon"}  # type: ignore[attr-defined]
    assert retry_after(web) is None
    assert retry_after(OSError("nothing said")) is None


@dataclass
class Web:
    """A server of clips; `answers` tells the statuses of a path's requests, the last one for ever."""

    url: str
    answers: dict[str, list[int]]
    asked: list[tuple[float, str]] = field(default_factory=list)
    most: int = 0
    slow: float = 0.0
    pause: int = 1

    def clips(self, *names: str) -> list[Clip]:
        return [Clip(name, name, f"{self.url}/{name}", None, None, ("x",), "train", None, None, None) for name in names]


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    lock, busy = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                found.asked.append((time.monotonic(), self.path))
                busy[0] += 1
                found.most = max(found.most, busy[0])
                answers = found.answers.get(self.path.strip("/"), [200])
                status = answers.pop(0) if len(answers) > 1 else answers[0]
            time.sleep(found.slow)
            with lock:
                busy[0] -= 1
            self.send_response(status)
            self.send_header("Content-Length", "4")
            if status in (429, 503):
                self.send_header("Retry-After", str(found.pause))
            self.end_headers()
            self.wfile.write(b"clip")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(store, "FIRST", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that hangs up
    found = Web(f"http://127.0.0.1:{server.server_address[1]}", {})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pause_that_is_asked_for_is_kept_by_all_and_permanent_causes_are_not_tried_again(web):
    web.answers = {"busy": [429, 200], "gone": [404], "refused": [403], "broken": [500]}
    begin = time.monotonic()
    found = {s.clip.id: s for s in sources(web.clips("busy", "gone", "refused", "broken"), 1, FetchConfig(tries=3))}
    assert found["busy"].failed == {}
    assert time.monotonic() - begin >= 1.0
    causes = {name: s.failed["path"].cause for name, s in found.items() if s.failed}
    assert causes == {"gone": "missing file", "refused": "unreachable", "broken": "unreachable"}
    assert "500" in found["broken"].failed["path"].message
    counts = {name: sum(path == f"/{name}" for _, path in web.asked) for name in ("busy", "gone", "refused", "broken")}
    assert counts == {"busy": 2, "gone": 1, "refused": 1, "broken": 3}


def test_a_machine_that_takes_no_files_ends_the_run_and_is_no_clips_fault(web):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))  # a clip has four bytes
    try:
        with pytest.raises(MachineRefused, match="File too large"):
            list(sources(web.clips("a", "b"), 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(web.asked) <= 2, "once for each clip"


@pytest.mark.parametrize(
    ("file", "says"),
    [("/dev/full", "No space left on device"), ("gone/clip", "No such file"), ("there/clip", "Not a directory")],
)
def test_a_local_file_that_cannot_be_written_is_not_the_stores_fault(web, tmp_path, file, says):
    (tmp_path / "there").write_bytes(b"a file")
    with pytest.raises(MachineRefused, match=f"{file}: this machine refuses: {says}") as caught:
        StorePath(f"{web.url}/clip").download(tmp_path / file)
    assert "AWS" not in caught.value.remedy
    assert len(web.asked) == 1


def test_no_more_open_files_is_told_as_that(web):
    assert StorePath(f"{web.url}/clip").read_bytes() == b"clip"
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1]))
    taken: list[int] = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        with pytest.raises(MachineRefused, match=r"Too many open files.*\n.*ulimit"):
            StorePath("http://127.0.0.2:1/clip").read_bytes()  # another host: no connection is open
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_a_store_says_is_told_from_what_the_machine_says():
    here, url = Path("/tmp/file"), "s3://bucket/object"
    assert isinstance(failure_of(PermissionError(13, "Permission denied", str(here)), url, here), MachineRefused)
    told = PermissionError("Access Denied")
    told.__cause__ = OSError()
    told.__cause__.response = {"Error": {"Code": "AccessDenied"}}  # type: ignore[attr-defined]
    assert type(failure_of(told, url, here)).__name__ == "StoreRefused"
    assert isinstance(failure_of(FileNotFoundError(url), url, here), FileNotFoundError)


def test_no_more_together_and_no_more_in_a_second_than_was_told(web):
    web.slow = 0.02
    list(sources(web.clips(*(f"c{i}" for i in range(12))), 1, turns=Throttle(at_once=2)))
    assert web.most == 2
    web.asked.clear()
    list(sources(web.clips(*(f"d{i}" for i in range(6))), 1, turns=Throttle(per_second=20)))
    times = sorted(moment for moment, _ in web.asked)
    assert len(times) == 6
    assert times[-1] - times[0] >= 4 / 20


def test_a_pause_is_kept_by_those_who_wait_for_their_turn_already(web):
    names, statuses = [f"c{i}" for i in range(5)], [429, 200]
    web.answers, web.pause = dict.fromkeys(names, statuses), 3  # one list: whoever comes first is refused
    fetched = list(sources(web.clips(*names), 1, turns=Throttle(per_second=2)))
    assert not any(source.failed for source in fetched)
    refused, *others = sorted(moment for moment, _ in web.asked)
    assert len(others) == 5
    assert sum(moment - refused < 2.9 for moment in others) <= 1, "one may have been under way"
    assert others[-1] - refused >= 4, "the rate is kept after the pause"


def test_the_turn_of_a_long_download_is_not_given_away(web, monkeypatch):
    monkeypatch.setattr(throttle_module, "KEPT", 0.9)
    web.slow = 1.5
    list(sources(web.clips("a", "b", "c"), 1, turns=Throttle(at_once=1)))
    assert web.most == 1


def test_how_files_are_fetched_does_not_change_what_a_dataset_is():
    limited = IngestConfig(fetch=FetchConfig(at_once=1, per_second=2, tries=1))
    assert limited.content() == IngestConfig().content()
