"""A real Ray head for tests, as users start one: token on, dashboard on, only the dependencies installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

TOKEN = "0123456789abcdef" * 2


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        env: variables of a client that has the token.
        bin: folder of the environment's `python` and `ray`; the project is not installed in it.
        url: the dashboard's, where jobs are submitted.
        address: host:port, of RAY_ADDRESS.
        token: its file.
    """

    env: dict[str, str]
    bin: Path
    url: str
    address: str
    token: Path

    def submit(self, *entry: str, env: dict[str, str] | None = None, cwd: Path = ROOT):
        """`ray job submit --working-dir . -- ENTRY`, to its end; its output is stdout."""
        command = [
            self.bin / "ray",
            "job",
            "submit",
            "--address",
            self.url,
            "--working-dir",
            ".",
            "--",
            *entry,
        ]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.run(command, cwd=cwd, env=env or self.env, text=True, timeout=400, **output)

    @contextmanager
    def node(self, *before: str) -> Iterator[None]:
        """One more node of one CPU on this machine; `before` is put in front of its command."""
        log = self.token.with_name("node.log")
        options = ["--num-cpus=1", "--min-worker-port=0", "--max-worker-port=0"]
        options.append(f"--dashboard-agent-listen-port={free_ports(1)[0]}")
        command = [*before, self.bin / "ray", "start", f"--address={self.address}", "--block", *options]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=self.env, stdout=file, stderr=file, start_new_session=True
            )
        deadline = time.monotonic() + 120
        try:
            while "Ray runtime started" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no node: {log.read_text()[-2000:]}")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextmanager
def ray_head() -> Iterator[Head]:
    """A head of two CPUs on free ports, in a folder of its own; ended by its process id."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
    env = _environment(folder)
    dashboard, *ports = free_ports(5)
    named = ("port", "dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
    options = [f"--{name}={port}" for name, port in zip(named, ports, strict=True)]
    options += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", f"--temp-dir={folder}/ray"]
    options += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--object-store-memory=100000000",
    ]
    with (folder / "head.log").open("w") as log:
        start = [folder / "env/bin/ray", "start", "--head", "--block", *options]
        process = subprocess.Popen(start, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        _wait(url, process, folder / "head.log")
        head = Head(env, folder / "env/bin", url, f"127.0.0.1:{ports[0]}", folder / "token")
        yield head
        if process.poll() is not None:
            raise RuntimeError(f"the head died: {(folder / 'head.log').read_text()[-4000:]}")
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Variables and a virtual environment that sees the installed packages, but not the project: a path file
    does not follow the hook that an editable install left beside them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True, timeout=60)
    (place,) = (folder / "env/lib").glob("python*/site-packages")
    (place / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    script = folder / "env/bin/ray"
    script.write_text(f"#!{folder}/env/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    script.chmod(0o755)
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AVMEND_", "MLFLOW_", "PYTHON"))}
    return {
        **keep,
        "PATH": f"{folder}/env/bin:{keep['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": f"{folder}/token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_health_check_timeout_ms": "120000",  # a busy machine is not a dead one
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "300",
        "OMP_NUM_THREADS": "1",
    }


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until the job API answers."""
    request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no head: {log.read_text()[-2000:]}") from None
            time.sleep(0.2)
