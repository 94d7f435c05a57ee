"""``avmend study NAME``: from clips to the results table, with one command.

Every step reuses what an earlier call finished, so the same command continues after a kill.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs import Config, load_config, read_preset
from configs.cluster import lasting, runs_folder
from shards.errors import InputError
from shards.progress import format_seconds
from tuning.classification_study import ClassificationStudyConfig, classification_study
from tuning.question_study import QuestionStudyConfig, question_study

STUDIES: dict[str, tuple[type[Config], Callable[[str, Any, Path, Path], Path]]] = {
    "classification": (ClassificationStudyConfig, classification_study),
    "avqa": (QuestionStudyConfig, question_study),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="avmend study", description=__doc__)
    parser.add_argument("preset", help="preset in configs/ (demo, results, avqa), or a yaml file")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder for clips and shards")
    parser.add_argument("--runs", type=Path, default=runs_folder(), help="folder for runs and results")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the study's config")
    args = parser.parse_intermixed_args(argv)
    begin = time.monotonic()
    try:
        data, runs = lasting(args.data, "--data"), lasting(args.runs, "--runs")
        out = run_study(args.preset, args.overrides, data, runs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{(out / 'results.md').read_text()}")
    print(f"done in {format_seconds(time.monotonic() - begin)}: {out}")
    print(f"compare the runs in a browser: avmend ui --store {args.runs}")
    return 0


def run_study(preset: str, overrides: Sequence[str], data: Path, runs: Path) -> Path:
    """Run a preset as the kind of study that it says it is; the folder of its results.

    Raises:
        InputError: no such kind, or whatever a step refuses.
    """
    kind = read_preset(preset)[0].get("study", "classification")
    if kind not in STUDIES:
        raise InputError(
            f"no kind of study '{kind}'", file=preset, field="study", remedy=f"one of {', '.join(STUDIES)}"
        )
    config, run = STUDIES[kind]
    return run(Path(preset).stem, load_config(config, preset, overrides), data, runs)


if __name__ == "__main__":
    raise SystemExit(main())
