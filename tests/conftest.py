"""Fixtures that several rooms share, and the rule that every test says which tier it belongs to."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.fixtures.stores import Bucket
    from tests.fixtures.worlds import World

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run side by side
gc.disable()  # until all test files are imported: a full collection meanwhile finds nothing, and there are a dozen
TIERS = ("unit", "integration", "ray", "slow", "gpu")  # in the order in which they run
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests with no tier or several, and trained runs in the fastest; fast ones first."""
    tiers = {item: [tier for tier in TIERS if item.get_closest_marker(tier)] for item in items}
    wrong = [item.nodeid for item in items if len(tiers[item]) != 1]
    if wrong:
        raise pytest.UsageError(f"exactly one marker of {TIERS} is needed on: {', '.join(wrong)}")
    slow = [item.nodeid for item in items if tiers[item] == ["unit"] and "world" in getattr(item, "fixturenames", ())]
    if slow:
        raise pytest.UsageError(f"trained runs (`world`) are not of tier unit: {', '.join(slow)}")
    items.sort(key=lambda item: TIERS.index(tiers[item][0]))


def pytest_configure(config: pytest.Config) -> None:
    """Wait for no disk: no test cuts the power, and what a killed process wrote is there without it."""
    os.fsync = lambda _: None  # type: ignore[assignment]
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):  # a process that runs tests
        from hypothesis import settings

        settings.register_profile("avmend", max_examples=50, deadline=None)
        settings.load_profile("avmend")


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real clips and corpora that are not in the repository: AVMEND_DATA, or ../shared/data."""
    folder = Path(os.environ.get("AVMEND_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set AVMEND_DATA to its folder)")
    return folder


@contextmanager
def _shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder of all the processes that run tests side by side, held by one of them at a time."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        yield folder


def _without_sync(connection: Any, _: object) -> None:
    """SQLite of this process waits for no disk either. What is no database says so to who asks, not here."""
    with suppress(sqlite3.DatabaseError):
        connection.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY")


@pytest.fixture(scope="session")
def _mlflow_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", _without_sync)
    with _shared(tmp_path_factory, "mlflow") as folder:
        if not folder.exists():
            from trainers.tracking import Store

            Store(folder)
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_root(_mlflow_schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs with an empty MLflow store in it (the slow schema is made once, then copied)."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    return Path(shutil.copy(_mlflow_schema, tmp_path / "runs")).parent


@pytest.fixture(scope="session")
def world(_mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Trained runs of every recipe on a small dataset; for reading only.

    Raises:
        AssertionError: at the end, where a test wrote into it (another process may have read it meanwhile).
    """
    from tests.fixtures.worlds import build_world, changes

    with pytest.MonkeyPatch.context() as patch, _shared(tmp_path_factory, "world") as folder:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        found = build_world(folder, _mlflow_schema)
    yield found
    assert not (changed := changes(folder)), f"files of the shared world that a test changed: {changed}"


@pytest.fixture(scope="module")
def s3() -> Iterator[Bucket]:
    """An empty bucket of a real S3 server that this process starts, behind a proxy that can be told to misbehave."""
    from tests.fixtures.stores import bucket

    with bucket() as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[Path]:
    """The folder of every Ray that the tests start, so that none finds a cluster of somebody else, and nothing is left.

    Raises:
        AssertionError: at the end, where a test left processes behind (they are killed).
    """
    from tests.fixtures.leftovers import end_leftovers

    folder = Path(tempfile.mkdtemp(prefix="avt-"))  # short: sockets lie in it
    os.environ["RAY_TMPDIR"] = str(folder)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.pop("RAY_ADDRESS", None)
    yield folder
    left = end_leftovers("RAY_TMPDIR", str(folder), seconds=60)
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"processes that a test left behind: {left}"


@pytest.fixture(scope="session")
def ray_cluster(ray_folder: Path) -> Iterator[str]:
    """A quiet local Ray of two CPUs for the tests of tier ``ray``; its address, for drivers in other processes."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        "local",  # never one that runs on this machine already
        num_cpus=2,
        object_store_memory=200_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
