"""``avmend sweep NAME``: a recipe over a search space, every trial a run of its own, with tables and figure.

Data, backbone and features are made once, before the trials. The same command goes on after a kill at any
point: finished trials are kept, unfinished ones continue from their last epoch.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import config_to_dict, load_config
from configs.cluster import folder_alone, lasting, ray_session
from shards.atomic import stamps, write_text
from shards.command import command
from shards.lock import folder_lock
from shards.progress import Progress, format_seconds
from shards.redaction import redacted_values
from trainers.identity import config_identity, git_commit
from trainers.job import ROOT, Job, prepare
from trainers.recipes import recipe_of
from tuning.capacity import cluster_nodes, concurrency, need
from tuning.command_line import sweep_parser
from tuning.config import SweepConfig, check, check_inputs, corners, find_sweep
from tuning.paper_tables import as_printed
from tuning.plan import drawn, earlier, suggested
from tuning.prerequisites import make_prerequisites
from tuning.space import Params
from tuning.tables import best, summarise, write_tables
from tuning.trial_result import Outcome, Trial

if TYPE_CHECKING:
    from trainers.tracking import Run, Store
    from tuning.tune_callback import SweepCallback

RECORD = "sweep.json"
ARTIFACTS = ("sweep.md", "sweep.csv", "sweep.png", "answers.csv", "answers.png", RECORD)


def sweep(name: str, config: SweepConfig, data: Path, runs: Path) -> tuple[Path, list[Outcome]]:
    """Run a sweep to its end, or on to it.

    Args:
        name: of the sweep; with its identity (config, and the content that it names) it names the folder.
        data: folder for clips and shards.
        runs: folder for runs, the sweep and the MLflow store.

    Returns:
        the sweep's folder: sweep.csv, sweep.md, sweep.png; and every trial's outcome.

    Raises:
        InputError: what `check` or a step refuses; another process is at this sweep; trials that do not fit
            on the cluster.
    """
    from trainers.tracking import Store

    check(config)
    check_inputs(config)
    commit = git_commit(ROOT)
    out = runs.absolute() / f"{name}-{config_identity(config)}"
    params = {"sweep": name, "recipe": config.recipe, "search": config_to_dict(config.search)}
    params["space"] = {key: axis.model_dump(exclude_none=True) for key, axis in config.space.items()}
    with folder_lock(out, "sweep"), ray_session():
        store = Store(runs)
        with store.run(out.name, f"sweep-{name}", params, {"commit": commit}, None, folder=out) as parent:
            record = {"name": name, "commit": commit, "config": redacted_values(config_to_dict(config))}
            write_text(out / RECORD, json.dumps(record, indent=1) + "\n")
            given, stage = make_prerequisites(config, data.absolute(), out.parent, parent)
            outcomes = _run(f"sweep-{name}", config, given, out, store, parent, stage)
            _conclude(name, config, outcomes, out, parent)
    return out, outcomes


def _run(
    experiment: str,
    config: SweepConfig,
    given: dict[str, Path],
    out: Path,
    store: Store,
    parent: Run,
    stage: str,
) -> list[Outcome]:
    """All trials that are left; the outcomes of all."""
    from tuning.search import run_trials
    from tuning.tune_callback import SweepCallback

    nodes = cluster_nodes()
    gpu_there = any(node["GPU"] for node in nodes)
    recipes = [config.trial(params, **given) for params in corners(config)]
    width = min(concurrency(need(recipe, config.gpus, gpu_there), nodes) for recipe in recipes)
    epochs = recipes[0].epochs * len(recipe_of(recipes[0]).stage_names(recipes[0]))
    total = config.total()
    with Progress("sweep", total, "trials", stage=stage) as progress:
        follow = SweepCallback(store, parent, experiment, config.search, progress)
        status = "FAILED"
        try:
            todo = _todo(config, given, out, follow)
            if (first := next(todo, None)) is not None:
                curves = [found.curve for found in follow.outcomes.values()]
                left = itertools.chain([first], todo)
                run_trials(config, left, total, width, gpu_there, epochs, curves, out, follow)
            if follow.refused is not None:
                raise follow.refused
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            follow.close(status)
    return sorted(follow.outcomes.values(), key=lambda found: found.number)


def _todo(config: SweepConfig, given: dict[str, Path], out: Path, follow: SweepCallback) -> Iterator[Trial]:
    """The trials that have something left to train; the others' outcomes are known once this has begun."""

    def make(params: Params) -> Job:
        return prepare(config.trial(params, **given), out.parent)

    search = config.search
    if search.method == "tpe":
        planned = earlier(make, out)
        more = suggested(config.space, search, make, out, lambda: list(follow.outcomes.values()))
    else:
        planned, more = drawn(config.space, search, make, out), iter(())
    yield from [trial for trial in planned if follow.expect(trial)]
    yield from (trial for trial in more if follow.expect(trial))


def _conclude(name: str, config: SweepConfig, outcomes: Sequence[Outcome], out: Path, parent: Run) -> None:
    """Tables and figure, on disk and in MLflow; the best trial's checkpoints go with them."""
    more = as_printed(out, outcomes, config)
    write_tables(out, f"Sweep {name}", outcomes, config.space, config.search, more)
    parent.note((out / "sweep.md").read_text(encoding="utf-8"))
    for file in (file for file in ARTIFACTS if (out / file).exists()):
        parent.artifact(out / file)
    states = [found.status for found in outcomes]
    figures = {f"trials/{s}": float(states.count(s)) for s in ("finished", "stopped", "failed")}
    top = best(summarise(outcomes, config.search.metric), config.search)
    if top is not None and top.mean is not None:
        figures[f"best/{config.search.metric}"] = top.mean
        figures |= {f"best/{cost}": value for cost, value in top.costs.items()}
        parent.tag("best", " ".join(f"{key}={value}" for key, value in top.params.items()))
        _best_run(top.params, outcomes, out, parent)
    parent.summary(figures)


def _best_run(params: Params, outcomes: Sequence[Outcome], out: Path, parent: Run) -> None:
    """The first of the best line's runs as artifacts: config.json and every stage's checkpoint."""
    found = next(o for o in outcomes if params.items() <= o.params.items() and o.status != "failed")
    folder = out.parent / found.name
    parent.artifact(folder / "config.json", f"best/{found.name}")
    for checkpoint in sorted(folder.glob("*/checkpoint.json")):
        parent.artifact(checkpoint.parent, f"best/{found.name}/{checkpoint.parent.name}")


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it; 1 if a trial failed."""
    args = sweep_parser().parse(argv)
    begin = time.monotonic()
    path = find_sweep(args.sweep)
    config = load_config(SweepConfig, path, args.overrides)
    data, runs = lasting(args.data, "--data"), folder_alone(lasting(args.runs, "--runs"), "--runs")
    if args.dry_run:
        from tuning.dry_run import describe_sweep

        print(describe_sweep(path.stem, path, config, data, runs))
        return 0
    before = stamps(runs.glob("*/trials/*/outcome.json"))
    out, outcomes = sweep(path.stem, config, data, runs)
    print(f"\n{(out / 'sweep.md').read_text()}")
    if stamps(out.glob("trials/*/outcome.json")).items() <= before.items():
        print(f"already finished: {out}")
    print(f"done in {format_seconds(time.monotonic() - begin)}: {out}")
    print(f"compare the runs in a browser: avmend ui --store {args.runs}")
    failed = [found for found in outcomes if found.status == "failed"]
    if failed:
        print(f"{len(failed)} trials failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
