"""Ray for as long as it is needed: a running cluster if there is one, else one of this machine's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import InputError


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start a local one with ``num_cpus`` (default: all) and
    stop it afterwards. Where this process already runs Ray, that is used and left running.

    Raises:
        InputError: there is no cluster at ``RAY_ADDRESS``.
    """
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
    try:
        ray.init(**options)  # type: ignore[arg-type]
    except ConnectionError as error:
        address, remedy = os.environ.get("RAY_ADDRESS"), "start the cluster, or unset RAY_ADDRESS"
        raise InputError(f"no Ray at {address}: {error}", field="RAY_ADDRESS", remedy=remedy) from None
    try:
        yield
    finally:
        ray.shutdown()
