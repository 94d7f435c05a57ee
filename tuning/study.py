"""``avmend study NAME``: from clips to the results table, with one command.

Every step reuses what an earlier call finished, so the same command continues after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from configs import load_config, read_preset
from configs.cluster import lasting
from shards.atomic import stamps
from shards.command import command
from shards.errors import InputError, nearest
from shards.progress import format_seconds
from shards.store import PlaceT
from shards.stored_folder import reading
from tuning.command_line import study_parser
from tuning.studies import STUDIES, Study, study_of


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = study_parser().parse(argv)
    begin = time.monotonic()
    data, runs = lasting(args.data, "--data"), lasting(args.runs, "--runs")
    if args.dry_run:
        from tuning.dry_run import describe_study

        study = find_study(args.preset)
        config = load_config(study.config, args.preset, args.overrides)
        print(describe_study(study, args.preset, config, data, runs))
        return 0
    before = stamps(runs.glob("*/results.md") if isinstance(runs, Path) else ())
    out = run_study(args.preset, args.overrides, data, runs)
    print(f"\n{(reading(out) / 'results.md').read_text(encoding='utf-8')}")
    if isinstance(out, Path) and stamps([out / "results.md"]).items() <= before.items():
        print(f"already finished: {out}")
    print(f"done in {format_seconds(time.monotonic() - begin)}: {out}")
    print(f"compare the runs in a browser: avmend ui --store {args.runs}")
    return 0


def run_study(preset: str, overrides: Sequence[str], data: Path, runs: PlaceT) -> PlaceT:
    """Run a preset as the kind of study that it says it is; the folder of its results.

    Raises:
        InputError: no such kind, or whatever a step refuses.
    """
    study = find_study(preset)
    return study.run(Path(preset).stem, load_config(study.config, preset, overrides), data, runs)


def find_study(preset: str) -> Study:
    """The kind of study that a preset is.

    Raises:
        InputError: no such preset, or no such kind.
    """
    kind = study_of(read_preset(preset)[0])
    if kind not in STUDIES:
        remedy = f"{nearest(kind, STUDIES)}one of {', '.join(STUDIES)}"
        raise InputError(f"no kind of study '{kind}'", file=preset, field="study", remedy=remedy)
    return STUDIES[kind]


if __name__ == "__main__":
    raise SystemExit(main())
