"""``avmend shards verify|info|ls|cat|fetch DIR``: look into a dataset, and check every byte of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from shards.command import Parser, command
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.remote import fetch
from shards.scan import write_tables
from shards.schema import DATASET_FILE, DatasetInfo, SampleMeta, SplitInfo, Statistics
from shards.store import Place, place, url_of
from shards.verify import plain, verify

COMMANDS = {
    "verify": "read every byte and check it against dataset.json, features too",
    "info": "splits, labels, preprocessing, statistics",
    "ls": "one line per sample",
    "cat": "one sample's json and arrays, or the bytes of one member",
    "index": "write the tables of index/ anew, which make opening fast; of older datasets for the first time",
    "fetch": "bring a dataset from a URL into the local cache, and print its folder there",
}


@command
def main(argv: list[str]) -> int:
    """Exit status as `shards.command.command` has it; 1 if ``verify`` found problems."""
    args = parser().parse(argv)
    if args.command == "index":
        return _index(place(args.folder))
    if args.command == "info":
        print("\n".join(_info(place(args.folder))))
        return 0
    splits = [args.split] if args.split else None
    folder = fetch(args.folder, splits=splits) if url_of(args.folder) else Path(args.folder)
    if args.command == "verify":
        return _verify(folder)
    if args.command == "cat":
        return _cat(folder, args.split, args.key, args.member)
    print("\n".join(_lines(args.command, folder, args.split)))
    return 0


def _lines(command: str, folder: Path, split: str | None) -> list[str]:
    return [str(folder)] if command == "fetch" else _list(folder, split)


def parser() -> Parser:
    """``avmend shards COMMAND DIR``."""
    found = Parser(prog="avmend shards", description=__doc__)
    commands = found.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("folder", metavar="DIR", help="folder with a dataset.json, or its URL")
        command.add_argument("--split", help="only this split")
        if name == "cat":
            command.add_argument("key", metavar="KEY", help="of the sample, as ls shows it")
            command.add_argument("member", metavar="MEMBER", nargs="?", help="such as audio.npy: its bytes")
    return found


def _verify(folder: Path) -> int:
    """The dataset, and the feature datasets that it keeps."""
    found = 0
    for inner in _datasets(folder):
        problems = verify(inner)
        for problem in problems:
            print(problem)
        shards = [shard for split in DatasetInfo.load(inner).splits.values() for shard in split.shards]
        size = sum(shard.bytes for shard in shards) / 1e6
        end = f"{len(problems)} problems" if problems else "all is well"
        print(f"{inner}: {len(shards)} shards, {size:.1f} MB: {end}")
        found += len(problems)
    return 1 if found else 0


def _index(folder: Place) -> int:
    """The tables of the dataset, and of the feature datasets that it keeps (on a store: of the one that is named)."""
    for found in _datasets(folder) if isinstance(folder, Path) else [folder]:
        info = DatasetInfo.load(found)
        write_tables(found, info)
        print(f"{found / 'index'}: {sum(split.samples for split in info.splits.values())} samples")
    return 0


def _datasets(folder: Path) -> tuple[Path, ...]:
    """A dataset, and the feature datasets that it keeps."""
    inner = [path.parent for kept in ("features/*", "questions") for path in folder.glob(f"{kept}/{DATASET_FILE}")]
    return (folder, *sorted(inner))


def _cat(folder: Path, split: str | None, key: str, member: str | None) -> int:
    """A sample's json and what its arrays are; or one member's bytes, for another program to read."""
    data, i = _find(folder, split, key)
    if member is not None:
        sys.stdout.buffer.write(data.member(i, member))
        return 0
    sample = data[i]
    print(json.dumps(sample.meta.model_dump(mode="json"), indent=1))
    for name, array in sample.arrays.items():
        values = array.astype(np.float64)
        extent = "empty"
        if array.size:
            extent = f"{values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
        print(f"{name}.npy: {array.dtype} {list(array.shape)}, {extent}")
    return 0


def _find(folder: Path, split: str | None, key: str) -> tuple[ShardDataset, int]:
    for name in [split] if split else DatasetInfo.load(folder).splits:
        data = ShardDataset(folder, name)
        if (at := data.keys.position(key)) is not None:
            return data, at
    remedy = "choose a key that 'avmend shards ls' shows"
    raise InputError(f"the dataset has no sample '{key}'", file=folder, field="KEY", remedy=remedy)


def _info(folder: Place) -> list[str]:
    info = DatasetInfo.load(folder)
    lines = [f"{info.kind} dataset, schema {info.schema_version}, fingerprint {info.fingerprint()[:12]}"]
    if info.backbone:
        lines.append(f"backbone {info.backbone.id}, depth {info.backbone.depth}: {info.backbone.variants}")
    for name, split in info.splits.items():
        present = ", ".join(f"{count} with {modality}" for modality, count in split.present.items())
        lines.append(f"split {name}: {split.samples} samples ({present}) in {len(split.shards)} shards")
        lines += [f"split {name}: {text}" for text in absences(split)]
    lines.append(f"{len(info.labels)} labels: {plain(', '.join(info.labels[:20]))}")
    lines += [f"{name}: {value}" for name, value in info.preprocessing.items()]
    names = ("log-mel", "pixels") if info.kind == "media" else ("audio", "visual")
    found = (info.normalisation.audio, info.normalisation.visual)
    for name, statistics in zip(names, found, strict=True):
        lines.append(f"{name} of the train split: {_statistics(statistics)}")
    return lines


def absences(split: SplitInfo) -> list[str]:
    """Why samples lack a modality, a line for each: "no audio: 3 absent at source, 1 truncated"."""
    counts = ((m, ", ".join(f"{n} {cause}" for cause, n in of.items())) for m, of in split.absent.items())
    return [f"no {modality}: {text}" for modality, text in counts]


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
    return plain("\t".join([meta.split, meta.key, ";".join(meta.labels), f"{meta.duration:.2f} s", *streams]))


if __name__ == "__main__":
    raise SystemExit(main())
