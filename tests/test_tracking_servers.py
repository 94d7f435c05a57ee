"""Servers that are away, slow, or refuse: training does not wait for them, and nothing of it is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from filelock import FileLock

from shards.errors import InputError
from tests.fixtures.servers import TrackingServer, tracking_server
from trainers.tracking import Store, delivery, is_closed, read_runs, writing
from trainers.tracking import store as opening

pytestmark = pytest.mark.integration


@pytest.fixture
def server(mlflow_root, monkeypatch):
    (mlflow_root / "mlflow.db").rename(mlflow_root / "behind.db")
    monkeypatch.setattr(delivery, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(opening, "OPEN_SECONDS", 30.0)
    with tracking_server(mlflow_root / "behind.db") as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        yield running


def work(root: Path, epochs: range, parent: bool = False) -> Store:
    """A training of some epochs, in a child's run too."""
    store = Store(root)
    with store.run("r", "demo", {"a": 1}, folder=root / "r") as run:
        child = store.open("c", "demo", {"b": 2}, parent=run, folder=root / "c")
        for epoch in epochs:
            run.log(epoch, {"loss": 1 / epoch})
            child.log(epoch, {"loss": 2 / epoch})
        run.try_sync()
        child.summary({"best/loss": 0.5})
        child.close("FINISHED")
    return store


def there(server: TrackingServer) -> dict[str, tuple[str, list[tuple[int, float]], dict[str, str]]]:
    """By name: status, history of the loss, parameters, in the store behind the server."""
    client = server.client
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.info.run_name for run in runs}) == len(runs), "a run is there twice"
    return {
        run.info.run_name: (
            run.info.status,
            [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")],
            dict(run.data.params),
        )
        for run in runs
    }


WHOLE = {
    "r": ("FINISHED", [(1, 1.0), (2, 0.5), (3, 1 / 3)], {"a": "1"}),
    "c": ("FINISHED", [(1, 2.0), (2, 1.0), (3, 2 / 3)], {"b": "2"}),
}


def test_a_server_that_answers_has_all_of_it(server, mlflow_root, caplog):
    work(mlflow_root, range(1, 4))
    assert there(server) == WHOLE
    assert is_closed(mlflow_root / "r")
    assert not caplog.records
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in _runs(server)}
    assert parents["c"] == next(run.info.run_id for run in _runs(server) if run.info.run_name == "r")


def _runs(server):
    client = server.client
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def test_what_a_command_left_out_at_its_end_is_not_opened_after_it(server, mlflow_root, monkeypatch):
    store = Store(mlflow_root)
    with (
        FileLock(store.root / ".mlflow.lock", thread_local=False),  # the request is under way, and waits
        monkeypatch.context() as patch,
    ):
        patch.setattr(opening, "OPEN_SECONDS", 0.05)
        patch.setattr(writing, "CLOSE_SECONDS", 0.05)
        store.open("r", "demo", {"a": 1}, folder=mlflow_root / "r").close("FINISHED")
    assert store.delivery.wait(store.delivery.put(lambda: None), 10)
    assert there(server) == {}
    work(mlflow_root, range(1, 4))
    assert there(server) == WHOLE


@pytest.mark.parametrize("how", ["away", "500", "401"])
def test_absent_from_the_start_it_costs_no_time_and_the_same_command_catches_up(server, mlflow_root, caplog, how):
    def come_back() -> None:
        server.start() if how == "away" else setattr(server, "status", 0)

    server.stop() if how == "away" else setattr(server, "status", int(how))
    begin = time.monotonic()
    work(mlflow_root, range(1, 4))
    assert time.monotonic() - begin < 10.0, "MLflow's own client tries for minutes"
    assert not is_closed(mlflow_root / "r")
    assert len(caplog.records) == 1, caplog.text
    assert ("MLFLOW_TRACKING_USERNAME" if how == "401" else "MLFLOW_TRACKING_URI") in caplog.text
    assert (mlflow_root / "c" / "summary.json").is_file()
    come_back()
    work(mlflow_root, range(1, 4))
    assert there(server) == WHOLE
    assert is_closed(mlflow_root / "r")


def test_it_dies_in_the_middle_and_is_back_before_the_end(server, mlflow_root, caplog):
    store = Store(mlflow_root)
    with store.run("r", "demo", {"a": 1}, folder=mlflow_root / "r") as run:
        run.log(1, {"loss": 1.0})
        run.try_sync()
        server.stop()
        for step in (2, 3):
            run.log(step, {"loss": 1 / step})
            run.try_sync()
            run.tag(f"step{step}", "done")
        server.start()
    assert there(server)["r"] == WHOLE["r"]
    assert _runs(server)[0].data.tags["step3"] == "done"
    assert len(caplog.records) <= 1


def test_it_dies_in_the_middle_for_good(server, mlflow_root, caplog):
    begin = time.monotonic()
    store = Store(mlflow_root)
    with store.run("r", "demo", {"a": 1}, folder=mlflow_root / "r") as run:
        run.log(1, {"loss": 1.0})
        server.stop()
        for step in (2, 3):
            run.log(step, {"loss": 1 / step})
            run.try_sync()
    assert time.monotonic() - begin < 10.0
    server.start()
    assert there(server)["r"][0] == "RUNNING", "nobody could tell it"
    with Store(mlflow_root).run("r", "demo", {"a": 1}, folder=mlflow_root / "r"):
        pass
    assert there(server)["r"] == WHOLE["r"]


def test_a_slow_server_holds_nothing_up(server, mlflow_root, caplog, monkeypatch):
    monkeypatch.setattr(writing, "CLOSE_SECONDS", 30.0)
    monkeypatch.setattr(opening, "OPEN_SECONDS", 0.5)
    server.delay = 1.0
    store = Store(mlflow_root)
    begin = time.monotonic()
    with store.run("r", "demo", {"a": 1}, folder=mlflow_root / "r") as run:
        opened = time.monotonic() - begin
        for step in (1, 2, 3):
            run.log(step, {"loss": 1 / step})
            run.try_sync()
            run.tag("at", str(step))
        worked = time.monotonic() - begin - opened
    assert opened < 3.0
    assert worked < 3.0, "seven requests would be 7 s"
    assert there(server)["r"] == WHOLE["r"], "it is waited for at the end"
    assert "is slow" in caplog.text


def test_what_a_slow_server_did_not_take_in_time_the_next_command_copies(server, mlflow_root, caplog, monkeypatch):
    monkeypatch.setattr(writing, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(opening, "OPEN_SECONDS", 0.3)
    server.delay = 0.5
    work(mlflow_root, range(1, 4))
    assert not is_closed(mlflow_root / "r")
    assert "the same command copies what is missing" in caplog.text
    server.delay = 0.0
    monkeypatch.setattr(writing, "CLOSE_SECONDS", 30.0)
    monkeypatch.setattr(opening, "OPEN_SECONDS", 30.0)
    time.sleep(1.0)  # the request that was under way
    work(mlflow_root, range(1, 4))
    assert there(server) == WHOLE


def test_a_users_mistake_is_still_one(server, mlflow_root):
    work(mlflow_root, range(1, 2))
    with (
        pytest.raises(InputError, match="had a=1, now it is 3"),
        Store(mlflow_root).run("r", "demo", {"a": 3}, folder=mlflow_root / "r"),
    ):
        pass


def test_the_password_of_an_address_goes_nowhere(server, mlflow_root, monkeypatch, caplog):
    secret = "s3cret-s3cret"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{secret}@127.0.0.1:{server.port}")
    work(mlflow_root, range(1, 4))
    server.status = 401
    Store(mlflow_root).open("q", "demo", {"url": f"mysql://a:{secret}@h/x"}, folder=mlflow_root / "q").close("FAILED")
    server.stop()
    with pytest.raises(InputError) as caught:
        read_runs(mlflow_root)
    written = b"".join(path.read_bytes() for path in mlflow_root.rglob("*") if path.is_file())
    for text in (written.decode(errors="replace"), caplog.text, str(caught.value)):
        assert secret not in text
    assert "http://ann:***@127.0.0.1" in (mlflow_root / "r" / "mlflow.json").read_text()
