"""Shards on their way out: every shard checked, an index of the samples, a dataset card, Croissant metadata."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.shard_job import QUARANTINE_FILE, Quarantined
from serving.export.croissant import CROISSANT, croissant
from serving.export.dataset_card import dataset_card, description
from serving.export.folder import exporting, finish, megabytes
from serving.export.samples import INDEX, shards_of, survey
from shards.errors import InputError
from shards.keys import safe_name
from shards.remote import fetch
from shards.schema import DATASET_FILE, DatasetInfo
from shards.shared import SharedRecord
from shards.store import Place

SHORT = 12  # digits of a fingerprint in a folder's name
_PLACE = re.compile(r"(?<![\w.])/(?:[^\s'\"():,;]+/)+")


@dataclass(frozen=True)
class ShardOptions:
    """What `avmend export SHARDS` may be told.

    Attributes:
        license: of the clips, as a card names it; None: not known.
        name: of the dataset; None: its folder's.
        link: hard links instead of copies of the shards, where the file system has them.
    """

    license: str | None = None
    name: str | None = None
    link: bool = False


def export_shards(source: Place, out: Place, options: ShardOptions | None = None) -> tuple[SharedRecord, list[str]]:
    """Write ``out``: the shards in a folder named by their content, with an index, a card, and Croissant metadata.

    Returns:
        the record, and lines about what is in it.

    Raises:
        InputError: no dataset, a damaged shard; an ``out`` that holds something.
    """
    options, info = options or ShardOptions(), DatasetInfo.load(source)
    name = safe_name(options.name or source.absolute().name)
    folder = source if isinstance(source, Path) else fetch(source.url)
    link = options.link or not isinstance(out, Path)  # what is sent from here need not be copied first
    place = f"shards-{info.fingerprint()[:SHORT]}"
    with exporting(out, [folder.absolute().parent]) as export:
        for shard in shards_of(info):
            export.copy(folder / shard.name, f"{place}/{shard.name}", shard.sha256, link)
        export.copy(folder / DATASET_FILE, f"{place}/{DATASET_FILE}")
        lost = quarantined(source)
        if lost:
            text = "".join(clip.model_dump_json() + "\n" for clip in map(_without_places, lost))
            export.write(f"{place}/{QUARANTINE_FILE}", text)
        found = survey(export.folder / place, info, export.folder / INDEX)
        export.add(INDEX)
        said = croissant(info, name, description(info), options.license, place, export.files, found.arrays)
        export.write(CROISSANT, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        export.write("README.md", dataset_card(info, name, place, options.license, found, lost))
        labels = {"kind": "shards", "name": name, "license": options.license, "folders": (place,)}
        record = finish(export, **labels, fingerprint=info.fingerprint())
        count = sum(split.samples for split in info.splits.values())
        lines = [f"{place}: {count} samples, {megabytes(export.size(place + '/'))}, {len(lost)} clips in quarantine"]
    return record, lines


def quarantined(folder: Place) -> list[Quarantined]:
    """The clips that are not in a dataset, and why; none where there is no quarantine.jsonl.

    Raises:
        InputError: it can't be read.
    """
    path = folder / QUARANTINE_FILE
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Quarantined.model_validate_json(line) for line in lines if line.strip()]
    except ValueError as error:
        raise InputError(f"can't be read: {error}", file=path, remedy="ingest again, or remove it") from None


def _without_places(clip: Quarantined) -> Quarantined:
    """A line of the quarantine without the folders of this machine."""
    said: dict[str, str] = {name: _PLACE.sub("", getattr(clip, name)) for name in ("message", "remedy")}
    return clip.model_copy(update={"path": _names(clip.path), **said})


def _names(path: str) -> str:
    """Of a path, or of two with something between them, the names of the files."""
    return " + ".join(Path(part).name for part in path.split(" + "))
