"""The work of one task: a media shard's samples through frozen networks. No Ray here.

Shapes: R rows (variants or time steps) of one sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.settings import MODALITIES, Modality
from pipelines.resume import Ledger, make_shard, read_ledger, write_ledger
from pipelines.running_stats import Moments, add, channel_moments
from pipelines.settings import FeatureConfig
from shards.brought import brought
from shards.errors import InputError
from shards.reader import Sample, ShardDataset
from shards.schema import BackboneInfo, DatasetInfo, SampleMeta, ShardInfo, count_absent
from shards.store import Place
from shards.writer import Member, Record

LARGEST = float(torch.finfo(torch.float16).max)


class Extractor(Protocol):
    """Frozen networks and how they are fed: what makes one kind of features from samples.

    Attributes:
        fingerprint: sha256 of weights and sizes.
        folder: name of its feature shards' folder.
        statistics: dataset.json is to hold mean and deviation per channel over the train split.
    """

    fingerprint: str
    folder: str
    statistics: bool

    def to(self, device: str) -> None:
        """Move the networks."""
        ...

    def together(self, split: str) -> int:
        """Samples that go through the network together."""
        ...

    def inputs(self, modality: Modality, sample: Sample) -> Tensor:
        """What the network takes of one sample, [R, ...]; always the same R within a split."""
        ...

    def forward(self, modality: Modality, rows: Tensor) -> Tensor:
        """Features of such rows, on the networks' device."""
        ...

    def preprocessing(self) -> dict[str, Any]:
        """What dataset.json says besides the config."""
        ...

    def info(self) -> BackboneInfo:
        """The networks' identity in dataset.json."""
        ...


class FeatureLedger(Ledger):
    """A shard's result; moments of its train samples where statistics are wanted."""

    audio: Moments = Moments()
    visual: Moments = Moments()


@dataclass(frozen=True)
class FeatureShard:
    """One feature shard to be, and the media shard that it mirrors.

    Attributes:
        name: ``train-000042``.
        split: the samples' split.
        media: the media shard.
        info: dataset.json of the media, with this shard alone.
    """

    name: str
    split: str
    media: ShardInfo
    info: DatasetInfo

    @property
    def digest(self) -> str:
        """Of the samples that go in."""
        return self.media.sha256

    def open(self, data: Path) -> ShardDataset:
        """The media shard's samples."""
        return ShardDataset(data, self.split, info=self.info)


def feature_plan(info: DatasetInfo, splits: Sequence[str] | None = None) -> list[FeatureShard]:
    """One feature shard per media shard of these splits (default: all), of the same name, in order."""
    return [
        FeatureShard(Path(shard.name).stem, split, shard, info.only(split, shard))
        for split in dict.fromkeys(splits or info.splits)
        for shard in info.splits[split].shards
    ]


def read_features_ledger(out: Place, shard: FeatureShard) -> FeatureLedger | None:
    """The result of a finished feature shard, if it is finished."""
    return read_ledger(FeatureLedger, out, shard.name, shard.digest)


def extract_shard(
    shard: FeatureShard, extractor: Extractor, config: FeatureConfig, data: Place, out: Place
) -> FeatureLedger:
    """Write ``out/<name>.tar`` with the features of a media shard's samples, and then its ledger.

    Members ``audio.npy`` and ``visual.npy``: float16 [R, ...], only for modalities that the sample has.

    Args:
        extractor: already moved to its device.
        data, out: folders of the media and of the feature shards.

    Raises:
        InputError: a damaged media shard, or features that float16 can't hold; names the sample.
        OSError: the shard can't be written.
    """
    if (done := read_features_ledger(out, shard)) is not None:
        return done
    work = _Work(shard, extractor, config)
    with brought(data, shard.media) as here, reproducible(), torch.inference_mode():
        written = make_shard(out / f"{shard.name}.tar", work.records(shard.open(here)), out)
    moments = {modality: add(parts) for modality, parts in work.moments.items()}
    result = FeatureLedger(
        digest=shard.digest, shard=written, present=work.present, absent=count_absent(work.metas), **moments
    )
    return write_ledger(result, out, shard.name)


@contextmanager
def reproducible() -> Iterator[None]:
    """The same arithmetic in every process: one CPU thread, on a GPU full float32 and fixed algorithms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


class _Work:
    """The samples of one shard on their way; how many had which modality, and their moments."""

    def __init__(self, shard: FeatureShard, extractor: Extractor, config: FeatureConfig):
        self.extractor, self.batch_size = extractor, config.batch_size
        self.step = extractor.together(shard.split)
        self.statistics = extractor.statistics and shard.split == "train"
        self.present: dict[str, int] = dict.fromkeys(MODALITIES, 0)
        self.moments: dict[str, list[Moments]] = {modality: [] for modality in MODALITIES}
        self.metas: list[SampleMeta] = []

    def records(self, data: ShardDataset) -> Iterator[Record]:
        """The samples as the writer takes them. Which ones go through the network together never depends on
        anything but the shard."""
        for at in range(0, len(data), self.step):
            samples = [data[i] for i in range(at, min(at + self.step, len(data)))]
            features = {modality: self._features(modality, samples) for modality in MODALITIES}
            for sample in samples:
                key = sample.meta.key
                self.metas.append(sample.meta)
                members: dict[str, Member] = {"json": sample.meta}
                members |= {f"{m}.npy": features[m][key] for m in MODALITIES if key in features[m]}
                yield key, members

    def _features(self, modality: Modality, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Features [R, ...] by key of those samples that have the modality."""
        having = [sample for sample in samples if getattr(sample.meta, modality).present]
        self.present[modality] += len(having)
        if not having:
            return {}
        halves = features_of(self.extractor, modality, having, self.batch_size)
        if self.statistics:
            self.moments[modality] += [channel_moments(half) for half in halves]
        return {sample.meta.key: half for sample, half in zip(having, halves, strict=True)}


def features_of(extractor: Extractor, modality: Modality, samples: Sequence[Sample], batch_size: int) -> np.ndarray:
    """Features of samples that have the modality, float16 [samples, R, ...]; they go through the network together, at
    most `batch_size` rows at a time.

    Raises:
        InputError: features that float16 can't hold; names the sample.
    """
    rows = torch.cat([extractor.inputs(modality, sample) for sample in samples])
    parts = [extractor.forward(modality, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    values = torch.cat(parts).view(len(samples), -1, *parts[0].shape[1:])
    for sample, of_sample in zip(samples, values, strict=True):
        _refuse_overflow(modality, sample, of_sample)
    return values.half().cpu().numpy()


def _refuse_overflow(modality: Modality, sample: Sample, values: Tensor) -> None:
    peak = float(values.abs().max())
    if not peak <= LARGEST:  # NaN too
        remedy = "look at this sample and at the weights; choose another depth or network"
        message = f"sample '{sample.meta.id}': {modality} features reach {peak:g}, float16 ends at {LARGEST:g}"
        raise InputError(message, field="depth", remedy=remedy)
