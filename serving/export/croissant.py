"""croissant.json: what shards hold, in the vocabulary of Croissant 1.0 (MLCommons), so that its tools stream them.

A record set lists all samples (from the index); for each split and array another one has the array's bytes with key
and labels. Source: Croissant format specification, version 1.0, http://mlcommons.org/croissant/1.0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from serving.export.samples import INDEX, MEANINGS, ArraySpec
from shards.schema import DatasetInfo
from shards.shared import SharedFile

CROISSANT = "croissant.json"
VERSION = "http://mlcommons.org/croissant/1.0"
TYPES = {"labels": "sc:Text", "duration": "sc:Float"}
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

Json = dict[str, Any]


def croissant(
    info: DatasetInfo,
    name: str,
    description: str,
    license: str | None,
    folder: str,
    files: Mapping[str, SharedFile],
    arrays: Mapping[str, ArraySpec],
) -> Json:
    """The metadata of a dataset's export.

    Args:
        folder: of the shards, in the export.
        files: of the export, by path.
        arrays: the members that samples have.
    """
    members = [(split, member, spec) for split in info.splits for member, spec in arrays.items()]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": VERSION,
        "name": name,
        "description": description,
        **({"license": license} if license else {}),
        "datePublished": _today(),
        "version": "1.0.0",
        "keywords": ["audio-visual", "missing modality"],
        "distribution": [
            _file(INDEX, INDEX, "application/x-parquet", files[INDEX]),
            *_shards(info, folder, files),
            *(_member_files(info, split, member) for split, member, _ in members),
        ],
        "recordSet": [_samples(), *(_member_records(*member) for member in members)],
    }


def record_set(split: str, member: str) -> str:
    """The id of the record set with a member's bytes of a split: "train-audio"."""
    return f"{split}-{member.removesuffix('.npy')}"


def _today() -> str:
    """Day of the export; SOURCE_DATE_EPOCH, if set, makes it another one."""
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))


def _file(name: str, path: str, kind: str, file: SharedFile) -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": kind,
        "sha256": file.sha256,
    }


def _shards(info: DatasetInfo, folder: str, files: Mapping[str, SharedFile]) -> Iterator[Json]:
    for split in info.splits.values():
        for shard in split.shards:
            path = f"{folder}/{shard.name}"
            yield _file(shard.name, path, "application/x-tar", files[path])


def _member_files(info: DatasetInfo, split: str, member: str) -> Json:
    name = f"{record_set(split, member)}-files"
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "containedIn": [{"@id": shard.name} for shard in info.splits[split].shards],
        "encodingFormat": "application/octet-stream",
        "includes": f"*.{member}",
    }


def _samples() -> Json:
    fields = [
        _field("samples", name, about, {"fileObject": {"@id": INDEX}, "extract": {"column": name}}, TYPES.get(name))
        for name, about in MEANINGS.items()
    ]
    for one in fields:
        if one["name"] == "labels":
            one["repeated"] = True
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "All samples, without their arrays.",
        "key": {"@id": "samples/key"},
        "field": fields,
    }


def _member_records(split: str, member: str, spec: ArraySpec) -> Json:
    name = record_set(split, member)
    files = {"fileSet": {"@id": f"{name}-files"}}
    shape = ", ".join(["n", *map(str, spec.rest)])
    content = f"a .npy file: {spec.dtype} [{shape}], for numpy.load(io.BytesIO(...))"
    key = _field(
        name,
        "key",
        MEANINGS["key"],
        {**files, "extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([^.]+)(?:\..*)?$"}},
    )
    key["references"] = {"fileObject": {"@id": INDEX}, "extract": {"column": "key"}}
    labels = _field(name, "labels", MEANINGS["labels"], {"fileObject": {"@id": INDEX}, "extract": {"column": "labels"}})
    labels["repeated"] = True
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{member} of split {split}; samples without it have no record here.",
        "field": [key, labels, _field(name, "content", content, {**files, "extract": {"fileProperty": "content"}})],
    }


def _field(records: str, name: str, about: str, source: Json, kind: str | None = None) -> Json:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{name}",
        "name": name,
        "description": about,
        "dataType": kind or "sc:Text",
        "source": source,
    }
