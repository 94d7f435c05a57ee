"""README.md of exported shards: a dataset card, with the front matter by which `datasets` finds and reads them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from pipelines.shard_job import Quarantined
from serving.export.folder import megabytes
from serving.export.model_card import UNKNOWN, front_matter
from serving.export.samples import INDEX, ArraySpec, Survey
from shards.schema import MODALITIES, DatasetInfo, SampleMeta, ShardInfo, Statistics, StreamInfo
from trainers.tables import markdown_table

MOST_LABELS = 100  # rows of the table by class
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
HEARD = {"audio": "sound", "visual": "picture"}
LISTS = {"labels": "string", "frame_times": "float64"}
KINDS = {"present": "bool", "sample_rate": "int64"}  # of the fields of a sample's json; others are texts
KINDS |= dict.fromkeys(("duration", "frame_rate", "offset", "rate", "begin"), "float64")


def description(info: DatasetInfo) -> str:
    """What a dataset is, in a sentence or two."""
    if info.kind == "features":
        assert info.backbone is not None
        return f"Features of audio-visual clips, by the frozen network {info.backbone.id}, as WebDataset shards."
    audio = info.preprocessing.get("audio", "log-mel spectrograms")
    return f"Audio-visual clips as WebDataset shards: the sound as log-mel ({audio}), the picture as frames."


def dataset_card(
    info: DatasetInfo, name: str, folder: str, license: str | None, found: Survey, lost: Sequence[Quarantined]
) -> str:
    """The card.

    Args:
        folder: of the shards, in the export.
        license: of the clips; None: not known.
        found: counts over all samples.
        lost: clips that are not in it.
    """
    parts = [
        front_matter(_front(info, name, folder, license, found.arrays)),
        f"# {name}\n",
        f"{description(info)} A modality that a clip lacks has no member, and its cause is in the clip's json.\n",
        _facts(info, license),
        "## How to read it\n",
        _usage(folder),
        "## Splits\n",
        _splits(info, found),
        "## Classes\n",
        _classes(info, found),
        "## How it was made\n",
        "\n".join(_making(info, found)) + "\n",
        "## What is not in it\n",
        "\n".join(_lost(lost, folder)) + "\n",
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front(
    info: DatasetInfo, name: str, folder: str, license: str | None, arrays: Mapping[str, ArraySpec]
) -> dict[str, Any]:
    count = sum(split.samples for split in info.splits.values())
    size = next((text for most, text in SIZES if count < most), "n>10M")
    return {
        "license": license or UNKNOWN,
        "pretty_name": name,
        "size_categories": [size],
        "task_categories": ["video-classification", "audio-classification"],
        "tags": ["audio-visual", "missing-modality", "webdataset", "croissant"],
        "configs": [{"config_name": "default", "data_files": _data_files(info, folder)}],
        "dataset_info": {"config_name": "default", "features": features(arrays)},
    }


def _data_files(info: DatasetInfo, folder: str) -> list[dict[str, Any]]:
    every = [shard.name for split in info.splits.values() for shard in split.shards]
    return [
        {"split": _split_name(name), "path": _patterns([s.name for s in split.shards], every, folder)}
        for name, split in info.splits.items()
    ]


def _split_name(name: str) -> str:
    """As `datasets` takes it: words and underscores."""
    return re.sub(r"\W", "_", name)


def _patterns(shards: Sequence[str], every: Sequence[str], folder: str) -> str | list[str]:
    """A pattern for the shards of a split where there is one that fits no other's, else their names."""
    stems = {re.sub(r"\d+\.tar$", "[0-9]*.tar", name) for name in shards}
    if len(stems) == 1:
        (pattern,) = stems
        if {name for name in every if fnmatchcase(name, pattern)} == set(shards):
            return f"{folder}/{pattern}"
    return [f"{folder}/{name}" for name in shards]


def features(arrays: Mapping[str, ArraySpec]) -> list[dict[str, Any]]:
    """The types of a sample's members, as a card spells them; without them, `datasets` would refuse samples that lack
    a member."""
    members = [{"name": name, **_array(spec)} for name, spec in arrays.items()]
    ends = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [{"name": "json", "struct": [_json_field(name) for name in SampleMeta.model_fields]}, *members, *ends]


def _array(spec: ArraySpec) -> dict[str, Any]:
    if not spec.rest:
        return {"list": spec.dtype}
    return {"dtype": {f"array{1 + len(spec.rest)}_d": {"shape": [None, *spec.rest], "dtype": spec.dtype}}}


def _json_field(name: str) -> dict[str, Any]:
    if name in MODALITIES:
        return {"name": name, "struct": [_json_field(inner) for inner in StreamInfo.model_fields]}
    if name in LISTS:
        return {"name": name, "list": LISTS[name]}
    return {"name": name, "dtype": KINDS.get(name, "string")}


def _facts(info: DatasetInfo, license: str | None) -> str:
    shards: list[ShardInfo] = [shard for split in info.splits.values() for shard in split.shards]
    rows = [
        ["fingerprint", f"`{info.fingerprint()}`"],
        ["samples", f"{sum(split.samples for split in info.splits.values()):,}"],
        ["shards", f"{len(shards)}, {megabytes(sum(shard.bytes for shard in shards))}"],
        ["licence of the clips", license or f"{UNKNOWN}: whoever exported them named none"],
    ]
    return markdown_table(["", ""], rows, left=2) + "\n"


def _usage(folder: str) -> str:
    return f"""```
avmend import DIR --out data/NAME       # this folder; checks every file against avmend.json
avmend shards info DIR/{folder}         # or use the shards where they are: data=DIR/{folder}
```

```python
import datasets

rows = datasets.load_dataset("DIR", streaming=True)  # arrays as numpy; None where a modality is absent
```

`croissant.json` describes the same for tools that read Croissant: `mlcroissant.Dataset("DIR/croissant.json")`, record
set `samples` and one per split and array. It holds a record set's arrays in memory; large splits are better streamed.
"""


def _splits(info: DatasetInfo, found: Survey) -> str:
    head = ["split", "samples", "hours", "with sound", "with picture", "shards", "size"]
    rows = []
    for name, split in info.splits.items():
        there = [f"{split.present.get(m, 0):,}" for m in MODALITIES]
        size = megabytes(sum(shard.bytes for shard in split.shards))
        hours = f"{found.seconds[name] / 3600:.2f}"
        rows.append([name, f"{split.samples:,}", hours, *there, str(len(split.shards)), size])
    lines = [markdown_table(head, rows)]
    for name, split in info.splits.items():
        for modality, causes in split.absent.items():
            said = ", ".join(f"{count} {cause}" for cause, count in causes.items())
            lines.append(f"\n- {name}, no {HEARD[modality]}: {said}")
    return "".join(lines) + "\n"


def _classes(info: DatasetInfo, found: Survey) -> str:
    total: Counter[str] = Counter()
    for (_, label), count in found.labels.items():
        total[label] += count
    shown = [label for label, _ in total.most_common(MOST_LABELS)]
    rows = [[label, *(f"{found.labels[split, label]:,}" for split in info.splits)] for label in shown]
    rest = len(info.labels) - len(shown)
    end = f"\n\nand {rest} more; all are in `dataset.json`, in their order." if rest > 0 else ""
    return markdown_table(["class", *info.splits], rows) + end + "\n"


def _making(info: DatasetInfo, found: Survey) -> Iterator[str]:
    for name, value in info.preprocessing.items():
        yield f"- {name}: `{value}`"
    for member, spec in found.arrays.items():
        yield f"- `{{key}}.{member}`: {spec.dtype} [{', '.join(['n', *map(str, spec.rest)])}]"
    for name, statistics in (("sound", info.normalisation.audio), ("picture", info.normalisation.visual)):
        if statistics is not None:
            yield f"- statistics of the {name}, train split: {_statistics(statistics)}"
    if info.backbone is not None:
        yield f"- by network `{info.backbone.id}`, fingerprint `{info.backbone.fingerprint}`"
        yield f"- stored variants: {', '.join(info.backbone.variants)}"
    else:
        yield "- No noise is stored: training and evaluation draw it from (seed, sample, draw)."
    yield "- sha256 of every shard: `dataset.json`; of every file of the export: `avmend.json`."


def _statistics(statistics: Statistics) -> str:
    if len(statistics.mean) > 3:
        return f"{len(statistics.mean)} channels, in `dataset.json` ({statistics.samples} samples)"
    pairs = zip(statistics.mean, statistics.std, strict=True)
    return ", ".join(f"{mean:.4f} ± {std:.4f}" for mean, std in pairs) + f" ({statistics.samples} samples)"


def _lost(lost: Sequence[Quarantined], folder: str) -> Iterator[str]:
    if not lost:
        yield "No clip is known to have been left out."
        return
    counts = Counter(str(clip.error) for clip in lost)
    said = ", ".join(f"{count} {cause}" for cause, count in counts.most_common())
    yield f"{len(lost)} clips of the manifest could not be ingested: {said}. Their ids, causes and remedies are in"
    yield f"`{PurePosixPath(folder) / 'quarantine.jsonl'}`; the samples that are there are listed in `{INDEX}`."
