"""Corpora in folders, ``vision/<class>/<id>.jpg`` with ``sound/<class>/<id>.wav``.

UrbanSound8K-AV and CIFAR10-AV are laid out so.

The folders may also be called ``Dataset_v3_vision`` and ``Dataset_v3_sound``, and may hold split folders
(``vision/train/<class>/...``). Two manifests: ``official.csv`` is the tree's own split; a tree without one
gets a seeded split of 70 / 10 / 20 %, stratified by class. ``group.csv`` keeps all slices of one recording
(the same first number in the id, ``100032-3-0-0``) in one split. A file without its partner is reported
and kept: the other stream is absent at source.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic

from pipelines.corpora.corpus import Corpus, CorpusConfig, StartProgress, Summary
from pipelines.manifest import write_manifest
from shards.atomic import write_text
from shards.errors import InputError

VISION = ("vision", "Dataset_v3_vision")
SOUND = ("sound", "Dataset_v3_sound")
PICTURES = (".jpg", ".jpeg", ".png")
SOUNDS = (".wav", ".flac", ".mp3", ".ogg")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


@dataclass(frozen=True)
class Pair:
    """One clip of such a tree; at least one of the files is there.

    Attributes:
        label: the class, the folder's name.
        name: the files' name without ending.
        image: the picture, if there is one.
        audio: the sound, if there is one.
        split: the tree's own split, if it has one.
    """

    label: str
    name: str
    image: Path | None
    audio: Path | None
    split: str | None

    @property
    def id(self) -> str:
        """The place in the tree: names alone need not differ between classes and splits."""
        return "/".join(filter(None, (self.split, self.label, self.name)))

    @property
    def group(self) -> str:
        """The recording that the clip is a slice of: the id's first number, or else the clip itself."""
        match = re.match(r"(\d+)[-_]", self.name)
        return match[1] if match else self.id


@dataclass(frozen=True)
class Tree:
    """What was found: the clips, sorted by id, and files that are neither picture nor sound."""

    pairs: list[Pair]
    ignored: list[Path] = field(default_factory=list)

    @property
    def unpaired(self) -> dict[str, list[str]]:
        """Ids of the clips without sound and without picture."""
        return {
            "without_sound": [pair.id for pair in self.pairs if pair.audio is None],
            "without_picture": [pair.id for pair in self.pairs if pair.image is None],
        }


class FoldersConfig(CorpusConfig):
    """Pictures and sounds as vision/<class>/<id>.jpg with sound/<class>/<id>.wav."""

    source: Path
    """Folder of vision/ and sound/."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Of the splits that the tree does not have."""


def build(config: FoldersConfig, out: str | Path, progress: StartProgress, *, name: str) -> Summary:
    """Write ``official.csv``, ``group.csv`` and ``corpus.json``; ``name`` is the corpus's.

    ``corpus.json`` holds counts, how each split was made, unpaired clips and ignored files.

    Raises:
        InputError: the tree is not of this layout, or a clip has two pictures or two sounds.
    """
    out = Path(out)
    facts = write_folders(config.source, out, name, config.seed)
    manifests = {split: out / f"{split}.csv" for split in ("official", "group")}
    lines = [f"{facts['clips']} clips: {' and '.join(map(str, manifests.values()))}"]
    counts = {
        "without sound": facts["without_sound"],
        "without picture": facts["without_picture"],
        "other files ignored": facts["ignored_files"],
    }
    for what, files in counts.items():
        if files:
            lines.append(f"{len(files)} {what} (see {out / 'corpus.json'}): {', '.join(files[:3])}")
    return Summary(facts["clips"], manifests, lines=tuple(lines))


def corpus(name: str) -> Corpus[FoldersConfig]:
    """The record of a corpus of this layout."""
    return Corpus(FoldersConfig, functools.partial(build, name=name), ("official", "group"))


def write_folders(source: Path, out: Path, name: str, seed: int) -> dict[str, Any]:
    """Write both manifests and ``corpus.json``, of which the content is returned."""
    tree = scan(source)
    own = tree.pairs[0].split is not None
    official = [pair.split or "" for pair in tree.pairs] if own else stratified(tree.pairs, seed)
    grouped = group_disjoint(tree.pairs, seed)
    how = "the tree's own" if own else f"not the data set's: seed {seed}, 70/10/20 %, stratified by class"
    report = {
        "name": name,
        "clips": len(tree.pairs),
        "classes": dict(sorted(collections.Counter(pair.label for pair in tree.pairs).items())),
        "splits": {
            "official": {"made": how, **_counts(official)},
            "group": {
                "made": f"seed {seed}, slices of a recording together, near 70/10/20 % of each class",
                "groups": len({pair.group for pair in tree.pairs}),
                **_counts(grouped),
            },
        },
        **tree.unpaired,
        "ignored_files": [os.path.relpath(path, source) for path in tree.ignored],
    }
    write_text(out / "corpus.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_manifest(out / "official.csv", [_row(out, p, s) for p, s in zip(tree.pairs, official, strict=True)])
    rows = [_row(out, p, s) | {"group": p.group} for p, s in zip(tree.pairs, grouped, strict=True)]
    write_manifest(out / "group.csv", rows)
    return report


def scan(source: str | Path) -> Tree:
    """Find the clips of a tree.

    Raises:
        InputError: no such folders, no clips, split folders on one side alone, two files for one stream.
    """
    source, ignored = Path(source), []
    sides = {"image": (VISION, PICTURES), "audio": (SOUND, SOUNDS)}
    found: dict[tuple[str | None, str, str], dict[str, Path]] = collections.defaultdict(dict)
    owns_splits = set()
    for side, (names, endings) in sides.items():
        root = _root(source, names)
        folders = _class_folders(root)
        owns_splits.add(any(split for split, _ in folders))
        for split, folder in folders:
            for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
                if path.suffix.lower() not in endings:
                    ignored.append(path)
                    continue
                clip = found[split, folder.name, path.stem]
                if side in clip:
                    raise InputError(f"'{clip[side].name}' has the same name", file=path, remedy="keep one of them")
                clip[side] = path
    if not found:
        raise InputError("no clips", file=source, remedy="the layout is vision/<class>/<id>.jpg")
    if len(owns_splits) > 1:
        raise InputError(
            "split folders on one side alone", file=source, remedy="lay out vision and sound in the same way"
        )
    pairs = [
        Pair(label, name, files.get("image"), files.get("audio"), split)
        for (split, label, name), files in found.items()
    ]
    return Tree(sorted(pairs, key=lambda pair: pair.id), ignored)


def stratified(pairs: Sequence[Pair], seed: int) -> list[str]:
    """A split per clip: of each class 20 % test, 10 % val, the rest train, the order drawn from the seed."""
    splits: dict[str, str] = {}
    for label in {pair.label for pair in pairs}:
        ids = sorted((pair.id for pair in pairs if pair.label == label), key=lambda name: _draw(seed, name))
        test, val = round(len(ids) * SHARES["test"]), round(len(ids) * SHARES["val"])
        for place, name in enumerate(ids):
            splits[name] = "test" if place < test else "val" if place < test + val else "train"
    return [splits[pair.id] for pair in pairs]


def group_disjoint(pairs: Sequence[Pair], seed: int) -> list[str]:
    """A split per clip, all clips of a group in one, near 70 / 10 / 20 % of each class.

    Greedy: from the largest group to the smallest (equals in an order drawn from the seed), each goes to
    the split that lacks most of what the group holds.
    """
    groups: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for pair in pairs:
        groups[pair.group][pair.label] += 1
    totals = collections.Counter(pair.label for pair in pairs)
    lacking = {split: {label: n * share for label, n in totals.items()} for split, share in SHARES.items()}
    chosen: dict[str, str] = {}
    for group in sorted(groups, key=lambda name: (-groups[name].total(), _draw(seed, name))):
        split = max(SHARES, key=lambda split: _want(lacking[split], groups[group], totals, SHARES[split]))
        chosen[group] = split
        for label, count in groups[group].items():
            lacking[split][label] -= count
    return [chosen[pair.group] for pair in pairs]


def _want(lacking: Mapping[str, float], group: Mapping[str, int], totals: Mapping[str, int], share: float) -> float:
    """How much a split lacks of the group's classes, relative to what it should have of them."""
    return sum(count * lacking[label] / (totals[label] * share) for label, count in group.items())


def _root(source: Path, names: Sequence[str]) -> Path:
    roots = [source / name for name in names if (source / name).is_dir()]
    if len(roots) != 1:
        raise InputError(
            f"{'both' if roots else 'neither'} of the folders {' and '.join(names)}",
            file=source,
            field="source",
            remedy=f"give the folder that holds one of {', '.join(names)}",
        )
    return roots[0]


def _class_folders(root: Path) -> list[tuple[str | None, Path]]:
    """The class folders below ``root``, each with its split if the first level names splits."""
    first = _subfolders(root)
    if len(first) == 1 and first[0].name == root.name:  # an archive unpacked into a folder of its own name
        first = _subfolders(first[0])
    if first and all(folder.name.lower() in SPLIT_NAMES for folder in first):
        return [(SPLIT_NAMES[top.name.lower()], folder) for top in first for folder in _subfolders(top)]
    return [(None, folder) for folder in first]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _row(out: Path, pair: Pair, split: str) -> dict[str, str]:
    row = {"id": pair.id, "label": pair.label, "split": split}
    for column, path in (("audio_path", pair.audio), ("image_path", pair.image)):
        if path is not None:
            row[column] = os.path.relpath(path, out)
    return row


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _counts(splits: Sequence[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(splits).items()))
