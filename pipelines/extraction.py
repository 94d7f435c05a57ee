"""What an extraction of features is about: media, networks, shards to be, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from pipelines.extractors import build_extractor
from pipelines.feature_shard import Extractor, FeatureShard, feature_plan
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.schema import DatasetInfo
from shards.store import Place, PlaceT


@dataclass(frozen=True)
class Extraction(Generic[PlaceT]):
    """What is to be extracted from which media, by what, into ``out``."""

    data: PlaceT
    info: DatasetInfo
    config: FeatureConfig
    extractor: Extractor
    plan: list[FeatureShard]
    out: PlaceT


def prepare(
    data: PlaceT, backbone: Path | None, config: FeatureConfig, weights: Path | None = None
) -> Extraction[PlaceT]:
    """An extraction whose media and networks are there.

    Raises:
        InputError: no media dataset, no backbone or weights, a depth beyond it.
    """
    data = data.absolute()
    info = _media(data, config)
    return extraction_of(data, info, config, build_extractor(config, info, backbone, weights))


def extraction_of(data: PlaceT, info: DatasetInfo, config: FeatureConfig, extractor: Extractor) -> Extraction[PlaceT]:
    """An extraction from media, of all their shards."""
    out = data / "features" / extractor.folder
    return Extraction(data, info, config, extractor, feature_plan(info, config.splits), out)


def _media(data: Place, config: FeatureConfig) -> DatasetInfo:
    info = DatasetInfo.load(data)
    if info.kind != "media":
        remedy = "give the folder of the media shards, as made by 'avmend ingest'"
        raise InputError(f"holds {info.kind}, not media", file=data, field="data", remedy=remedy)
    if unknown := sorted(set(config.splits or ()) - set(info.splits)):
        remedy = f"choose from: {', '.join(info.splits)}"
        raise InputError(f"the dataset has no split '{unknown[0]}'", file=data, field="splits", remedy=remedy)
    return info
