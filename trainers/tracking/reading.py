"""Runs read back from their store, and the tags of experiments that make the UI show them well."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainers.tracking.address import connect, store_errors
from trainers.tracking.schema import known_store
from trainers.tracking.tags import PARENT

KINDS = {  # a run's kind by a parameter that only runs of it have, in this order
    "sweep": "sweep",
    "study": "study",
    "conditions": "evaluation",
    "rates": "evaluation",
    "seeds": "method",
    "case": "case",
    "recipe": "training",
}


@dataclass(frozen=True)
class Recorded:
    """A run as its store tells it.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
        started, ended: milliseconds since 1970; `ended` None while it runs.
        parent: id of the run of the command that it belongs to, "" if none.
    """

    run_id: str
    name: str
    experiment: str
    status: str
    started: int
    ended: int | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    parent: str

    @property
    def kind(self) -> str:
        """sweep, study, evaluation, method (a line of an evaluation), case (a stage), training, or other."""
        return next((kind for param, kind in KINDS.items() if param in self.params), "other")


def read_runs(root: Path | str) -> list[Recorded]:
    """All runs of the store of `root` that were not deleted, oldest first. Nothing is changed there.

    Raises:
        InputError: no store there, or none that can be read.
    """
    uri = known_store(root)
    with store_errors(uri, "can't be read"):
        client = connect(uri)
        places = {id_: name for name, id_ in _experiments(client).items()}
        found, token = [], None
        while places:
            page = client.search_runs(list(places), max_results=1000, page_token=token)
            found += [_recorded(run, places[run.info.experiment_id]) for run in page]
            if not (token := page.token):
                break
    return sorted(found, key=lambda run: (run.started, run.name))


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Ids by name."""
    return {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}


def _recorded(run: Any, experiment: str) -> Recorded:
    info, data = run.info, run.data
    return Recorded(
        run_id=info.run_id,
        name=info.run_name or info.run_id,
        experiment=experiment,
        status=info.status,
        started=info.start_time or 0,
        ended=info.end_time,
        params=dict(data.params),
        metrics=dict(data.metrics),
        tags=dict(data.tags),
        parent=data.tags.get(PARENT, ""),
    )


def read_artifact(root: Path | str, run_id: str, name: str) -> str | None:
    """The text of a run's artifact, None if there is none."""
    client = connect(known_store(root))
    with tempfile.TemporaryDirectory() as place:
        try:
            return Path(client.download_artifacts(run_id, name, place)).read_text(encoding="utf-8")
        except (MlflowException, OSError):
            return None


def tag_experiments(root: Path | str, tags: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Set tags of experiments, given by the experiment's name; returns the experiments' ids by name."""
    client = connect(known_store(root))
    ids = _experiments(client)
    for name, own in tags.items():
        for key, value in own.items():
            client.set_experiment_tag(ids[name], key, value)
    return ids
