"""Command line of ``avmend import``; free of torch, Ray and MLflow, so that help is fast."""

from __future__ import annotations

from pathlib import Path

from configs.cluster import runs_folder
from shards.command import Parser
from trainers.imports.kinds import KINDS

IMPORT = "Take in what others trained or shared, as a run like any other. avmend import KIND --help tells more."


def import_parser() -> Parser:
    """``avmend import KIND FILE ...``."""
    found = Parser(prog="avmend import", description=IMPORT)
    kinds = found.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        parser = kinds.add_parser(name, help=kind.about, description=kind.about)
        kind.arguments(parser)
        parser.add_argument("--runs", type=Path, default=runs_folder(), metavar="DIR", help="folder of runs")
    return found
