# PYTHON_ARGCOMPLETE_OK
"""``avmend COMMAND ...``: a thin front for each command's own ``main``, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shards.command import Parser, command
from shards.errors import InputError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from serving.model import Model
    from shards.store import Place


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: whose ``main`` runs it; ``python -m`` does the same.
        about: one line of help.
        parser: ``module:function`` that makes its parser without the imports of ``module``; it answers help
            and wrong arguments at once.
        parts: commands of its own, named by the word after it.
    """

    module: str
    about: str
    parser: str = ""
    parts: Mapping[str, Command] = field(default_factory=dict)


COMMANDS = {
    "corpus": Command("pipelines.corpus", "make clips and a manifest: scenes, avdigits, or from a corpus's folders"),
    "ingest": Command(
        "pipelines.ingest",
        "manifest and clips to media shards, dataset.json, quarantine.jsonl",
        "pipelines.command_line:ingest_parser",
    ),
    "plan": Command(
        "pipelines.estimate",
        "what ingesting a manifest will take: shards, bytes, core-hours, price",
        "pipelines.command_line:plan_parser",
    ),
    "merge": Command(
        "pipelines.merge",
        "the same samples in fewer shards, after many small additions",
        "pipelines.command_line:merge_parser",
    ),
    "audit": Command(
        "pipelines.audit.command",
        "what is wrong with the clips of a corpus, and which are the same",
        "pipelines.command_line:audit_parser",
    ),
    "features": Command(
        "pipelines.features",
        "media shards to feature shards by a frozen backbone; import: published ones",
        "pipelines.command_line:features_parser",
        {
            "import": Command(
                "pipelines.imports.command",
                "features that others extracted, as sequence shards",
                "pipelines.imports.command_line:import_parser",
            )
        },
    ),
    "shards": Command("shards.inspect", "look into shards, verify them against dataset.json", "shards.inspect:parser"),
    "train": Command(
        "trainers.train",
        "train a recipe: finetune, dense, prompt, lora, adapter; avqa, rmm, avr",
        "trainers.command_line:train_parser",
    ),
    "export": Command(
        "serving.export.command",
        "a finished run or shards as a folder for others, with a card and hashes",
        "serving.command_line:export_parser",
    ),
    "import": Command(
        "trainers.imports.command",
        "take in what others trained or shared: released checkpoints, exported runs and shards",
        "trainers.imports.command_line:import_parser",
    ),
    "probe": Command(
        "trainers.probe",
        "what sequence features hold: who sounds when and how loud, who is seen where",
        "trainers.command_line:probe_parser",
    ),
    "evaluate": Command(
        "trainers.evaluate",
        "conditions x methods: results.csv, results.md, figure",
        "trainers.command_line:evaluate_parser",
    ),
    "calibrate": Command(
        "trainers.calibrate",
        "temperatures of runs, so that a probability is a share of right answers",
        "trainers.command_line:calibrate_parser",
    ),
    "predict": Command(
        "serving.predict",
        "what runs answer about clips: files, a folder, a manifest; probabilities",
        "serving.command_line:predict_parser",
    ),
    "serve": Command(
        "serving.app",
        "runs as a service with a page: an address that answers about clips",
        "serving.command_line:serve_parser",
    ),
    "study": Command(
        "tuning.study",
        "all of it, from clips to the results table: demo, results, avqa",
        "tuning.command_line:study_parser",
    ),
    "sweep": Command(
        "tuning.sweep",
        "a recipe over a space: prompts, slots, steps, loss-weights, or your own",
        "tuning.command_line:sweep_parser",
    ),
    "register": Command(
        "trainers.register",
        "a run's model under a name in MLflow's registry",
        "trainers.command_line:register_parser",
    ),
    "report": Command(
        "tuning.report",
        "runs as one HTML file: tables, figures, failures, provenance, clips",
        "tuning.command_line:report_parser",
    ),
    "doctor": Command(
        "tuning.doctor",
        "what is wrong, before anything expensive: machine, cluster, store, shards",
        "tuning.command_line:doctor_parser",
    ),
    "list": Command(
        "tuning.listing",
        "what there is: recipes, networks, corpora, conditions, protocols, presets, ...",
        "tuning.listing:parser",
    ),
    "ui": Command("trainers.ui", "open the MLflow UI on the runs", "trainers.command_line:ui_parser"),
}


def load(
    run: str | Place,
    device: str | None = None,
    *,
    data: str | Path | None = None,
    backbone: str | Path | None = None,
    weights: str | Path | None = None,
    abstain_below: float | None = None,
) -> Model:
    """A finished run, in a folder or on a store, ready to be asked about clips; see `serving.model.load`.

    >>> model = avmend.load("runs/finetune-0123456789ab")
    >>> model.predict("clip.mp4").answer
    """
    from serving.model import load

    return load(run, device, data=data, backbone=backbone, weights=weights, abstain_below=abstain_below)


def help_text() -> str:
    """The list of commands, one line each."""
    lines = [f"  {name:<10}{found.about}" for name, found in COMMANDS.items()]
    ending = "avmend COMMAND --help tells more; python -m MODULE does the same on a cluster. avmend --version"
    return "\n".join(["usage: avmend COMMAND ...", "", *lines, "", ending])


def version_text() -> str:
    """Versions of avmend and of what it stands on, without importing them."""
    from importlib import metadata
    from pathlib import Path

    from trainers.identity import git_commit

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    own = f"avmend {version('avmend')} ({git_commit(Path(__file__).resolve().parent)})"
    others = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "mlflow"))
    return f"{own}\nPython {sys.version.split()[0]}, {others}"


def find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that a line begins with (its part, where it names one), and the rest of the line."""
    found, rest = COMMANDS[words[0]], list(words[1:])
    while rest and rest[0] in found.parts:
        found, rest = found.parts[rest[0]], rest[1:]
    return found, rest


def parser_of(words: Sequence[str]) -> tuple[Parser | None, list[str]]:
    """The parser of the command that a line begins with, without the imports of the command itself, and the rest of the
    line."""
    found, rest = find_command(words)
    module, _, function = found.parser.partition(":")
    return (getattr(importlib.import_module(module), function)() if function else None), rest


def complete() -> None:
    """Answer a shell that completes a line, and end."""
    from configs import completion

    completion.complete(COMMANDS, parser_of)


@command
def main(arguments: list[str]) -> int:
    """Run a command; its exit status is that of `shards.command.command`."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(version_text())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        remedy = nearest(name, COMMANDS) or f"commands: {', '.join(COMMANDS)}"
        raise InputError(f"unknown command '{name}'", remedy=remedy.rstrip())
    parser, rest = parser_of(arguments)
    if parser is not None:  # help and wrong arguments need nothing heavy
        parser.parse(rest)
    return importlib.import_module(find_command(arguments)[0].module).main(rest)


if __name__ == "__main__":
    raise SystemExit(main())
