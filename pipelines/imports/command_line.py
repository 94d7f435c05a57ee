"""Command line of ``avmend features import``; free of torch and Ray, so that help is fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.command_line import CommandParser, Configs
from pipelines.imports.layouts import LAYOUTS
from pipelines.imports.settings import ImportConfig

IMPORT = """Features that others extracted (or you, with their scripts), as sequence shards to train on.

Run it again after a kill: it goes on where it was, and ends in the same bytes. Run it again after files have come:
their shards are made. import.jsonl accounts for every file and question that is not simply taken over."""


def import_parser() -> CommandParser:
    """``avmend features import --layout NAME --source DIR --questions FILE --out DIR key=value ...``."""
    parser = CommandParser("avmend features import", IMPORT, _configs)
    layouts = "; ".join(f"{name}: {layout.about}" for name, layout in LAYOUTS.items())
    parser.add_argument(
        "--layout", required=True, choices=list(LAYOUTS), metavar="NAME", help=layouts.replace("%", "%%")
    )
    parser.add_argument(
        "--source", required=True, type=Path, metavar="DIR", help="folder that holds the layout's folders"
    )
    said = "questions.jsonl about the clips (avmend corpus music_avqa); it says which split a clip is in"
    parser.add_argument("--questions", required=True, type=Path, metavar="FILE", help=said)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the dataset; also to resume")
    compare = "then tell how our own features of the same clips differ (folder of avmend features)"
    parser.add_argument("--compare", type=Path, metavar="DATASET", help=compare)
    parser.add_argument("--config", metavar="PRESET", help="preset in configs/, or a yaml file")
    parser.add_argument("--dry-run", action="store_true", help="what would be made or reused, without making it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the config")
    return parser


def _configs(words: Sequence[str]) -> Configs:
    """Fields of the layout that is named, or of all layouts."""
    named = next((word for word in words if word in LAYOUTS), None)
    return {f"layout {named}": LAYOUTS[named].config} if named else {"every layout": ImportConfig}
