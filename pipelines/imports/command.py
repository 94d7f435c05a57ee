"""``avmend features import``: published features to sequence shards, dataset.json and import.jsonl."""

from __future__ import annotations

from pathlib import Path

from configs import load_config
from configs.cluster import lasting
from configs.help import resolved
from pipelines.imports.command_line import import_parser
from pipelines.imports.layouts import LAYOUTS
from pipelines.imports.notes import IMPORT_FILE, summary
from pipelines.imports.run import Import, import_features, planned
from pipelines.imports.shard import read_import_ledger
from shards.atomic import stamps
from shards.command import command
from shards.inspect import absences
from shards.schema import DatasetInfo


@command(resumes=True)
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = import_parser().parse(argv)
    config = load_config(LAYOUTS[args.layout].config, args.config, args.overrides)
    lasting(args.out, "--out")
    if args.dry_run:
        plan = planned(args.source, args.questions, args.layout, config)
        print("\n".join([resolved(config), *describe(plan, args.out)]))
        return 0
    before = stamps(args.out.glob("**/ledger/*.json"))
    notes = import_features(args.source, args.questions, args.out, args.layout, config)
    summarise(args.out)
    print(*(f"  {line}\n" for line in summary(notes)), sep="", end="")
    if before and before == stamps(args.out.glob("**/ledger/*.json")):
        print(f"already finished: {args.out}")
    if args.compare is not None:
        from pipelines.imports.compare import compare, table

        print(table(compare(args.out, args.compare, args.out)))
    return 0


def describe(plan: Import, out: Path) -> list[str]:
    """What an import would do, without writing anything."""
    out = Path(out).absolute()
    clips = sum(len(shard.items) for shard in plan.shards)
    here = sum(bool(item.entries) for shard in plan.shards for item in shard.items)
    todo = [shard for shard in plan.shards if read_import_ledger(out, shard) is None]
    lines = [f"source: {plan.making.source} ({here} of {clips} clips have features; {len(plan.asked)} questions)"]
    lines.append(f"a clip: {plan.spec}")
    lines += summary(plan.notes)
    lines.append(f"would make {len(todo)} of {len(plan.shards)} shards in {out}")
    return lines


def summarise(out: Path) -> None:
    """Print what the dataset holds."""
    for name, split in DatasetInfo.load(out).splits.items():
        print(f"{name}: features of {split.samples} clips in {len(split.shards)} shards, present {split.present}")
        print(*(f"  {text}\n" for text in absences(split)), sep="", end="")
    print(f"{out / 'dataset.json'}; all that was not simply taken over: {out / IMPORT_FILE}")


if __name__ == "__main__":
    raise SystemExit(main())
