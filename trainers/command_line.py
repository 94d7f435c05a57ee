"""Command lines of what trains, evaluates and registers; free of torch, Ray and MLflow, so that help is fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs import preset_names
from configs.cluster import runs_folder
from configs.command_line import CommandParser, Configs, complete_with
from shards.command import location
from shards.errors import InputError, nearest
from trainers.config import TrainConfig
from trainers.recipes import RECIPES, TASKS

TRAIN = """Train a recipe; the same command again goes on where it stopped, or returns at once when it was finished.

  avmend train RECIPE --help    prints every field of that recipe's config
"""
CALIBRATE = """Fit temperatures of finished runs to validation data, so that a probability is a share of right answers.

They are kept in each run's calibration.json; predict and evaluate use them. No answer changes."""
PROBE = """What sequence features hold, before any network trains on them, by linear probes: who sounds in which second
and how loud, who comes first, who is seen in which cell, how many there are. Fitted on the train split's clips."""
EVALUATE = "Evaluate finished runs: conditions x methods on the test split, every method on the same ruined input."


def recipe_config(name: str) -> type[TrainConfig]:
    """The config class of a recipe.

    Raises:
        InputError: no such recipe; names the nearest.
    """
    if name not in RECIPES:
        remedy = f"{nearest(name, RECIPES)}recipes: {', '.join(RECIPES)}"
        raise InputError(f"unknown recipe '{name}'", remedy=remedy)
    return RECIPES[name].config


def train_parser() -> CommandParser:
    """``avmend train RECIPE key=value ...``."""

    def configs(words: Sequence[str]) -> Configs:
        return {f"recipe {words[0]}": recipe_config(words[0])} if words else {}

    parser = CommandParser("avmend train", TRAIN + recipe_list(), configs)
    recipe = parser.add_argument("recipe", metavar="RECIPE", help="one of those above")
    complete_with(recipe, recipe_names)
    preset = parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    complete_with(preset, preset_names)
    parser.add_argument(
        "--runs", type=location, default=runs_folder(), metavar="DIR", help="folder of runs, or its URL"
    )
    parser.add_argument("--register", metavar="NAME[@ALIAS]", help="name of its model in MLflow's registry")
    parser.add_argument("--dry-run", action="store_true", help="what would be trained, from what, for how long")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the recipe's config")
    return parser


def recipe_names() -> list[str]:
    """Names of all recipes."""
    return list(RECIPES)


def recipe_list() -> str:
    """Every recipe with the first sentence of its config's docstring."""
    from configs.fields import first_sentence

    return "\nrecipes:\n" + "\n".join(
        f"  {name:<10}{first_sentence(recipe.config)}" for name, recipe in RECIPES.items()
    )


def evaluate_parser() -> CommandParser:
    """``avmend evaluate RUN ... --set key=value ...``."""

    def configs(words: Sequence[str]) -> Configs:
        return {f"runs of {task.name}": task.evaluation for task in TASKS.values()}

    parser = CommandParser("avmend evaluate", EVALUATE, configs, before="--set ")
    parser.add_argument("runs", nargs="+", type=location, metavar="RUN", help="folders or URLs of finished runs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the shards (default: that of the runs)")
    out = runs_folder() / "results"
    parser.add_argument("--out", type=location, default=out, metavar="DIR", help=f"of the results (default: {out})")
    parser.add_argument("--overwrite", action="store_true", help="replace a larger table in --out")
    parser.add_argument("--by", choices=["audit"], help="accuracy with and without what 'avmend audit' flagged")
    parser.add_argument("--audit", type=Path, metavar="DIR", help="its folder (default: audit, beside the shards)")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="fields of the config")
    return parser


def probe_parser() -> CommandParser:
    """``avmend probe FEATURES --targets FILE``."""
    parser = CommandParser("avmend probe", PROBE)
    parser.add_argument("features", type=Path, metavar="FEATURES", help="folder of sequence features")
    parser.add_argument("--targets", required=True, type=Path, metavar="FILE", help="targets.jsonl of these clips")
    parser.add_argument("--split", default="test", metavar="NAME", help="whose clips are asked about (default: test)")
    parser.add_argument("--side", type=int, default=3, metavar="N", help="of the grid of cells (default: 3)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="of probe.csv, probe.md (default: probe in FEATURES)")
    return parser


def calibrate_parser() -> CommandParser:
    """``avmend calibrate RUN ... --set key=value ...``."""

    def configs(words: Sequence[str]) -> Configs:
        return {f"runs of {task.name}": task.evaluation for task in TASKS.values()}

    parser = CommandParser("avmend calibrate", CALIBRATE, configs, before="--set ")
    parser.add_argument("runs", nargs="+", type=location, metavar="RUN", help="folders or URLs of finished runs")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the shards (default: that of the runs)")
    more = "fields of the config of evaluations; split is val here"
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help=more)
    return parser


def register_parser() -> CommandParser:
    """``avmend register RUN NAME[@ALIAS]``."""
    parser = CommandParser("avmend register", "A finished run's model under a name in MLflow's registry.")
    parser.add_argument("run", type=location, metavar="RUN", help="folder or URL of a finished run")
    parser.add_argument("name", metavar="NAME[@ALIAS]", help="name of the model; the alias moves to this version")
    parser.add_argument("--runs", type=location, metavar="DIR", help="of the store (default: the one RUN is in)")
    return parser


def ui_parser() -> CommandParser:
    """``avmend ui``."""
    parser = CommandParser("avmend ui", "Open the MLflow UI on the runs, on this machine's loopback; Ctrl-C ends it.")
    store = runs_folder()
    parser.add_argument(
        "--store", type=location, default=store, metavar="DIR", help=f"folder of mlflow.db (default: {store})"
    )
    parser.add_argument("--port", type=int, default=5000, help="of 127.0.0.1 (default: 5000)")
    return parser
