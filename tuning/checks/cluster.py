"""The Ray cluster of RAY_ADDRESS: its token, its answer, its State API, its nodes and what they share."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.auth import MODE, Answer, Token, ask, find_token, sent_token
from configs.cluster import check_address as check_ray_address
from shards.errors import InputError
from shards.store import Place, StorePath
from tuning.checks.finding import Finding, fail, ok, refused, skip
from tuning.checks.machine import SHOWN, existing, version

WAIT_SECONDS = 60.0  # for all nodes together: a worker must start first
COPY_TOKEN = "copy the head's ~/.ray/auth_token to this user's, mode 600"
NO_ADDRESS = "no RAY_ADDRESS: commands start a Ray of this machine's own"


def check_token() -> list[Finding]:
    """The token, where one is needed: switched on, there, and read by this user alone."""
    mode, address = os.environ.get(MODE), os.environ.get("RAY_ADDRESS")
    if not address and mode != "token":
        return [skip("token", NO_ADDRESS)]
    if (mode or "token").lower() != "token":
        return [fail("token", f"{MODE}={mode}: this process sends none", f"set {MODE}=token, on every node")]
    try:
        token = find_token()
    except InputError as error:
        return [refused("token", error)]
    if token is None:
        remedy = f"{COPY_TOKEN}; for a new cluster: ray get-auth-token --generate"
        return [fail("token", "there is none", remedy)]
    if token.path is not None and (bits := token.path.stat().st_mode & 0o777) & 0o077:
        return [fail("token", f"{token.path} is open to other users (mode {bits:o})", f"chmod 600 {token.path}")]
    if mode is None:
        message = f"{token.source}, but {MODE} is not set: this process sends none"
        return [fail("token", message, f"set {MODE}=token, here and on every node")]
    return [ok("token", f"from {token.source}, for this user alone")]


def check_address(address: str | None) -> list[Finding]:
    """A cluster answers there, takes this process's token, and takes nobody without one."""
    if not address:
        return [skip("ray address", NO_ADDRESS)]
    try:
        if address.startswith(("http://", "https://")):
            return _dashboard(address.rstrip("/"), sent_token())
        check_ray_address(address)
    except InputError as error:
        return [refused("ray address", error)]
    if ":" not in address or "://" in address:
        return [ok("ray address", f"{address}: left to Ray")]
    return [_closed(address, ask(address, None) is Answer.REFUSED)]


def _closed(address: str, closed: bool) -> Finding:
    if not closed:
        remedy = f"stop it, and start it with {MODE}=token on every node"
        return fail("ray address", f"{address} asks for no token: who reaches it runs any code there", remedy)
    return ok("ray address", f"{address} takes this token, and nobody without one")


def _dashboard(url: str, token: Token | None) -> list[Finding]:
    """The job API's answers, with the token and without."""
    try:
        status = _status(f"{url}/api/jobs/", token)
        if status == 200:
            return [_closed(url, _status(f"{url}/api/jobs/", None) in (401, 403))]
    except OSError as error:
        return [fail("ray address", f"nobody answers at {url}: {error}", "start the cluster, or its tunnel")]
    if status in (401, 403):
        return [fail("ray address", f"{url} refuses this token", COPY_TOKEN)]
    return [fail("ray address", f"{url} answers {status}: no Ray dashboard", "name the dashboard's address")]


def _status(url: str, token: Token | None) -> int:
    headers = {"Authorization": f"Bearer {token.text}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def check_state_api(address: str) -> list[Finding]:
    """Ray Train frees the workers of stopped trials with it, and `ray job submit` shares its server."""
    from ray.util.state import list_nodes

    try:
        nodes = list_nodes(address=address, timeout=5, raise_on_missing_output=False)
    except Exception as error:  # requests', Ray's and its own kinds
        found = str(error).strip().splitlines() or [type(error).__name__]
        remedy = "install ray[default] on the head, and start it with its dashboard"
        return [fail("state api", f"does not answer: {found[0]}", remedy)]
    return [ok("state api", f"answers: {len(nodes)} nodes")]


def check_nodes() -> list[Finding]:
    """Every node has the versions that this one has, and what it computes on."""
    there = _alive()
    answers = _on_every_node(_facts, list(SHOWN))
    findings, ours = [], {name: version(name) for name in SHOWN}
    for address, facts in answers.items():
        if isinstance(facts, str):
            findings.append(fail("nodes", f"{address}: {facts}", "look at its logs, and at what installs it"))
        elif facts["versions"] != ours:
            other = ", ".join(f"{n} {v}" for n, v in facts["versions"].items() if v != ours[n])
            remedy = "install it as this one: make setup"
            findings.append(fail("nodes", f"{address}: {other} instead of this one's", remedy))
    if findings:
        return findings
    total: dict[str, float] = {}
    for node in there:
        for name in ("CPU", "GPU"):
            total[name] = total.get(name, 0) + node["Resources"].get(name, 0)
    return [ok("nodes", f"{len(there)}, {total['CPU']:g} CPUs, {total['GPU']:g} GPUs, the same versions")]


def check_storage(runs: Place, connected: bool) -> list[Finding]:
    """A file written here is read on every node, and one written there is read here; a store takes an object and gives
    it back."""
    if isinstance(runs, StorePath):
        probe = runs / f".doctor-{secrets.token_hex(8)}"
        try:
            taken = probe.create(probe.name.encode()) and probe.read_bytes() == probe.name.encode()
            probe.unlink()
        except InputError as error:
            return [refused("storage", error)]
        remedy = "look at what stands between this machine and the store"
        return [ok("storage", f"{runs} takes objects") if taken else fail("storage", f"{runs} gives others", remedy)]
    above = existing(runs)
    place = (runs if above == runs else above) / f".doctor-{secrets.token_hex(8)}"
    try:
        place.mkdir()
        (place / "driver").write_text(place.name)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        remedy = "correct its rights, or name another folder with --runs"
        return [fail("storage", f"{runs} can't be written: {error.strerror}", remedy)]
    try:
        return _shared(runs, place) if connected else [_alone(runs)]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _alone(runs: Path) -> Finding:
    return ok("storage", f"{runs} can be written; with one machine there is nobody to share it with")


def _shared(runs: Path, place: Path) -> list[Finding]:
    answers = _on_every_node(_exchange, str(place), place.name)
    remedy = f"mount the same storage at {runs} on every node"
    findings = []
    for address, answer in answers.items():
        if not answer.startswith("wrote "):
            findings.append(fail("storage", f"{address}: {answer}", remedy))
        elif _read(place / answer.removeprefix("wrote ")) != place.name:
            findings.append(fail("storage", f"{address} writes {runs}, but into a folder of its own", remedy))
    if findings:
        return findings
    if len(answers) == 1:
        return [_alone(runs)]
    return [ok("storage", f"{runs} is written and read by all {len(answers)} nodes")]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _facts(names: list[str]) -> dict[str, Any]:
    """What a node has installed; standard library only, as a node may lack all else."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = None
    return {"versions": found}


def _exchange(place: str, text: str) -> str:
    """On a node: read the driver's file, and leave one."""
    import uuid
    from pathlib import Path

    try:
        if (Path(place) / "driver").read_text() != text:
            return "reads something else there"
        name = uuid.uuid4().hex
        (Path(place) / name).write_text(text)
        return f"wrote {name}"
    except OSError as error:
        return f"{Path(place).parent}: {error.strerror}"


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _on_every_node(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What `function` returns on every node, by address; a text where nothing came back in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a node may lack this project
    refs: dict[Any, str] = {}
    for node in _alive():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        refs[ray.remote(**options)(function).remote(*arguments)] = (
            f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        )
    ready, late = ray.wait(list(refs), num_returns=len(refs), timeout=WAIT_SECONDS)
    out: dict[str, Any] = {refs[ref]: f"no answer in {WAIT_SECONDS:.0f} s" for ref in late}
    for ref in late:
        ray.cancel(ref, force=True)
    for ref in ready:
        try:
            out[refs[ref]] = ray.get(ref)
        except ray.exceptions.RayError as error:
            out[refs[ref]] = str(error).strip().splitlines()[-1]
    return out
