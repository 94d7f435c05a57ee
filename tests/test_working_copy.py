"""Folders on a store that are worked on in local copies: whole at any moment, and exactly what was published."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from shards import lease, working_copy
from shards.errors import InputError
from shards.store import StorePath
from shards.stored_folder import RECORD, StoredFiles, is_stored, place_of, reading
from shards.working_copy import Publisher, WorkingCopy, amend, worked_on

pytestmark = pytest.mark.integration
OLD = {"config.json": "{}", "last/a/state.pt": "one", "logs/a/metrics.jsonl": "1\n", "gone.json": "x"}
NEW = {"config.json": "{}", "last/a/state.pt": "two", "logs/a/metrics.jsonl": "1\n2\n", "a/weights.safetensors": "w"}


MEMORY = StorePath("memory://store")  # one of this process, without a server: quick


class Killed(BaseException):
    """What nobody catches."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    for name, seconds in {"LOOK": 0.01, "ABANDONED": 0.05, "SETTLED": 0.0}.items():
        monkeypatch.setattr(lease, name, seconds)


class Machines:
    """Computers that share the store and nothing else: each has a cache of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self.folder, self.patch = folder, patch

    def at(self, name: str) -> None:
        """From now on this process is on that one."""
        self.patch.setenv("AVMEND_CACHE", str(self.folder / name))


@pytest.fixture
def machines(tmp_path, monkeypatch) -> Machines:
    found = Machines(tmp_path / "caches", monkeypatch)
    found.at("first")
    return found


def write(folder: Path, files: dict[str, str]) -> None:
    """Make a folder's files these, as the project does: replaced, not changed."""
    for name in content(folder):
        (folder / name).unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return {name.as_posix(): (folder / name).read_text() for name in shown}


def published(address: StorePath, files: dict[str, str]) -> None:
    with worked_on(address, "training") as folder:
        write(folder, files)


def unpublished(address: StorePath, files: dict[str, str]) -> None:
    """What a process leaves that fails before it publishes."""
    with suppress(Killed), worked_on(address, "training") as folder:
        write(folder, files)
        raise Killed


def test_what_is_published_is_read_elsewhere_and_nothing_more_is_there(s3, machines):
    address = s3.root / "plain"
    assert not is_stored(address)
    published(address, OLD)
    published(address, NEW)
    machines.at("second")
    folder = reading(address)
    assert content(folder) == NEW
    assert (folder.name, place_of(folder)) == ("plain", address)
    assert content(reading(str(address), lambda path: path.startswith("logs/"))).keys() >= {"logs/a/metrics.jsonl"}
    assert (reading(address / "a") / "weights.safetensors").read_text() == "w"
    names = {name.removeprefix("plain/") for name in s3.names("plain")}
    record = StoredFiles.read(address)
    assert record is not None
    assert names == {RECORD, *(file.object for file in record.files.values())}, "what is replaced goes"
    with pytest.raises(InputError, match="there is none"):
        reading(s3.root / "nothing")


def test_killed_at_any_request_it_is_what_it_was_or_what_it_becomes(machines, monkeypatch):
    asked, died = StorePath._asked, 0
    for number in range(1, 100):
        address = MEMORY / f"killed/{number}"
        machines.at(f"worker-{number}")
        published(address, OLD)
        requests = iter(range(number))

        def dies(self, *arguments, requests=requests, **more):
            if next(requests, None) is None:
                raise Killed
            return asked(self, *arguments, **more)

        monkeypatch.setattr(StorePath, "_asked", dies)
        try:
            published(address, NEW)
            died = number
        except Killed:
            pass
        finally:
            monkeypatch.setattr(StorePath, "_asked", asked)
        machines.at("reader")
        assert content(reading(address)) in (OLD, NEW)
        machines.at(f"worker-{number}")
        with worked_on(address, "training") as folder:
            assert content(folder) in (OLD, NEW)
            write(folder, NEW)
        machines.at("reader")
        assert content(reading(address)) == NEW
        if died:
            break
    assert died > 8, "so many requests are made, each of which may be the last"


def test_a_copy_keeps_what_it_could_not_publish_and_gives_way_to_what_others_did(machines):
    address = MEMORY / "ahead"
    published(address, OLD)
    unpublished(address, {**OLD, **NEW})
    with worked_on(address, "training") as folder:
        assert content(folder) == {**OLD, **NEW}, "it is ahead of the store"
        write(folder, NEW)
    unpublished(address, {**NEW, "last/a/state.pt": "three"})
    machines.at("second")
    with worked_on(address, "training") as folder:
        write(folder, {**NEW, "config.json": "[]"})
    machines.at("first")
    with worked_on(address, "training") as folder:
        assert content(folder) == {**NEW, "last/a/state.pt": "three", "config.json": "[]"}, "no file changed twice"
        (folder / "last/.a.old").mkdir()
    machines.at("second")
    with worked_on(address, "training") as folder:
        write(folder, {**NEW, "last/a/state.pt": "four"})
    machines.at("first")
    unpublished(address, {**NEW, "last/a/state.pt": "five"})
    machines.at("second")
    published(address, {**NEW, "last/a/state.pt": "six"})
    machines.at("first")
    with worked_on(address, "training") as folder:
        assert content(folder) == {**NEW, "last/a/state.pt": "six"}, "the store counts where both changed a file"
        assert not (folder / "last/.a.old").exists(), "a checkpoint that was set aside is none of this state"


def test_a_copy_that_lost_files_has_them_again(machines):
    address = MEMORY / "swept"
    published(address, OLD)
    with worked_on(address, "training") as folder:
        pass
    (folder / "last/a/state.pt").unlink()
    with worked_on(address, "training") as folder:
        assert content(folder) == OLD
    (address / RECORD).unlink()
    with worked_on(address, "training") as folder:
        assert content(folder) == {}, "it was removed from the store, to begin anew"


def test_what_another_process_published_meanwhile_is_not_overwritten(machines):
    address = MEMORY / "doubled"
    published(address, OLD)
    copy = WorkingCopy(address, "training")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(InputError, match="took this for dead"))
        held = stack.enter_context(copy.held())
        copy.bring()
        (address / ".training.lease").write_bytes(b"{}")  # a process that took this one for dead
        write(copy.folder, NEW)
        copy.publish(held)
    machines.at("second")
    assert content(reading(address)) == OLD
    (address / ".training.lease").unlink()
    machines.at("first")
    with copy.held() as held:
        copy.bring()
        (address / RECORD).write_bytes(StoredFiles(files={}).text().encode())
        with pytest.raises(InputError, match="published by another process meanwhile"):
            copy.publish(held)


def test_one_process_at_a_time(machines, monkeypatch):
    monkeypatch.setattr(working_copy, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "RENEWED", 0.02)
    monkeypatch.setattr(lease, "ABANDONED", 1.0)
    address = MEMORY / "busy"
    with worked_on(address, "training"):
        machines.at("second")
        with (
            pytest.raises(InputError, match="another training is at work here: process"),
            worked_on(address, "training"),
        ):
            pass
        machines.at("first")


def test_a_copy_of_some_files_leaves_the_others(machines):
    address = MEMORY / "some"
    published(address, OLD)
    copy = WorkingCopy(address, "training", lambda path: not path.endswith(".pt"), ".drivers")
    with copy.held() as held:
        copy.bring()
        assert content(copy.folder) == {name: text for name, text in OLD.items() if not name.endswith(".pt")}
        (copy.folder / "config.json").write_text("[1]")
        copy.publish(held)
    amend(address, "calibration.json", b"2", "training")
    assert content(reading(address)) == {**OLD, "config.json": "[1]", "calibration.json": "2"}


def test_states_are_published_in_turn_while_work_goes_on(s3, machines, capsys):
    address = s3.root / "states"
    copy = WorkingCopy(address, "training")
    with copy.held() as held:
        copy.bring()
        with Publisher(copy, held).at_work() as publisher:
            for number in range(3):
                write(copy.folder, {**NEW, "last/a/state.pt": str(number)})
                publisher.save()
            (copy.folder / "logs/a/metrics.jsonl").write_text("later\n")  # after the snapshot
            publisher._settle()
            machines.at("reader")
            assert content(reading(address)) == {**NEW, "last/a/state.pt": "2"}
            machines.at("first")
            s3.misbehave(denied="ExpiredToken", only="states/last")
            write(copy.folder, {**NEW, "last/a/state.pt": "3"})
            publisher.save()
            publisher.save()
            assert "not published yet" in capsys.readouterr().err
            s3.misbehave()
    machines.at("reader")
    assert content(reading(address)) == {**NEW, "last/a/state.pt": "3"}
    assert not (copy.folder / working_copy.SNAPSHOT).exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"?" + data[1:], None], ids=["cut", "other", "gone"]
)
def test_an_object_that_is_not_what_the_record_says_is_refused_by_name(s3, machines, damage, request):
    address = s3.root / request.node.callspec.id
    published(address, OLD)
    (name,) = [name for name in s3.names(address.name) if "state." in name]
    if damage is None:
        s3.s3.delete_object(Bucket="avmend", Key=name)
    else:
        s3.s3.put_object(Bucket="avmend", Key=name, Body=damage(b"one"))
    machines.at("second")
    with pytest.raises(InputError, match=rf"(?s){name}.*{RECORD}.*remedy: put the object back"):
        reading(address)
    with pytest.raises(InputError, match=name), worked_on(address, "training"):
        pass
    assert (reading(address, lambda path: path == "config.json") / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    "record",
    [
        {"files": {"../x": {"object": "x", "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"x": {"object": "../../x", "bytes": 1, "sha256": "0" * 64}}},
        {"files": {"/etc/x": {"object": "x", "bytes": 1, "sha256": "0" * 64}}},
        {"format": 2, "files": {}},
        [],
    ],
    ids=str,
)
def test_a_record_that_leads_elsewhere_is_refused(machines, record):
    (MEMORY / "evil" / RECORD).write_bytes(json.dumps(record).encode())
    with pytest.raises(InputError, match=f"{RECORD}.*is damaged"):
        reading(MEMORY / "evil")
