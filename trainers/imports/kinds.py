"""The registry of what ``avmend import`` takes in; it needs no torch until something is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from models.registry import Registry, deferred
from shards.command import location
from shards.store import Place


@dataclass(frozen=True)
class ImportKind:
    """One kind of file or folder that can be taken in.

    Attributes:
        about: one line of help.
        arguments: adds its own arguments to the parser of ``avmend import KIND``.
        run: takes it in, given those arguments and `runs`, the folder of runs (only of what was shared it may lie on a
            store); returns what it made.
            Raises InputError for a file that is not what it should be.
    """

    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Place]


def shared_arguments(parser: argparse.ArgumentParser) -> None:
    """``avmend import shared DIR``."""
    parser.add_argument("folder", type=location, metavar="DIR", help="or URL, of an export, with an avmend.json")
    parser.add_argument("--out", type=location, metavar="DIR", help="of shards: where they go (default: data/NAME)")


SHARED = "shared"  # what a folder is that comes without the name of a kind
KINDS: Registry[ImportKind] = Registry(
    "kind of import",
    {
        SHARED: ImportKind(
            "a run or shards as 'avmend export' wrote them: avmend import DIR does, too",
            shared_arguments,
            deferred("trainers.imports.shared:take_in"),
        ),
        "avst": "trainers.imports.question_kinds:AVST",
        "missing-avqa": "trainers.imports.question_kinds:MISSING_AVQA",
        "pstp": "trainers.imports.question_kinds:PSTP",
        "lavit": "trainers.imports.question_kinds:LAVIT",
        "cavmae": "trainers.imports.cavmae:CAVMAE",
    },
)
