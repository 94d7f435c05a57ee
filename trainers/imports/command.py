"""``avmend import KIND FILE ...``: take in what others trained or shared, and print the folder that came of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from shards.command import command
from shards.store import Place, StorePath
from shards.working_copy import worked_on
from trainers.imports.command_line import import_parser
from trainers.imports.kinds import KINDS, SHARED
from trainers.stored_run import TRAINING, tracking_folder


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    arguments = import_parser().parse(argv)
    print(_taken_in(arguments))
    return 0


def _taken_in(arguments: argparse.Namespace) -> Place:
    """What is made for runs on a store is made in its working copy."""
    runs, kind = arguments.runs, KINDS[arguments.kind]
    if isinstance(runs, Path) or arguments.kind == SHARED:
        return kind.run(arguments)
    arguments.runs = tracking_folder(runs)
    where: StorePath = runs / kind.run(arguments).name
    with worked_on(where, TRAINING):
        return where


if __name__ == "__main__":
    raise SystemExit(main())
