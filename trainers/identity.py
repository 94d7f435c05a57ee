"""Identity of a run: what is computed, from what. It names the folder and the runs; no path and no commit is in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import Config, config_to_dict, digest
from shards.hashes import file_sha256
from trainers.config import LANES, SHUFFLE_BUFFER

UNKNOWN, CODE = "unknown", "code-"  # commits of what is no git checkout: the second is followed by a hash
# Settings that change where and how fast a run is computed, not what.
EXECUTION_FIELDS = frozenset({"workers", "cpus", "gpu", "loaders", "retries", "save_steps", "resident"})
# Settings that earlier versions did not have, left out of the identity where they say what those did.
LATER_FIELDS: dict[str, Any] = {
    "steps": None,
    "steps_at": "middles",
    "standardise": True,
    "adapt": [],
    "adapted": None,
    "adaptation": {"batch_size": 64, "lr": None, "steps": 1, "episodic": False},
    "stream": False,
    "lanes": LANES,
    "shuffle_buffer": SHUFFLE_BUFFER,
    "train_missing": {"audio": 0, "visual": 0, "balanced": False, "both": False, "seed": 0},
    "train_rates": [],
    "distillation": 0.0,
}
ROOMS = ("configs", "models", "pipelines", "serving", "shards", "trainers", "tuning")
_CODE = ("*.py", "*.yaml", "*.toml")  # untracked files of these kinds can change what a run computes


def run_identity(config: Config, revision: int, data: str, start: str | None) -> str:
    """12 hex digits that change with what a run computes and from what.

    Args:
        config: the resolved config; its class counts too, so equal fields of two recipes differ.
        revision: of the recipe.
        data, start: see `trainers.recipe.Fingerprints`; they stand for the paths of the config.
    """
    return digest([type(config).__qualname__, content_settings(config), revision, data, start])


def content_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what is computed: without paths, whose content fingerprints stand for, without
    `EXECUTION_FIELDS`, and without `LATER_FIELDS` that say what was always computed."""
    found = _without_paths(config, config_to_dict(config))
    return {
        name: value for name, value in found.items() if name not in EXECUTION_FIELDS and not _said_before(name, value)
    }


def _said_before(name: str, value: Any) -> bool:
    return name in LATER_FIELDS and value == LATER_FIELDS[name]


def _without_paths(config: Config, plain: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Config):
            out[name] = _without_paths(value, plain[name])
        elif not isinstance(value, Path) and not is_paths(value):
            out[name] = plain[name]
    return out


def config_identity(config: Config) -> str:
    """12 hex digits of a study's or sweep's config, with the content of its paths in their place."""
    found = _with_content(config, config_to_dict(config))
    return digest([type(config).__qualname__, {k: v for k, v in found.items() if not _said_before(k, v)}])


def _with_content(config: Config, plain: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(plain)
    for name, value in config:
        if isinstance(value, Config) and name not in plain:  # written flat, its settings beside the others
            out |= _with_content(value, {k: plain[k] for k in type(value).model_fields if k in plain})
        elif isinstance(value, Config):
            out[name] = _with_content(value, plain[name])
        elif isinstance(value, Path) and name in plain:
            out[name] = path_content(value)
    return out


def path_content(path: Path) -> str:
    """What a path leads to: a file's sha256, a dataset's or a run's own record, else the folder's names and sizes."""
    if path.is_file():
        return file_sha256(path)
    for record in (path / "dataset.json", path / "config.json"):
        if record.is_file():
            return file_sha256(record)
    if not path.is_dir():
        return str(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest([[p.relative_to(path).as_posix(), p.stat().st_size] for p in files])


def is_paths(value: Any) -> bool:
    """Whether a setting is several paths."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(x, Path) for x in value)


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
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{CODE}{total.hexdigest()[:12]}" if files else UNKNOWN


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
