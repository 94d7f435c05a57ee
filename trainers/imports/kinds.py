"""The registry of what ``avmend import`` takes in; it needs no torch until something is imported."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.registry import Registry


@dataclass(frozen=True)
class ImportKind:
    """One kind of file or folder that can be taken in.

    Attributes:
        about: one line of help.
        arguments: adds its own arguments to the parser of ``avmend import KIND``.
        run: takes it in, given those arguments and `runs`, the folder of runs; returns what it made.
            Raises InputError for a file that is not what it should be.
    """

    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Path]


KINDS: Registry[ImportKind] = Registry("kind of import", {"cavmae": "trainers.imports.cavmae:CAVMAE"})
