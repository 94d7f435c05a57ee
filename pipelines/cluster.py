"""Ray for as long as it is needed: a running cluster if there is one, else one of this machine's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start a local one with ``num_cpus`` (default: all) and stop
    it afterwards. Where Ray is already running in this process, it is used and left running."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, object] = {"logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        options |= {"num_cpus": num_cpus, "include_dashboard": False, "log_to_driver": False}
        options |= {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
    ray.init(**options)  # type: ignore[arg-type]
    try:
        yield
    finally:
        ray.shutdown()
