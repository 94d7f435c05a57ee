"""``avmend shards verify|info|ls DIR``: look into a dataset, and check every byte of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, SampleMeta, Statistics
from shards.verify import verify


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0; 1 if ``verify`` found problems; 2 for wrong input."""
    parser = argparse.ArgumentParser(prog="avmend shards", description=__doc__)
    parser.add_argument("command", choices=["verify", "info", "ls"])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with a dataset.json")
    parser.add_argument("--split", help="for ls: only this split")
    args = parser.parse_args(argv)
    try:
        if args.command == "verify":
            return _verify(args.folder)
        lines = _info(args.folder) if args.command == "info" else _list(args.folder, args.split)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def _verify(folder: Path) -> int:
    problems = verify(folder)
    for problem in problems:
        print(problem)
    info = DatasetInfo.load(folder)
    shards = [shard for split in info.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards) / 1e6
    print(
        f"{len(shards)} shards, {size:.1f} MB: {f'{len(problems)} problems' if problems else 'all is well'}"
    )
    return 1 if problems else 0


def _info(folder: Path) -> list[str]:
    info = DatasetInfo.load(folder)
    lines = [f"{info.kind} dataset, schema {info.schema_version}, fingerprint {info.fingerprint()[:12]}"]
    if info.backbone:
        lines.append(f"backbone {info.backbone.id}, depth {info.backbone.depth}: {info.backbone.variants}")
    for name, split in info.splits.items():
        present = ", ".join(f"{count} with {modality}" for modality, count in split.present.items())
        lines.append(f"split {name}: {split.samples} samples ({present}) in {len(split.shards)} shards")
    lines.append(f"{len(info.labels)} labels: {', '.join(info.labels[:20])}")
    lines += [f"{name}: {value}" for name, value in info.preprocessing.items()]
    names = ("log-mel", "pixels") if info.kind == "media" else ("audio", "visual")
    found = (info.normalisation.audio, info.normalisation.visual)
    for name, statistics in zip(names, found, strict=True):
        lines.append(f"{name} of the train split: {_statistics(statistics)}")
    return lines


def _statistics(statistics: Statistics | None) -> str:
    if statistics is None:
        return "none"
    pairs = list(zip(statistics.mean, statistics.std, strict=True))
    if len(pairs) > 3:
        means = f"{min(statistics.mean):.4f} to {max(statistics.mean):.4f}"
        spread = f"{min(statistics.std):.4f} to {max(statistics.std):.4f}"
        return f"{len(pairs)} channels, means {means}, deviations {spread} ({statistics.samples} samples)"
    return ", ".join(f"{mean:.4f} ± {std:.4f}" for mean, std in pairs) + f" ({statistics.samples} samples)"


def _list(folder: Path, split: str | None) -> list[str]:
    names = [split] if split else list(DatasetInfo.load(folder).splits)
    return [_line(meta) for name in names for meta in ShardDataset(folder, name).metas]


def _line(meta: SampleMeta) -> str:
    streams = [
        f"{name} {stream.codec or 'yes'}" if stream.present else f"no {name} ({stream.cause})"
        for name, stream in (("audio", meta.audio), ("visual", meta.visual))
    ]
    return "\t".join([meta.split, meta.key, ";".join(meta.labels), f"{meta.duration:.2f} s", *streams])


if __name__ == "__main__":
    raise SystemExit(main())
