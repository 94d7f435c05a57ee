"""``avmend doctor``: what is wrong, before anything expensive begins. One line per check, with its remedy.

On a cluster: ``ray job submit --working-dir . -- python -m tuning.doctor --runs FOLDER``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from configs.cluster import ray_session
from shards.command import command
from shards.errors import InputError
from shards.store import Place
from shards.stored_folder import local_root
from tuning.checks import cluster, machine, stored
from tuning.checks.finding import Finding, guarded, refused, skip
from tuning.command_line import doctor_parser

Check = Callable[[], list[Finding]]
ROOT = Path(__file__).resolve().parent.parent
CONNECTED = ("state api", "nodes", "storage")


def examine(runs: Place, datasets: list[Path], cluster_file: Path | None, gigabytes: float) -> Iterator[Finding]:
    """All findings, each as soon as it is known.

    Args:
        runs: folder of runs and of the MLflow store, or its address.
        datasets: folders of shards whose every byte is read.
        cluster_file: for Ray's launcher.
        gigabytes: of disk that should be free; less than a tenth of it is a failure.
    """
    address, here = os.environ.get("RAY_ADDRESS"), runs if isinstance(runs, Path) else local_root(runs)
    checks: dict[str, Check] = {
        "python": machine.check_python,
        "versions": partial(machine.check_versions, ROOT),
        "ffmpeg": machine.check_ffmpeg,
        "decoders": machine.check_decoders,
        "gpu": machine.check_gpu,
        "open files": machine.check_open_files,
        "shared memory": machine.check_shared_memory,
        "disk": partial(machine.check_disk, [here, Path(tempfile.gettempdir())], gigabytes),
        "mlflow store": partial(stored.check_store, here),
        "shards": partial(stored.check_datasets, datasets),
        "cluster file": partial(stored.check_cluster_file, cluster_file),
        "token": cluster.check_token,
    }
    for name, check in checks.items():
        yield from guarded(name, check)
    answered = guarded("ray address", partial(cluster.check_address, address))
    yield from answered
    yield from _connected(runs, address, all(finding.status == "ok" for finding in answered))


def _connected(runs: Place, address: str | None, answered: bool) -> Iterator[Finding]:
    """What only a process that Ray knows can see."""
    if not address:
        yield skip("state api", cluster.NO_ADDRESS)
        yield from guarded("storage", partial(cluster.check_storage, runs, False))
        return
    if not answered:
        yield from (skip(name, "the cluster does not answer") for name in CONNECTED)
        return
    yield from guarded("state api", partial(cluster.check_state_api, address))
    if address.startswith("http"):
        why = "only from within: ray job submit --working-dir . -- python -m tuning.doctor"
        yield from (skip(name, why) for name in CONNECTED[1:])
        return
    try:
        with ray_session():
            yield from guarded("nodes", cluster.check_nodes)
            yield from guarded("storage", partial(cluster.check_storage, runs, True))
    except InputError as error:
        yield refused("ray address", error)


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it; 1 if a check failed."""
    args = doctor_parser().parse(argv)
    here = Path("cluster.yaml")
    file = args.cluster or (here if here.is_file() else None)
    counts: Counter[str] = Counter()
    for finding in examine(args.runs.absolute(), args.data, file, args.room):
        counts[finding.status] += 1
        print(json.dumps(asdict(finding)) if args.json else finding, flush=True)
    if not args.json:
        names = {"fail": "failed", "warn": "to look at", "ok": "well", "skip": "skipped"}
        print(", ".join(f"{counts[status]} {name}" for status, name in names.items()))
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
