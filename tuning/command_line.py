"""Command lines of ``avmend study``, ``sweep``, ``report`` and ``doctor``; free of torch, Ray and MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs import preset_names, read_preset
from configs.cluster import runs_folder
from configs.command_line import CommandParser, Configs, complete_with
from configs.presets import sweep_names
from models.registry import imported
from shards.command import location
from tuning.studies import STUDIES, study_of

STUDY = """From clips to the results table, with one command; every step keeps what an earlier call finished.

  avmend study PRESET --help    prints every field of that kind of study
"""
SWEEP = """A recipe over a search space, every trial a run of its own, with tables and figure.

The same command goes on after a kill. Fields of `settings` are those of the recipe (avmend train RECIPE --help).
"""
REPORT = """Runs of an MLflow store as one HTML file that needs no server.

All runs of the store, or those named (with what belongs to them)."""
DOCTOR = """What is wrong, before anything expensive begins: one line per check, with its remedy.

On a cluster: ray job submit --working-dir . -- python -m tuning.doctor --runs FOLDER"""
CLIPS = 3


def study_parser() -> CommandParser:
    """``avmend study PRESET key=value ...``."""

    def configs(words: Sequence[str]) -> Configs:
        if not words:
            return {}
        kind = study_of(read_preset(words[0])[0])
        return {f"study {words[0]}": STUDIES[kind if kind in STUDIES else "classification"].config}

    parser = CommandParser("avmend study", f"{STUDY}\npresets: {', '.join(preset_names())}", configs)
    preset = parser.add_argument("preset", metavar="PRESET", help="preset in configs/, or a yaml file")
    complete_with(preset, preset_names)
    _add_folders(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the study's config")
    return parser


def sweep_parser() -> CommandParser:
    """``avmend sweep NAME key=value ...``."""

    def configs(words: Sequence[str]) -> Configs:
        return {"sweep": imported("tuning.config:SweepConfig")}

    parser = CommandParser("avmend sweep", f"{SWEEP}\nsweeps: {', '.join(sweep_names())}", configs)
    name = parser.add_argument("sweep", metavar="SWEEP", help="preset in configs/sweeps/, or a yaml file")
    complete_with(name, sweep_names)
    _add_folders(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the sweep's config")
    return parser


def _add_folders(parser: CommandParser) -> None:
    runs = runs_folder()
    data = Path("data")
    parser.add_argument("--data", type=Path, default=data, metavar="DIR", help="folder for clips and shards")
    parser.add_argument("--runs", type=location, default=runs, metavar="DIR", help=f"folder for runs (default: {runs})")
    parser.add_argument("--dry-run", action="store_true", help="what would be made or reused, without making it")


def report_parser() -> CommandParser:
    """``avmend report [RUN ...]``."""
    parser = CommandParser("avmend report", REPORT)
    parser.add_argument("names", nargs="*", metavar="RUN", help="studies, sweeps, evaluations, runs: name, folder, id")
    runs, out = runs_folder(), Path("report.html")
    parser.add_argument("--runs", type=location, default=runs, metavar="DIR", help=f"or URL (default: {runs})")
    parser.add_argument("--experiment", action="append", default=[], help="runs of this MLflow experiment; repeatable")
    parser.add_argument("--out", type=location, default=out, metavar="FILE", help=f"default: {out}")
    clips = f"clips with every method's answer (default: {CLIPS}; 0: none)"
    parser.add_argument("--clips", type=int, default=CLIPS, help=clips)
    return parser


def doctor_parser() -> CommandParser:
    """``avmend doctor``."""
    parser = CommandParser("avmend doctor", DOCTOR)
    parser.add_argument("--runs", type=location, default=runs_folder(), metavar="DIR", help="or URL, of runs")
    shards = "shards to verify; repeatable"
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="DIR", help=shards)
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="for Ray's launcher (default: ./cluster.yaml)")
    parser.add_argument("--room", type=float, default=10.0, metavar="GB", help="disk to be free (default: 10)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser
