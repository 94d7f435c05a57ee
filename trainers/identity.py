"""Identity of a run: what was computed, from what, by which code. It names the folder and the runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

from configs import Config, config_to_dict

UNKNOWN = "unknown"
EXECUTION_FIELDS = frozenset({"seed", "workers", "cpus", "gpu", "loaders", "retries"})  # settings of a repetition alone
ROOMS = ("configs", "models", "pipelines", "shards", "trainers", "tuning")
_CODE = ("*.py", "*.yaml", "*.toml")  # untracked files of these kinds can change what a run computes


def run_identity(config: Config, dataset_fingerprint: str, backbone_fingerprint: str | None, commit: str) -> str:
    """12 hex digits that change with the resolved config, the dataset, the backbone or the code.

    Args:
        config: the resolved config; its class counts too, so equal fields of two recipes differ.
        dataset_fingerprint: sha256 of dataset.json.
        backbone_fingerprint: sha256 of the backbone's weights and config; ``None`` if the run has none.
        commit: what :func:`git_commit` says.
    """
    parts = [
        type(config).__qualname__,
        config_to_dict(config),
        dataset_fingerprint,
        backbone_fingerprint,
        commit,
    ]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def git_commit(root: Path) -> str:
    """Commit of the checkout at ``root``; with changes in it ``<commit>-dirty-<hash of the changes>``.

    Where ``root`` is not the top of a git checkout (an installed copy, a Ray job's working folder, no git on
    this machine) it is what AVMEND_COMMIT says, else ``code-<hash of the rooms' files>``, else ``unknown``.
    """
    top, head = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "HEAD")
    if top is None or head is None or Path(os.fsdecode(top).strip()).resolve() != Path(root).resolve():
        return os.environ.get("AVMEND_COMMIT") or _code(Path(root))
    commit, changes = head.decode().strip()[:12], _changes(root)
    return f"{commit}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else commit


def _code(root: Path) -> str:
    """`code-` and the hash of every file of code in the rooms of ``root``, whoever copied it there."""
    files = sorted(path for room in ROOMS for kind in _CODE for path in (root / room).rglob(kind))
    told = hashlib.sha256()
    for path in files:
        told.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"code-{told.hexdigest()[:12]}" if files else UNKNOWN


def _changes(root: Path) -> bytes:
    """Changes of tracked files, and untracked code with its contents; empty for a clean checkout."""
    diff = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--no-color") or b""
    listed = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *_CODE) or b""
    for name in sorted(filter(None, listed.split(b"\0"))):
        diff += name + b"\0" + (Path(root) / os.fsdecode(name)).read_bytes()
    return diff


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints, ``None`` if it refuses or is not there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
