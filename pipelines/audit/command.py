"""``avmend audit``: what is wrong with the clips of a manifest or of media shards, and which are the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from configs import load_config
from configs.cluster import lasting
from pipelines.audit.assemble import DUPLICATES_FILE, Summary
from pipelines.audit.page import PAGE_FILE
from pipelines.audit.run import audit
from pipelines.audit.settings import AuditConfig
from shards.audit_file import AUDIT_FILE, FLAGS
from shards.errors import InputError
from shards.remote import is_url


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 2 for wrong input."""
    about = "What is wrong with the clips of a corpus, and which of them are the same."
    parser = argparse.ArgumentParser(prog="avmend audit", description=about)
    parser.add_argument("source", metavar="MANIFEST|SHARDS", help="a manifest, or media shards: folder or URL")
    parser.add_argument("--out", type=Path, help="folder of the results (default: audit, beside it)")
    parser.add_argument("--config", help="preset in configs/, or a yaml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="thresholds and other fields")
    args = parser.parse_intermixed_args(argv)
    try:
        config = load_config(AuditConfig, args.config, args.overrides)
        out = args.out or _beside(args.source)
        lasting(out, "--out")
        summary = audit(args.source, out, config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(summary)))
    print(f"{out / AUDIT_FILE}, {DUPLICATES_FILE}, {PAGE_FILE}")
    return 0


def _beside(source: str) -> Path:
    if is_url(source):
        raise InputError("shards at a URL need a folder here", field="--out", remedy="give --out FOLDER")
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
