"""Ray for as long as it is needed: a running cluster if there is one, else one of this machine's own."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.auth import Answer, ask, sent_token
from models.registry import VARIABLE as PLUGINS
from shards.errors import InputError
from shards.store import Place, PlaceT, StorePath, place, url_of

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # what Ray sets for the driver of a submitted job
START = "start the cluster, or unset RAY_ADDRESS"
LATE = re.compile("timed out|deadline exceeded|failed to start gcs", re.IGNORECASE)  # Ray has no class for it
LONGER = (
    "the machine is busy or short of memory: try again when it is less so, or let Ray wait longer (seconds): "
    "RAY_gcs_server_port_wait_time_s=300 RAY_raylet_start_wait_time_s=300"
)
HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: a node goes by 127.0.0.1, and Ray listens there alone
if not os.environ.get("RAY_ADDRESS"):  # before Ray is imported, which reads it then
    os.environ.setdefault(LOOPBACK_ONLY, "0")


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start a local one with ``num_cpus`` (default: all), on loopback
    alone, and stop it afterwards. Where this process already runs Ray, that is used and left running; a cluster of
    somebody else's on this machine is not joined.

    Raises:
        InputError: there is no cluster at ``RAY_ADDRESS``, or it refuses the token; or a local one was not up
            in time.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        check_address(address)
    else:
        options["address"] = "local"  # else Ray joins the one that was started last on this machine
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
    if variables := worker_variables(address):
        options["runtime_env"] = {"env_vars": variables}
    try:
        with _own_sigterm():
            ray.init(**options)
    except Exception as error:
        if told := _not_there(address, error):
            raise told from None
        raise
    try:
        yield
    finally:
        ray.shutdown()


def worker_variables(address: str | None) -> dict[str, str]:
    """Environment variables of this process that workers need and do not get by themselves: the path of a local
    cluster's, the plugins of any. Those that a submitted job gives its workers are not given again."""
    variables = {}
    if not address or address == "local":
        root = str(Path(__file__).resolve().parent.parent)
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    if plugins := os.environ.get(PLUGINS):
        variables[PLUGINS] = plugins
    return {name: value for name, value in variables.items() if name not in _job_environment().get("env_vars", {})}


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in the place of this process's, which exits without a word of SIGTERM: a run that
    is told to stop would be one that failed. Ours ends the session, too."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _not_there(address: str | None, error: Exception) -> InputError | None:
    """What a user can do something about, of what ``ray.init`` raises."""
    if address and isinstance(error, ConnectionError):
        return InputError(f"no Ray at {address}: {error}", field="RAY_ADDRESS", remedy=START)
    if not address and LATE.search(str(error)):
        first = str(error).strip().splitlines()[0]  # a traceback of Ray's may follow
        return InputError(f"Ray did not start in time on this machine: {first}", remedy=LONGER)
    return None


def check_address(address: str) -> None:
    """Refuse at once an address where no Ray answers, or one that refuses this process's token.

    Raises:
        InputError: so, or it is no address, or the dashboard's, where jobs are submitted.
    """
    if address.startswith(("http://", "https://")):
        remedy = "for 'ray job submit' name it with --address; on a node set RAY_ADDRESS to the head's host:port"
        message = f"{address} is the address of a dashboard, where jobs are submitted"
        raise InputError(message, field="RAY_ADDRESS", remedy=remedy)
    found = HOST_PORT.fullmatch(address.removeprefix("ray://"))
    if address in ("auto", "local"):
        return  # Ray itself looks for it
    if found is None:
        remedy = "set it to the head's host:port, ray://host:port, auto, or unset it"
        raise InputError(f"'{address}' is no address of a Ray cluster", field="RAY_ADDRESS", remedy=remedy)
    if address.startswith("ray://") or os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        _reach(address, found.group(1).strip("[]"), int(found.group(2)))
        return  # what more there is, only Ray itself can ask
    token = sent_token()
    answer = ask(address, token)
    if answer is Answer.NOBODY:
        raise InputError(f"no Ray answers at {address}", field="RAY_ADDRESS", remedy=START)
    if answer is Answer.REFUSED:
        message = f"the cluster at {address} demands a token, and " + (
            f"refuses that of {token.source}" if token else "this process sends none"
        )
        remedy = "set RAY_AUTH_MODE=token, and copy the head's ~/.ray/auth_token to this user's, mode 600"
        raise InputError(message, field="RAY_AUTH_TOKEN_PATH" if token else "RAY_AUTH_MODE", remedy=remedy)


def _reach(address: str, host: str, port: int, seconds: float = 5.0) -> None:
    """Refuse an address where nobody listens."""
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray answers at {address}: {error}", field="RAY_ADDRESS", remedy=START) from None


def require_resources(cpus: float, gpus: float, workers: int, field: str = "workers") -> str | None:
    """Refuse what the connected cluster can never give; Ray itself would wait for it, without end and a word.

    Args:
        cpus, gpus: of each worker; a worker runs on one node.
        field: the setting that says how many.

    Returns:
        None where it fits on the nodes that are there; where the cluster grows, what is waited for: to be shown.

    Raises:
        InputError: it does not fit, and the cluster does not grow, or not that far.
    """
    import ray
    from ray._private.state import state  # there is no public way to ask how far a cluster grows

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return can_ever_fit(nodes, state.get_max_resources_from_cluster_config(), cpus, gpus, workers, field)


def can_ever_fit(
    nodes: Sequence[Mapping[str, float]],
    most: Mapping[str, float] | None,
    cpus: float,
    gpus: float,
    workers: int,
    field: str = "workers",
) -> str | None:
    """As `require_resources`, of the nodes' resources and the `most` that the cluster grows to; None: it does not.

    Raises:
        InputError: as there.
    """
    if _fits(nodes, cpus, gpus, workers):
        return None
    wanted = f"{workers} {field if workers > 1 else field.removesuffix('s')} of {cpus:g} CPUs and {gpus:g} GPUs"
    there = ", ".join(f"{_sum(nodes, name):g} {name}s" for name in ("CPU", "GPU")) + f" on {len(nodes)} nodes"
    if most and all(most.get(name, 0) >= n * workers for name, n in (("CPU", cpus), ("GPU", gpus))):
        return f"waiting for the cluster to grow: {wanted}; now it has {there}"
    missing = "gpu" if gpus * workers > max(_sum(nodes, "GPU"), (most or {}).get("GPU", 0)) else field
    remedy = "gpu=false, or a cluster with GPUs" if missing == "gpu" else f"set {field} and cpus to what a node has"
    message = f"{wanted} do not fit: the cluster has {there}, and does not grow to that"
    raise InputError(message, field=missing, remedy=remedy)


def _fits(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float, workers: int) -> bool:
    """Whether so many workers fit on the nodes, each on one of them."""
    needs = [(name, n) for name, n in (("CPU", cpus), ("GPU", gpus)) if n]
    most = [min((int(node.get(name, 0) // n) for name, n in needs), default=workers) for node in nodes]
    return sum(most) >= workers


def _sum(nodes: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(node.get(name, 0) for node in nodes)


def lasting(path: PlaceT, field: str) -> PlaceT:
    """The absolute ``path`` of what a command writes; refused where a submitted job would lose it. Addresses last.

    Ray copies ``--working-dir`` to a temporary folder of each node, which no other sees and which is deleted.

    Raises:
        InputError: this is a submitted job and the path lies in its working directory; a path that is an address, where
            none is taken.
    """
    if isinstance(path, StorePath):
        return path
    path = folder_alone(path, field).absolute()
    here = Path.cwd()
    if in_job() and path.resolve().is_relative_to(here):
        message = f"{path.resolve().relative_to(here)} would be lost with the job's temporary working directory"
        remedy = "give an absolute path, on storage that every node mounts"
        raise InputError(message, field=field, remedy=remedy)
    return path


def folder_alone(path: Place, field: str) -> Path:
    """The path of what a command writes to a folder alone.

    Raises:
        InputError: it is an address.
    """
    if (url := url_of(path)) is not None:
        remedy = "name a folder; of several nodes one that all of them mount"
        raise InputError("is an address, and this is written to a folder alone", file=url, field=field, remedy=remedy)
    return Path(str(path))


def runs_folder() -> Place:
    """The folder of runs, or its address, where no command names one: AVMEND_RUNS, else ``runs``.

    Raises:
        InputError: an address that holds credentials.
    """
    return place(os.environ.get("AVMEND_RUNS", "runs"))


def in_job() -> bool:
    """Whether this process is the driver of a job with an uploaded working directory."""
    return bool(_job_environment().get("working_dir"))


def _job_environment() -> dict[str, Any]:
    """The runtime environment of the submitted job that this process drives, if it drives one."""
    try:
        return dict(json.loads(os.environ.get(JOB, ""))["runtime_env"])
    except (ValueError, KeyError, TypeError):
        return {}
