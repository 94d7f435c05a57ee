"""Command line of ``avmend import``; free of torch, Ray and MLflow, so that help is fast."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from configs.cluster import runs_folder
from shards.command import Parser, location
from trainers.imports.kinds import KINDS, SHARED

IMPORT = """Take in what others trained or shared: as runs, or shards, like any other.

avmend import DIR takes a folder that avmend export wrote; avmend import KIND --help tells more."""


class ImportParser(Parser):
    """A parser that takes a path in place of a kind for an exported folder."""

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments, as `Parser.parse`."""
        words = list(argv)
        if words and words[0] not in KINDS and (os.sep in words[0] or Path(words[0]).is_dir()):
            words.insert(0, SHARED)
        return super().parse(words)


def import_parser() -> ImportParser:
    """``avmend import KIND FILE ...``, ``avmend import DIR``."""
    found = ImportParser(prog="avmend import", description=IMPORT)
    kinds = found.add_subparsers(parser_class=Parser, dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        parser = kinds.add_parser(name, help=kind.about, description=kind.about)
        kind.arguments(parser)
        parser.add_argument("--runs", type=location, default=runs_folder(), metavar="DIR", help="or URL, of runs")
    return found
