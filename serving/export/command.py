"""``avmend export RUN|SHARDS DIR``: a finished run or a dataset as a folder that others can take in."""

from __future__ import annotations

import argparse

from configs.cluster import lasting
from serving.command_line import export_parser
from shards.command import command
from shards.errors import InputError
from shards.schema import DATASET_FILE
from trainers.runs import is_run

OF_RUNS, OF_SHARDS = ("results", "backbone", "data", "without_backbone"), ("link", "name")


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = export_parser().parse(argv)
    lasting(args.out, "DIR")
    found_run = is_run(args.source)
    if not found_run and not (args.source / DATASET_FILE).is_file():
        remedy = "give the folder of a finished run, or of shards (with a dataset.json)"
        raise InputError("neither a run nor shards", file=args.source, field="RUN|SHARDS", remedy=remedy)
    _refuse_others(args, OF_SHARDS if found_run else OF_RUNS, "a run" if found_run else "shards")
    lines = _run(args) if found_run else _shards(args)
    print("\n".join([str(args.out), *(f"  {line}" for line in lines)]))
    return 0


def _refuse_others(args: argparse.Namespace, names: tuple[str, ...], kind: str) -> None:
    for name in names:
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"means nothing for {kind}", field=option, remedy="leave it out")


def _run(args: argparse.Namespace) -> list[str]:
    from serving.export.run import RunOptions, export_run

    results = tuple(args.results) or None
    options = RunOptions(args.license, results, args.data, args.backbone, not args.without_backbone)
    return export_run(args.source, args.out, options)[1]


def _shards(args: argparse.Namespace) -> list[str]:
    from serving.export.dataset import ShardOptions, export_shards

    return export_shards(args.source, args.out, ShardOptions(args.license, args.name, args.link))[1]


if __name__ == "__main__":
    raise SystemExit(main())
