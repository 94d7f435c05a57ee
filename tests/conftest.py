"""Fixtures that several rooms share, and the rule that every test says which tier it belongs to."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.fixtures.worlds import World

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run side by side
TIERS = ("unit", "ray", "slow", "gpu")  # in the order in which they run
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests with no tier or several, so that no slow one slips into the fast tier; fast ones first."""
    tiers = {item: [tier for tier in TIERS if item.get_closest_marker(tier)] for item in items}
    wrong = [item.nodeid for item in items if len(tiers[item]) != 1]
    if wrong:
        raise pytest.UsageError(f"exactly one marker of {TIERS} is needed on: {', '.join(wrong)}")
    items.sort(key=lambda item: TIERS.index(tiers[item][0]))


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


@pytest.fixture(scope="session")
def _mlflow_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def world(_mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Trained runs of every recipe on a small dataset; for reading only."""
    from tests.fixtures.worlds import build_world

    with pytest.MonkeyPatch.context() as patch, _shared(tmp_path_factory, "world") as folder:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return build_world(folder, _mlflow_schema)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A quiet local Ray of two CPUs for the tests of tier ``ray``."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
