from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shards.command import Terminated
from shards.errors import InputError
from trainers.journal import append_metrics, keep_until
from trainers.tracking import PARENT, Store, flatten, is_closed, read_runs, schema, store_uri
from trainers.ui import main as ui_main
from trainers.ui import ui_command

unit, integration = pytest.mark.unit, pytest.mark.integration


@pytest.fixture
def store(mlflow_root):
    return Store(mlflow_root)


def history(store: Store, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client.get_metric_history(run_id, name)]


def status(store: Store, run_id: str) -> str:
    return store.client.get_run(run_id).info.status


@unit
def test_parent_and_child_with_params_metrics_summary_and_artifact(store, tmp_path):
    (tmp_path / "table.md").write_text("| a |\n")
    with store.run("command", "demo", {"seed": 1}, folder=tmp_path / "p") as parent:
        given = {"optim": {"lr": 1e-3, "name": "adamw"}, "sizes": [1, 2], "cut": None}
        with store.run("case", "demo", given, {"recipe": "prompt"}, parent, folder=tmp_path / "c") as child:
            child.log(1, {"loss": 2.0})
            child.log(2, {"loss": 1.0, "acc": 0.5})
            assert child.sync() == 3
            assert child.sync() == 0
            child.summary({"best/acc": 0.5})
            child.artifact(tmp_path / "table.md")
            assert status(store, child.run_id) == "RUNNING"
    run = store.client.get_run(child.run_id)
    assert run.data.params == {"optim.lr": "0.001", "optim.name": "adamw", "sizes": "[1, 2]", "cut": "null"}
    assert run.data.tags[PARENT] == parent.run_id
    assert run.data.tags["recipe"] == "prompt"
    assert run.data.metrics == {"loss": 1.0, "acc": 0.5, "best/acc": 0.5}
    assert history(store, child.run_id, "loss") == [(1, 2.0), (2, 1.0)]
    assert json.loads((tmp_path / "c" / "summary.json").read_text()) == {"best/acc": 0.5}
    assert {status(store, r.run_id) for r in (parent, child)} == {"FINISHED"}
    assert list((store.root / "artifacts").rglob("table.md"))


@unit
def test_a_parent_in_the_store_of_another_machine_is_left_out(store, tmp_path):
    (tmp_path / "other").mkdir()
    other = Store(Path(shutil.copy(store.root / "mlflow.db", tmp_path / "other")).parent)
    with (
        other.run("command", "study", folder=tmp_path / "p") as parent,
        store.run("case", "demo", {}, None, parent, folder=tmp_path / "c") as child,
    ):
        assert child.experiment_id != "0"
    run = store.client.get_run(child.run_id)
    assert PARENT not in run.data.tags
    assert store.client.get_experiment(run.info.experiment_id).name == "demo"
    assert status(store, child.run_id) == "FINISHED"


@unit
def test_a_summarys_names_that_mlflow_refuses_arrive_with_underscores(store, tmp_path, caplog):
    told = {"accuracy/Comparative (yes/no)": "accuracy/Comparative _yes/no_", "dB<5%": "dB_5_", "grün: 1": "grün: 1"}
    with store.run("r", "demo", folder=tmp_path / "r") as run:
        run.summary(dict.fromkeys(told, 2.0))
    assert store.client.get_run(run.run_id).data.metrics == dict.fromkeys(told.values(), 2.0)
    assert not caplog.records


@unit
def test_lines_of_another_process_arrive_while_the_run_is_open(store, tmp_path):
    code = "import sys; from trainers.journal import append_metrics as a; a(sys.argv[1], 4, {'loss': 0.25})"
    with store.run("r", "demo", folder=tmp_path / "r", sync_seconds=0.05) as run:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        subprocess.run([sys.executable, "-c", code, str(run.folder)], check=True, env=environment)
        limit = time.monotonic() + 10
        while not history(store, run.run_id, "loss") and time.monotonic() < limit:
            time.sleep(0.02)
        assert history(store, run.run_id, "loss") == [(4, 0.25)]


@unit
def test_a_resumed_folder_continues_its_run_and_repeats_no_line(store, tmp_path):
    folder = tmp_path / "r"
    opened = []

    def fail() -> None:
        with store.run("r", "demo", {"a": 1}, folder=folder) as run:
            opened.append(run)
            for step in (1, 2, 3):
                run.log(step, {"loss": 1 / step, "odd": float("nan")})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    first = opened[0]
    assert status(store, first.run_id) == "FAILED"
    append_metrics(folder, 4, {"loss": 0.25})  # written, but the driver died before it was copied
    keep_until(folder, 2)  # the last checkpoint
    with store.run("r", "demo", {"a": 1, "b": 2}, folder=folder) as second:
        for step in (3, 4, 5):
            second.log(step, {"loss": 1 / step, "odd": float("nan")})
    assert second.run_id == first.run_id
    assert status(store, first.run_id) == "FINISHED"
    assert history(store, first.run_id, "loss") == [(step, 1 / step) for step in (1, 2, 3, 4, 5)]
    assert [step for step, _ in history(store, first.run_id, "odd")] == [1, 2, 3, 4, 5]
    assert store.client.get_run(first.run_id).data.params == {"a": "1", "b": "2"}
    with (
        pytest.raises(InputError, match="had a=1, now it is 3"),
        store.run("r", "demo", {"a": 3}, folder=folder),
    ):
        pass


@unit
def test_a_folder_whose_run_is_gone_gets_a_new_one(store, tmp_path):
    with store.run("r", "demo", folder=tmp_path / "r") as first:
        first.log(1, {"loss": 1.0})
    record = json.loads((tmp_path / "r" / "mlflow.json").read_text())
    (tmp_path / "r" / "mlflow.json").write_text(json.dumps({**record, "run_id": "0" * 32}))
    with store.run("r", "demo", folder=tmp_path / "r") as second:
        pass
    assert second.run_id != first.run_id
    assert history(store, second.run_id, "loss") == [(1, 1.0)]


@unit
@pytest.mark.parametrize("how", ["interrupt", "sigterm"])
def test_interrupted_runs_are_killed_runs(store, tmp_path, how):
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with (
            store.run("p", "demo", folder=tmp_path / "p") as parent,
            store.run("c", "demo", parent=parent, folder=tmp_path / "c") as child,
        ):
            opened.extend([parent.run_id, child.run_id])
            child.log(1, {"loss": 1.0})
            if how == "interrupt":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    opened: list[str] = []
    with pytest.raises(KeyboardInterrupt if how == "interrupt" else Terminated):
        work()
    assert [status(store, run_id) for run_id in opened] == ["KILLED", "KILLED"]
    assert history(store, opened[1], "loss") == [(1, 1.0)]
    assert signal.getsignal(signal.SIGTERM) is before


HOLD = """
import pathlib, sys, time
from trainers.tracking import Store
store = Store(sys.argv[1])
folder = pathlib.Path(sys.argv[1])
with store.run("p", "demo", folder=folder / "p") as parent:
    with store.run("c", "demo", parent=parent, folder=folder / "c") as child:
        child.log(1, {"loss": 1.0})
        (folder / "ids").write_text(f"{parent.run_id} {child.run_id}")
        time.sleep(600)
"""


@integration
def test_runs_of_a_killed_process_are_closed_by_the_next_and_those_of_a_live_one_left(store, tmp_path):
    with store.run("mine", "demo", folder=tmp_path / "mine") as mine:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(store.root)], env=environment)
        try:
            limit = time.monotonic() + 120
            while not (store.root / "ids").exists() and time.monotonic() < limit:
                time.sleep(0.05)
            dead = (store.root / "ids").read_text().split()
            Store(store.root)
            assert [status(store, run_id) for run_id in dead] == ["RUNNING", "RUNNING"], "it lives"
        finally:
            process.kill()
            process.wait()
        assert [status(store, run_id) for run_id in dead] == ["RUNNING", "RUNNING"], "nobody told the store"
        Store(store.root)
        assert [status(store, run_id) for run_id in dead] == ["KILLED", "KILLED"]
        assert status(store, mine.run_id) == "RUNNING"
        with store.run("c", "demo", folder=store.root / "c") as again:
            Store(store.root)
            assert again.run_id == dead[1]
            assert status(store, again.run_id) == "RUNNING", "resumed here, whoever held it before"
    assert [status(store, run_id) for run_id in (mine.run_id, again.run_id)] == ["FINISHED", "FINISHED"]
    assert list((store.root / ".open").iterdir()) == []


@unit
def test_a_folder_says_whether_its_run_is_closed(store, tmp_path):
    assert not is_closed(tmp_path / "r")
    with store.run("r", "demo", folder=tmp_path / "r"):
        assert not is_closed(tmp_path / "r")
    assert is_closed(tmp_path / "r")


@integration
def test_several_journals_go_to_one_run_each_under_its_prefix(store, tmp_path):
    (tmp_path / "noisy").mkdir()
    append_metrics(tmp_path / "noisy", 1, {"loss": 3.0})
    mirrors = {"": tmp_path / "r", "noisy/": tmp_path / "noisy"}
    for step in (1, 2):  # the second time it is resumed, and repeats nothing
        with store.run("r", "demo", folder=tmp_path / "r", mirrors=mirrors) as run:
            run.log(step, {"loss": 1.0 / step})
    assert history(store, run.run_id, "loss") == [(1, 1.0), (2, 0.5)]
    assert history(store, run.run_id, "noisy/loss") == [(1, 3.0)]


@unit
def test_a_store_that_fails_is_told_of_once_and_does_not_end_the_work(mlflow_root, tmp_path, caplog):
    store = Store(mlflow_root)
    with store.run("r", "demo", folder=tmp_path / "r") as run:
        store.client.delete_run(run.run_id)
        for step in range(3):
            run.log(step, {"loss": 1.0})
            run.summary({"best/loss": 1.0})
    assert caplog.text.count("MLflow store failed") == 1
    assert len((tmp_path / "r" / "metrics.jsonl").read_text().splitlines()) == 3


@unit
def test_deleted_experiment_is_an_input_error(store, tmp_path):
    with store.run("r", "demo", folder=tmp_path / "r") as run:
        pass
    store.client.delete_experiment(store.client.get_run(run.run_id).info.experiment_id)
    with pytest.raises(InputError, match="'demo' was deleted"), store.run("q", "demo", folder=tmp_path / "q"):
        pass


@unit
def test_fifty_epochs_of_ten_metrics_cost_less_than_a_second(store, tmp_path):
    """Of this process's time, so that a busy machine does not decide."""
    with store.run("r", "demo", folder=tmp_path / "r") as run:
        begin = time.process_time()
        for epoch in range(50):
            run.log(epoch, {f"m{number}": epoch / (number + 1) for number in range(10)})
        on_disk = time.process_time() - begin
        run.sync()
        mirrored = time.process_time() - begin - on_disk
    print(f"50 epochs x 10 metrics: {on_disk * 1e3:.1f} ms to disk, {mirrored * 1e3:.1f} ms to MLflow")
    assert on_disk + mirrored < 1.0
    assert len(history(store, run.run_id, "m9")) == 50


@unit
def test_flatten_names_only_what_is_given():
    assert flatten({"a": {"b": {"c": 1}}, "d": "x", "e": {}}) == {"a.b.c": "1", "d": "x"}


@unit
def test_the_ui_opens_the_right_store_on_loopback_only(store, tmp_path, monkeypatch, capsys):
    command, variables = ui_command(store.root, 5001)
    assert variables == {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{store.root}/mlflow.db"}
    assert not any("mlflow.db" in word for word in command), "a store's address may hold a password"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert ui_main(["--store", str(tmp_path / "nothing")]) == 2
    assert "no MLflow store yet" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5005")
    assert store_uri(tmp_path) == "http://127.0.0.1:5005"
    with pytest.raises(InputError, match="open that address"):
        ui_command(store.root, 5001)


@unit
def test_store_by_a_relative_path_is_found_from_another_folder(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = Store("runs")
    assert relative.uri == store.uri
    shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with relative.run("r", "demo", folder=Path("here")) as run:
        pass
    assert run.folder == tmp_path / "elsewhere" / "here"
    assert status(store, run.run_id) == "FINISHED"


@unit
@pytest.mark.parametrize("name", ["my runs", "x?y", "a%2Fb", "50% #1;&"])
def test_a_store_folder_may_have_any_name(mlflow_root, tmp_path, monkeypatch, name):
    root = tmp_path / name
    root.mkdir()
    shutil.copy(mlflow_root / "mlflow.db", root)
    before = sorted(path.name for path in tmp_path.iterdir())
    store = Store(root)
    with store.run("r", "demo", folder=root / "r") as run:
        run.artifact(root / "r" / "mlflow.json")
    assert (root / "artifacts" / run.run_id / "artifacts" / "mlflow.json").is_file()
    assert [found.name for found in read_runs(root)] == ["r"]
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "no other folder was made"


def half_made(path: Path, tables: int) -> None:
    """As a process leaves it that is killed while MLflow makes the first so many tables."""
    with closing(sqlite3.connect(path)) as database:
        made = database.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%sqlite_%'")
        commands = [sql for (sql,) in made]
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        for command in commands[:tables]:
            database.execute(command)


@integration
@pytest.mark.parametrize("tables", [0, 1, 12, 1000])
def test_a_database_killed_in_the_making_is_made_anew(mlflow_root, caplog, tables):
    file = mlflow_root / "mlflow.db"
    whole = file.read_bytes()
    half_made(file, tables)
    with pytest.raises(InputError, match="its making was interrupted"):
        read_runs(mlflow_root)
    assert ui_main(["--store", str(mlflow_root)]) == 2
    shutil.copy(mlflow_root / "mlflow.db", mlflow_root / ".mlflow.1-2.tmp.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_make", lambda path: path.write_bytes(whole))  # seconds, which conftest pays once
        store = Store(mlflow_root)
    with store.run("r", "demo", folder=mlflow_root / "r"):
        pass
    assert [run.status for run in read_runs(mlflow_root)] == ["FINISHED"]
    assert "is made anew" in caplog.text
    assert not list(mlflow_root.glob(".mlflow.*.tmp*")), "what else was left is gone"
    before = (mlflow_root / "mlflow.db.incomplete").read_bytes()
    Store(mlflow_root)
    assert (mlflow_root / "mlflow.db.incomplete").read_bytes() == before, "a store with runs is never put aside"


@unit
def test_nothing_of_its_name_is_there_before_the_schema_is_whole(mlflow_root, tmp_path):
    whole, seen = (mlflow_root / "mlflow.db").read_bytes(), []

    def make(path: Path) -> None:
        seen.append((path.parent, (tmp_path / "new" / "mlflow.db").exists()))
        path.write_bytes(whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "_make", make)
        Store(tmp_path / "new")
    assert seen == [(tmp_path / "new", False)], "in the same folder, so that it can be renamed"


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """A limit on the size of files stands for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@unit
def test_a_full_disk_is_told_with_a_remedy(mlflow_root):
    given = {"a": "x" * 5000}
    with (
        full_disk(1000),
        pytest.raises(InputError) as caught,
        Store(mlflow_root).run("r", "demo", given, folder=mlflow_root / "r") as run,
    ):
        run.summary({"best/loss": 1.0})
    assert "make room" in caught.value.remedy or "correct the rights" in caught.value.remedy


@unit
def test_a_folder_that_can_not_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "runs", Path("/proc/nothing")):
        with pytest.raises(InputError, match="can't be written") as caught:
            Store(place)
        assert "make room, or correct" in str(caught.value.remedy)
