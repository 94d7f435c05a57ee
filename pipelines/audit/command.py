"""``avmend audit``: what is wrong with the clips of a manifest or of media shards, and which are the same."""

from __future__ import annotations

from pathlib import Path

from configs import load_config
from configs.cluster import lasting
from pipelines.audit.assemble import DUPLICATES_FILE, Summary
from pipelines.audit.page import PAGE_FILE
from pipelines.audit.run import audit
from pipelines.audit.settings import AuditConfig
from pipelines.command_line import audit_parser
from shards.audit_file import AUDIT_FILE, FLAGS
from shards.command import command
from shards.errors import InputError
from shards.store import url_of


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it."""
    args = audit_parser().parse(argv)
    config = load_config(AuditConfig, args.config, args.overrides)
    out = args.out or _beside(args.source)
    lasting(out, "--out")
    print("\n".join(lines(audit(args.source, out, config))))
    print(f"{out / AUDIT_FILE}, {DUPLICATES_FILE}, {PAGE_FILE}")
    return 0


def _beside(source: str) -> Path:
    if url_of(source):
        raise InputError("what lies at a URL needs a folder here", field="--out", remedy="give --out FOLDER")
    path = Path(source)
    return path / "audit" if path.is_dir() else path.parent / "audit"


def lines(summary: Summary) -> list[str]:
    """What was found, a line for each flag that some clip has."""
    total, flagged = summary.clips.total(), summary.flagged.total()
    found = [f"{total} clips, {flagged} with a flag; {summary.matched[0]} pairs of duplicates, {summary.matched[1]} of"]
    found[0] += " them across splits"
    for flag, meaning in FLAGS.items():
        if count := sum(summary.by_split[split, flag] for split in summary.clips):
            found.append(f"  {flag:<18}{count:>8}  {meaning}")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
