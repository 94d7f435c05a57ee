"""``avmend import KIND FILE ...``: take in what others trained or shared, and print the folder that came of it."""

from __future__ import annotations

from shards.command import command
from trainers.imports.command_line import import_parser
from trainers.imports.kinds import KINDS


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    arguments = import_parser().parse(argv)
    print(KINDS[arguments.kind].run(arguments))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
