"""A training job: a config with its recipe, its identity, and the run's folder that the identity names."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs import config_to_dict
from shards.atomic import write_errors, write_text
from shards.checkpoint import has_checkpoint
from shards.redaction import redacted_values
from shards.store import Place, StorePath, absolute
from trainers.config import TrainConfig
from trainers.identity import git_commit, is_paths, run_identity
from trainers.journal import logs
from trainers.recipe import Fingerprints, Recipe
from trainers.recipes import recipe_of
from trainers.runs import CONFIG_FILE
from trainers.stored_run import run_folder

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """A config with its identity: what is trained, from what, and the folder that its identity names.

    Attributes:
        folder: where the run is; of one on a store, a copy.
        fingerprints: of what the run reads.
        notes: what the user should know before it starts.
        address: of a run on a store.
        imported: of one that was not trained here: the ``kind`` of import, the ``file``; it goes into config.json.
    """

    config: TrainConfig
    recipe: Recipe
    folder: Path
    identity: str
    fingerprints: Fingerprints
    commit: str
    notes: tuple[str, ...] = ()
    address: StorePath | None = None
    imported: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the run: its folder's."""
        return self.folder.name

    @property
    def place(self) -> Place:
        """Where the run is."""
        return self.folder if self.address is None else self.address

    @property
    def tags(self) -> dict[str, str]:
        """For MLflow: fingerprints of data and start, commit."""
        return {
            "dataset": self.fingerprints.data,
            "backbone": self.fingerprints.start or "",
            "commit": self.commit,
            "revision": str(self.recipe.revision),
        }

    @property
    def mirrored(self) -> Path:
        """The folder that its run in MLflow mirrors: of a recipe of one stage that stage's, whose curves it has."""
        names = self.recipe.stage_names(self.config)
        return self.folder if len(names) > 1 else logs(self.folder, names[0])

    @property
    def finished(self) -> bool:
        """All that the recipe makes is on disk."""
        return all(has_checkpoint(self.folder / name) for name in self.recipe.checkpoints(self.config))

    def begin(self) -> None:
        """Make the folder, its config.json, which lists the commits that the run was computed by, and `files`."""
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        before = read_record(self.folder)
        commits = [*before.get("commits", [before["commit"]] if "commit" in before else [])]
        if commits and commits[-1] != self.commit and not self.finished:
            print(f"note: {self.name} goes on under commit {self.commit}; so far {commits[-1]}", file=sys.stderr)
        if self.commit not in commits and not self.finished:
            commits.append(self.commit)
        record: dict[str, Any] = {"recipe": self.recipe.run_name(self.config), "identity": self.identity}
        record |= {
            "config": redacted_values(config_to_dict(self.config)),
            **self.tags,
            "revision": self.recipe.revision,
        }
        record |= {"imported": dict(self.imported)} if self.imported else {}
        record |= {"commit": commits[0] if commits else self.commit, "commits": commits}
        with write_errors(self.folder):
            write_text(self.folder / CONFIG_FILE, json.dumps(record, indent=1) + "\n")
            for name, text in self.fingerprints.files.items():
                write_text(self.folder / name, text)


def prepare(config: TrainConfig, runs: Place) -> Job:
    """The job of a config, without beginning it.

    Raises:
        InputError: data, backbone or features missing or of another kind.
    """
    config = _absolute(config)
    return job_of(config, recipe_of(config).fingerprints(config), runs)


def job_of(config: TrainConfig, found: Fingerprints, runs: Place, imported: Mapping[str, Any] | None = None) -> Job:
    """The job of a config whose paths are absolute and lead to what has these fingerprints.

    Args:
        imported: see `Job`; None: it is trained here.
    """
    recipe, commit = recipe_of(config), git_commit(ROOT)
    identity = run_identity(config, recipe.revision, found.data, found.start)
    where = runs.absolute() / f"{recipe.run_name(config)}-{identity}"
    address = where if isinstance(where, StorePath) else None
    return Job(config, recipe, run_folder(where), identity, found, commit, found.notes, address, imported or {})


def read_record(folder: Path) -> dict[str, Any]:
    """config.json of a run's folder; empty where there is none or a torn one."""
    try:
        return dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _absolute(config: TrainConfig) -> TrainConfig:
    """Paths as workers on any node must see them: their working folders are private; URLs are so already."""
    paths = {k: absolute(v) for k, v in config if isinstance(v, Path)}
    several = {k: tuple(map(absolute, v)) for k, v in config if is_paths(v)}
    return config.model_copy(update={**paths, **several})
