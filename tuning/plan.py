"""Which trials a sweep has, in order: drawn up front, or suggested one by one from what is known so far.

A sweep that is resumed has the same plan: a grid or random search is drawn again from its seed; what TPE
suggested is in plan.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.noise import generator
from shards.atomic import write_text
from trainers.job import Job
from tuning.config import Search
from tuning.space import Axis, Params, Space, draw
from tuning.trial_result import Outcome, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FILE = "plan.jsonl"
MakeJob = Callable[[Params], Job]


def trial_of(number: int, params: Params, make: MakeJob, folder: Path) -> Trial:
    """A trial, with its place in the sweep's folder; a place belongs to one identity."""
    job = make(params)
    return Trial(number, params, job, folder / "trials" / f"{number:03d}-{job.name}")


def drawn(space: Space, search: Search, make: MakeJob, folder: Path) -> list[Trial]:
    """All trials of a grid or random search.

    Raises:
        InputError: the space has fewer points than draws; what a trial's job refuses.
    """
    points = draw(space, 1 if search.method == "grid" else search.trials, search.seed)
    return [trial_of(number, params, make, folder) for number, params in enumerate(points)]


def recorded(folder: Path) -> list[Params]:
    """The points of plan.jsonl, in order; a torn last line is left out."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line)["params"] for line in lines if line]


def record(folder: Path, params: Params) -> None:
    """Append a point to plan.jsonl, on the disk before its trial begins."""
    known = recorded(folder)
    text = "".join(
        json.dumps({"number": number, "params": point}) + "\n" for number, point in enumerate([*known, params])
    )
    write_text(folder / FILE, text)


def earlier(make: MakeJob, folder: Path) -> list[Trial]:
    """The trials of plan.jsonl."""
    return [trial_of(number, params, make, folder) for number, params in enumerate(recorded(folder))]


def suggested(
    space: Space,
    search: Search,
    make: MakeJob,
    folder: Path,
    known: Callable[[], Sequence[Outcome]],
) -> Iterator[Trial]:
    """TPE's trials after those of plan.jsonl, each asked for when it is taken.

    Args:
        known: outcomes so far.
    """
    for number in range(len(recorded(folder)), search.trials):
        params = suggest(space, search, recorded(folder), known())
        record(folder, params)
        yield trial_of(number, params, make, folder)


def suggest(space: Space, search: Search, points: Sequence[Params], known: Sequence[Outcome]) -> Params:
    """The next point by TPE (Bergstra et al., NeurIPS 2011; several objectives: Ozaki et al., JAIR 2022).

    It is asked anew each time, seeded by (search.seed, number): the same points with the same outcomes
    lead to the same suggestion, in whichever process. Points without an outcome count as running.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {name: _distribution(axis) for name, axis in space.items()}
    direction = optuna.study.StudyDirection
    directions = [direction.MAXIMIZE if search.mode == "max" else direction.MINIMIZE]
    directions += [direction.MINIMIZE] if search.cost else []
    seed = int(generator("tpe", search.seed, len(points)).integers(2**31))
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    study = optuna.create_study(sampler=sampler, directions=directions)
    by_number = {found.number: found for found in known}
    for number, params in enumerate(points):
        found, state = by_number.get(number), optuna.trial.TrialState.RUNNING
        if found is not None:
            failed = found.status == "failed" or not found.curve
            state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        done = state == optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                params={name: _to_optuna(axis, params[name]) for name, axis in space.items()},
                distributions=distributions,
                values=objectives(search, found) if done and found is not None else None,
            )
        )
    asked = study.ask(fixed_distributions=distributions).params
    return {name: _from_optuna(axis, asked[name]) for name, axis in space.items()}


def objectives(search: Search, found: Outcome) -> list[float]:
    """The metric and, if one is weighed, the cost."""
    return [found.metrics[search.metric], *([found.cost(search.cost)] if search.cost else [])]


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.values is not None:
        return CategoricalDistribution(range(len(axis.values)))
    low, high = axis.bounds
    if axis.whole:
        return IntDistribution(int(low), int(high), log=axis.log_range is not None)
    return FloatDistribution(low, high, log=axis.log_range is not None)


def _to_optuna(axis: Axis, value: Any) -> Any:
    return list(axis.values).index(value) if axis.values is not None else value


def _from_optuna(axis: Axis, value: Any) -> Any:
    return axis.values[value] if axis.values is not None else value
