"""What is written into shards and dataset.json: frozen pydantic models, unknown fields refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from shards.atomic import write_text
from shards.causes import Cause
from shards.errors import InputError
from shards.store import Place, place

SCHEMA_VERSION: Literal[1] = 1  # of the plans that jobs keep
NEWEST: Literal[2] = 2  # of dataset.json; 2 says why modalities are absent, and is written where some are
DATASET_FILE = "dataset.json"
ABSENT = Cause.ABSENT
MODALITIES = ("audio", "visual")


class Frozen(pydantic.BaseModel):
    """Base of the schema's models: immutable, unknown fields and NaN refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StreamInfo(Frozen):
    """One modality of one sample: is it there, and if not, why.

    Attributes:
        present: the sample has this modality, and its members are in the shard.
        cause: why not, if not present.
        codec: as the source spells it.
        rate: samples (audio) or frames (visual) per second at the source.
        duration: seconds of this stream that the members cover.
        begin: second of the file's clock at which the stream begins (the container's first stream is at 0).
        channel: of several channels of sound, what was made of them: ``mean``, ``first``, ``loudest``, or
            ``loudest (mean cancelled)`` where the channels are each other's opposite.
    """

    present: bool
    cause: Cause | None = None
    codec: str | None = None
    rate: float | None = None
    duration: float | None = None
    begin: float | None = None
    channel: str | None = None

    @pydantic.model_validator(mode="after")
    def _cause_iff_missing(self) -> StreamInfo:
        if self.present == (self.cause is not None):
            raise ValueError("a stream has a cause exactly when it is not present")
        return self


class SampleMeta(Frozen):
    """The ``{key}.json`` of one sample.

    Attributes:
        key: name in the shard; unique in the dataset.
        id: as the manifest spells it.
        labels: one or more.
        split: the manifest's.
        group: clips of one group are never divided between splits.
        duration: seconds of the clip (the longer of its streams).
        audio, visual: presence and origin of the two modalities.
        source_sha256: of the source's bytes; of sound and picture one after the other if two files; empty of imported
            features.
        sample_rate: Hz of the waveform behind the log-mel.
        frame_rate: log-mel frames per second.
        frame_times: seconds from the clip's start at which each of the frames was shown.
        offset: seconds by which the sound begins later than the picture, on the file's clock; ``None`` where
            one of them is not there, or of a dataset older than this field.
    """

    key: str
    id: str
    labels: tuple[str, ...]
    split: str
    group: str | None = None
    duration: float
    audio: StreamInfo
    visual: StreamInfo
    source_sha256: str
    sample_rate: int = 16000
    frame_rate: float = 100.0
    frame_times: tuple[float, ...] = ()
    offset: float | None = None


class ShardInfo(Frozen):
    """One finished shard: its path relative to the dataset's folder, samples, bytes, and their sha256."""

    name: str
    samples: int
    bytes: int
    sha256: str

    @pydantic.field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        if name.startswith("/") or ".." in Path(name).parts or not re.fullmatch(r"[\w./-]+\.tar", name):
            raise ValueError("a shard's name is a relative path to a .tar inside the dataset's folder")
        return name


class SplitInfo(Frozen):
    """One split: samples, how many of them have each modality (``audio``, ``visual``), shards in order.

    Attributes:
        absent: by modality, how many samples lack it, by cause; empty: none does, or nobody counted.
    """

    samples: int
    present: dict[str, int]
    shards: tuple[ShardInfo, ...]
    absent: dict[str, dict[Cause, int]] = {}

    @pydantic.model_validator(mode="after")
    def _adds_up(self) -> SplitInfo:
        total = sum(shard.samples for shard in self.shards)
        if total != self.samples:
            raise ValueError(f"shards hold {total} samples, the split says {self.samples}")
        for modality, causes in self.absent.items():
            if self.present.get(modality, 0) + sum(causes.values()) != self.samples:
                raise ValueError(f"{modality} that is present and absent do not add up to the samples")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _short(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without an empty ``absent``, as schema 1 spells it."""
        found = handler(self)
        return found if self.absent else {name: value for name, value in found.items() if name != "absent"}


class Statistics(Frozen):
    """Mean and standard deviation: one value (log-mel) or one per colour channel (of pixels in 0..1)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    samples: int


class Normalisation(Frozen):
    """Statistics over the train split's present samples; ``None`` where it has none."""

    audio: Statistics | None = None
    visual: Statistics | None = None


class BackboneInfo(Frozen):
    """The frozen network behind feature shards: id, sha256 of weights and config, depth (``None`` of sequence
    features), stored variants."""

    id: str
    fingerprint: str
    depth: int | None
    variants: tuple[str, ...]


class DatasetInfo(Frozen):
    """dataset.json: everything one must know to read the shards, and to tell two datasets apart."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    kind: Literal["media", "features"]
    preprocessing: dict[str, Any]
    labels: tuple[str, ...]
    answers: tuple[str, ...] | None = None
    splits: dict[str, SplitInfo]
    normalisation: Normalisation = Normalisation()
    backbone: BackboneInfo | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _version(cls, values: Any) -> Any:
        """The oldest that can say it, unless one is given: what old readers can read, they may."""
        if not isinstance(values, dict) or "schema_version" in values:
            return values
        counted = any(getattr(split, "absent", None) for split in values.get("splits", {}).values())
        return {**values, "schema_version": NEWEST} if counted else values

    @pydantic.model_validator(mode="after")
    def _backbone_iff_features(self) -> DatasetInfo:
        if (self.kind == "features") != (self.backbone is not None):
            raise ValueError("feature datasets name their backbone, media datasets have none")
        return self

    @classmethod
    def load(cls, folder: str | Place) -> DatasetInfo:
        """Read ``folder/dataset.json``, of a folder or a store.

        Raises:
            InputError: it is missing, unreadable or of another schema.
        """
        path = place(folder) / DATASET_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            remedy = "give the folder of a finished dataset, or run the ingestion to its end"
            raise InputError(f"can't be read: {error.strerror}", file=path, remedy=remedy) from None
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"]) or None
            remedy = f"make it anew with this version (schema {NEWEST})"
            raise InputError(problem["msg"], file=path, field=field, remedy=remedy) from None

    def save(self, folder: str | Place) -> Place:
        """Write ``folder/dataset.json``, whole or not at all; the same content gives the same bytes."""
        path = place(folder) / DATASET_FILE
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")
        return path

    def only(self, split: str, shard: ShardInfo) -> DatasetInfo:
        """The same of one shard alone."""
        one = SplitInfo(samples=shard.samples, present={}, shards=(shard,))
        return self.model_copy(update={"splits": {split: one}})

    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical json: equal for equal data and preprocessing."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def count_absent(metas: Iterable[SampleMeta]) -> dict[str, dict[Cause, int]]:
    """Samples that lack a modality, by modality and cause, in a fixed order; as in `SplitInfo.absent`."""
    found = Counter((m, c) for meta in metas for m in MODALITIES if (c := getattr(meta, m).cause))
    return add_absent([{m: {c: n}} for (m, c), n in found.items()])


def add_absent(parts: Iterable[Mapping[str, Mapping[Cause, int]]]) -> dict[str, dict[Cause, int]]:
    """Sum of such counts."""
    total: Counter[tuple[str, Cause]] = Counter()
    for part in parts:
        total.update({(m, c): n for m, causes in part.items() for c, n in causes.items()})
    named = {m: {c: total[m, c] for c in Cause if total[m, c]} for m in MODALITIES}
    return {m: causes for m, causes in named.items() if causes}


def token_folder(fingerprint: str, depth: int) -> str:
    """Name, within a media dataset's ``features``, of the folder with one backbone's tokens at one depth."""
    return f"{fingerprint[:12]}-k{depth}"


def feature_folder(dataset: Path, fingerprint: str, depth: int) -> Path:
    """Where a media dataset keeps the feature shards of one backbone (sha256 of it) at one depth."""
    return Path(dataset) / "features" / token_folder(fingerprint, depth)


def canonical_json(value: Any) -> str:
    """Json with sorted names and no spaces, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
