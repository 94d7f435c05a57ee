"""A file for Ray's cluster launcher, checked without a cluster: against Ray's own schema, and for what such a
cluster must not be: without a token, open to others, its nodes without shared storage.

Ray takes a wrong file for a good one: its schema knows names and types, no more.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shards.errors import InputError
from shards.store import url_of
from tuning.checks.gpu_counts import gpus_of

TOKEN = "~/.ray/auth_token"
PLACEHOLDER = "REPLACE"
STARTS = {"head": "head_start_ray_commands", "workers": "worker_start_ray_commands"}
OPEN = ("0.0.0.0/0", "::/0")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Cluster = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a cluster's file: the field, what about it, and what to do."""

    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def read_cluster(path: Path) -> Cluster:
    """The file's content, as Ray's launcher reads it.

    Raises:
        InputError: no such file, or no YAML mapping in it.
    """
    try:
        cluster = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror}", file=path, remedy="name a file") from None
    except RecursionError:
        raise InputError("not readable as YAML: nested too deeply", file=path, remedy="correct the file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise InputError("not readable as YAML", file=where, remedy="correct that line") from None
    if not isinstance(cluster, dict):
        raise InputError("no mapping of fields", file=path, remedy="start from the project's cluster.yaml")
    return cluster


def placeholders(path: Path) -> list[str]:
    """The values that are still to be filled in."""
    lines = (line.partition("#")[0] for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({word for line in lines for word in re.findall(rf"[\w.-]*{PLACEHOLDER}", line)})


def problems(cluster: Cluster) -> list[Problem]:
    """All that is wrong with a cluster's file; what Ray's schema refuses hides the rest."""
    if refused := list(_schema(cluster)):
        return refused
    checks = (_token, _dashboard, _mlflow, _storage, _copied, _network, _gpus)
    return [problem for check in checks for problem in check(cluster)]


def _schema(cluster: Cluster) -> Iterator[Problem]:
    """What Ray's launcher refuses; by private functions of Ray, used here alone: there are no others."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
    remedy = "see Ray's reference of the cluster file, and the project's cluster.yaml"
    try:
        validate_config(prepare_config(cluster))
    except jsonschema.ValidationError as error:
        field = ".".join(str(part) for part in error.absolute_path) or "(top)"
        yield Problem(field, error.message, remedy)
    except Exception as error:  # its providers raise what they like
        yield Problem("provider", f"Ray refuses the file: {error}", remedy)


def _start(cluster: Cluster, who: str) -> str:
    """The command that starts Ray on the head or on the workers."""
    return next((c for c in cluster.get(STARTS[who], ()) if re.search(r"\bray start\b", c)), "")


def _option(command: str, name: str) -> str | None:
    found = re.search(rf"--{name}[= ]+(\S+)", command)
    return found.group(1).strip("'\"") if found else None


def _token(cluster: Cluster) -> Iterator[Problem]:
    """Every node demands the token, and has it in a file that nobody else reads."""
    for who, field in STARTS.items():
        if not (start := _start(cluster, who)):
            message = f"nothing starts Ray on the {who}"
            yield Problem(field, message, "add the project's cluster.yaml's 'ray start' command")
        elif "RAY_AUTH_MODE=token" not in start:
            yield Problem(field, "'ray start' without the token", "export RAY_AUTH_MODE=token before it")
        for command in cluster.get(field, ()):
            if "RAY_AUTH_TOKEN=" in command:
                remedy = f"take it out, make a new one, and copy it as the file {TOKEN}"
                yield Problem(field, "the token itself is in the file", remedy)
    if TOKEN not in cluster.get("file_mounts", {}):
        yield Problem("file_mounts", "no node gets the token", f"add '{TOKEN}: {TOKEN}'")
    elif not any("chmod 600" in c and "auth_token" in c for c in cluster.get("setup_commands", ())):
        remedy = f"add 'chmod 600 {TOKEN}'"
        yield Problem("setup_commands", "other users of a node can read the token", remedy)


def _dashboard(cluster: Cluster) -> Iterator[Problem]:
    """The job API, which runs what it is sent, is on loopback; no node goes by a public address."""
    host = _option(_start(cluster, "head"), "dashboard-host")
    if host is not None and host not in LOOPBACK:
        remedy = "set --dashboard-host=127.0.0.1, and reach it by 'ray dashboard cluster.yaml'"
        yield Problem(STARTS["head"], f"the dashboard with its job API listens on {host}", remedy)
    for who, field in STARTS.items():
        address = _option(_start(cluster, who), "node-ip-address")
        if address is not None and not _private(address):
            remedy = "give the node's address in the private network, or leave it to Ray"
            yield Problem(field, f"--node-ip-address={address} is not private", remedy)


def _private(address: str) -> bool:
    """Whether an address is private; names and shell expressions are the user's word for it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return True
    return found.is_private and not found.is_unspecified


def _mlflow(cluster: Cluster) -> Iterator[Problem]:
    """Several nodes have one MLflow server, on the head's loopback, and jobs know it."""
    field, commands = STARTS["head"], cluster.get(STARTS["head"], ())
    server = next((c for c in commands if re.search(r"\bmlflow (server|ui)\b", c)), None)
    if server is not None and (host := _option(server, "host")) not in (None, *LOOPBACK):
        remedy = "set --host 127.0.0.1, and reach it by 'ssh -L 5000:127.0.0.1:5000'"
        yield Problem(field, f"the MLflow server, which asks for no password, listens on {host}", remedy)
    if "MLFLOW_TRACKING_URI=" not in _start(cluster, "head"):
        remedy = "export MLFLOW_TRACKING_URI before 'ray start', and start a server there"
        yield Problem(field, "jobs are told of no MLflow server", remedy)


def _storage(cluster: Cluster) -> Iterator[Problem]:
    """The folder of runs lies on storage that every type of node mounts, or on an object store."""
    named = re.search(r"\bAVMEND_RUNS=([^\s;'\"]+)", _start(cluster, "head"))
    if named is not None and url_of(named.group(1)):
        return
    if named is None or not named.group(1).startswith("/"):
        remedy = "export AVMEND_RUNS, an absolute path on the shared storage or an address, before 'ray start'"
        yield Problem(STARTS["head"], "jobs are told of no folder of runs", remedy)
        return
    runs = Path(named.group(1))
    for field, commands in _preparations(cluster):
        if not any(_mounts(command, runs) for command in commands):
            remedy = f"mount the shared storage there before Ray starts, so that {runs} lies on it"
            yield Problem(field, f"nothing mounts the storage that {runs} lies on", remedy)


def _preparations(cluster: Cluster) -> Iterator[tuple[str, list[str]]]:
    """For each type of node the commands that prepare it; a type's own take the place of the general ones."""
    first, setup = cluster.get("initialization_commands", []), cluster.get("setup_commands", [])
    head = cluster.get("head_node_type")
    yield "setup_commands (head)", [*first, *setup, *cluster.get("head_setup_commands", [])]
    general = [*setup, *cluster.get("worker_setup_commands", [])]
    if not cluster.get("available_node_types"):
        yield "setup_commands (workers)", [*first, *general]
    for name, kind in cluster.get("available_node_types", {}).items():
        if name != head:
            own = kind.get("worker_setup_commands", general)
            own = [*kind.get("initialization_commands", first), *own]
            yield f"available_node_types.{name}", own


def _mounts(command: str, runs: Path) -> bool:
    """Whether a command mounts, or demands a mount at, a folder that `runs` lies in."""
    if not re.search(r"\b(mount|mountpoint|mount\.\w+|fstab|gcsfuse|s3fs|mount-s3|blobfuse2)\b", command):
        return False
    places = {Path(place) for place in re.findall(r"(?<=\s)/[\w./-]+", f"{command} ")}
    return any(place in (runs, *runs.parents) and place != Path("/") for place in places)


def _copied(cluster: Cluster) -> Iterator[Problem]:
    """What is copied to every node is code."""
    mounted = {str(local) for local in cluster.get("file_mounts", {}).values()}
    missing = {".venv", "runs", "data"} - {str(x).strip("/") for x in cluster.get("rsync_exclude", ())}
    if mounted & {".", "./"} and missing:
        remedy = f"add {', '.join(sorted(missing))} to rsync_exclude"
        yield Problem("rsync_exclude", "gigabytes would be copied to every node", remedy)


def _network(cluster: Cluster) -> Iterator[Problem]:
    """Nobody else reaches a node: most of Ray's ports listen on every interface."""
    provider = cluster["provider"]
    if provider["type"] == "local":
        for address in (provider.get("head_ip", ""), *provider.get("worker_ips", ())):
            if not _private(address):
                remedy = "use the machines' addresses in their private network"
                yield Problem("provider", f"{address} is not a private address", remedy)
    if provider["type"] == "aws":
        yield from _aws_network(cluster)


def _aws_network(cluster: Cluster) -> Iterator[Problem]:
    provider = cluster["provider"]
    for rule in provider.get("security_group", {}).get("IpPermissions", ()):
        ranges = [*rule.get("IpRanges", ()), *rule.get("Ipv6Ranges", ())]
        if any(r.get("CidrIp", r.get("CidrIpv6")) in OPEN for r in ranges):
            ports = f"ports {rule.get('FromPort', 'all')} to {rule.get('ToPort', 'all')}"
            remedy = "name the addresses that you come from"
            yield Problem("provider.security_group", f"{ports} are open to the world", remedy)
    if not provider.get("use_internal_ips"):
        remedy = "set use_internal_ips: true, and reach the head by VPN or auth.ssh_proxy_command"
        yield Problem("provider.use_internal_ips", "nodes get public addresses", remedy)
    for name, kind in cluster.get("available_node_types", {}).items():
        if not kind["node_config"].get("SecurityGroupIds"):
            remedy = "name a group of yours that admits the nodes and your ssh gateway alone"
            message = "no security group: Ray makes one with ssh open to the world"
            yield Problem(f"available_node_types.{name}.node_config.SecurityGroupIds", message, remedy)


def _gpus(cluster: Cluster) -> Iterator[Problem]:
    """No type of node promises GPUs that its machine lacks: work for them would wait for ever."""
    for name, kind in cluster.get("available_node_types", {}).items():
        machine = str(kind["node_config"].get("InstanceType", ""))
        wanted, there = kind["resources"].get("GPU", 0), gpus_of(machine)
        if there is not None and wanted > there:
            message = f"{wanted} GPUs, but a {machine} has {there}"
            remedy = f"set GPU: {there}, or choose a machine that has them"
            yield Problem(f"available_node_types.{name}.resources.GPU", message, remedy)
