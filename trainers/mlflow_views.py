"""Views of MLflow's runs page: which runs it lists, in which order, with which columns. No MLflow here.

The page remembers its columns in the browser alone, and begins with none that tell runs apart. But it can
open a view that is kept as a tag of the experiment: its Views menu lists them, a link can name one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from trainers.identity import EXECUTION_FIELDS
from trainers.tables import SHARES, is_share
from trainers.tracking import Recorded

TAG = "mlflow.sharedViewState."
MOST = 8  # parameters that get a column
RESULTS = ("accuracy/noisy_mean", "accuracy/complete", "accuracy/complete_all", "mAP/noisy_mean", "mAP/complete")
TRAINED = ("val_accuracy", "complete/val_accuracy", "val_mAP", "complete/val_mAP", "val_loss", "loss")
COSTS = ("trained", "epoch_seconds", "peak_memory_mb")


@dataclass(frozen=True)
class View:
    """One view.

    Attributes:
        name: in the menu; lower case, it is the tag's end, too.
        runs: the filter, as one would type it.
        order: column that it is sorted by, the highest first.
        columns: as ``params.`recipe```.
    """

    name: str
    runs: str
    order: str
    columns: tuple[str, ...]

    def tag(self, now: int) -> tuple[str, str]:
        """The experiment's tag that keeps it; `now` in milliseconds since 1970."""
        state = {
            "searchFilter": self.runs,
            "orderByKey": self.order,
            "orderByAsc": False,
            "selectedColumns": list(self.columns),
            "columnOrder": list(self.columns),
            "columnWidths": {column: _width(column) for column in self.columns},
        }
        kept = {"name": self.name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        return TAG + self.name, json.dumps(kept)

    def path(self, experiment_id: str) -> str:
        """What follows the server's address in a link to it."""
        query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": self.name})
        return f"/#/experiments/{experiment_id}/runs?{query}"


def _width(column: str) -> int:
    """Pixels in which the whole heading can be read."""
    return max(80, 48 + 6 * len(column.partition("`")[2]))


def views(runs: Sequence[Recorded]) -> list[View]:
    """The views of an experiment: `results` of evaluations, `training` with the parameters that differ."""
    methods = [run for run in runs if run.kind == "method"]
    trained = [run for run in runs if run.kind == "training"]
    out = []
    if methods and (ranked := _first(methods, RESULTS)):
        named = _there(methods, ("method", "selection", "network"))
        accuracies = sorted(filter(_of_all, _metrics(methods)), key=lambda name: (name != ranked, name))
        costs = [name for name in COSTS if name in _metrics(methods)]
        shown = [*accuracies, *costs]
        out.append(_view("results", "params.method != ''", ranked, named, shown))
    if trained and (ranked := _first(trained, TRAINED)):
        params = ("recipe", "seed", *_differing(trained))
        names = {name for run in trained for name in _in_validation(run)}
        shown = sorted(names, key=lambda name: (name != ranked, name))
        shown += [name for name in COSTS if name in _metrics(trained)]
        chosen = "params.recipe != '' and tags.commit != ''"
        out.append(_view("training", chosen, ranked, _there(trained, params), shown))
    return out


def _view(name: str, runs: str, ranked: str, params: Sequence[str], metrics: Sequence[str]) -> View:
    columns = [*(f"params.`{p}`" for p in params), *(f"metrics.`{m}`" for m in metrics)]
    return View(name, runs, f"metrics.`{ranked}`", tuple(columns))


def _metrics(runs: Sequence[Recorded]) -> set[str]:
    return {name for run in runs for name in run.metrics}


def _first(runs: Sequence[Recorded], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in _metrics(runs)), None)


def _there(runs: Sequence[Recorded], params: Sequence[str]) -> list[str]:
    return [name for name in params if any(run.params.get(name) for run in runs)]


def _of_all(metric: str) -> bool:
    """An accuracy or mAP over all clips or questions, not one over a kind of question."""
    kind, _, name = metric.partition("/")
    return kind in SHARES and bool(name) and (name.endswith("_all") or (" " not in name and name.islower()))


def _in_validation(run: Recorded) -> list[str]:
    """Its accuracies in validation; a lone stage's is the run's own."""
    told = [name for name in run.metrics if "val_" in name and is_share(name) and not name.startswith("best/")]
    staged = [name for name in told if "/" in name]
    return told if len(staged) > 1 else [name for name in told if name not in staged]


def _differing(runs: Sequence[Recorded]) -> list[str]:
    """Parameters with several values within one recipe; paths, and where it ran, are left out."""
    found: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        recipe = f"{run.params.get('recipe')} {run.params.get('noisy')}"
        for name, value in run.params.items():
            found.setdefault((name, recipe), set()).add(value)
    aside = EXECUTION_FIELDS | {"recipe", "seed"}
    several = dict.fromkeys(name for (name, _), v in found.items() if len(v) > 1 and not any("/" in x for x in v))
    return [name for name in several if name.partition(".")[0] not in aside][:MOST]
