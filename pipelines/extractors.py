"""The extractor that a config names, with the user's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.public import load_clip, load_resnet18, load_vggish
from models.backbone import Backbone
from pipelines.feature_shard import Extractor
from pipelines.sequences import (
    CavmaeAudio,
    CavmaeVisual,
    ClipVisual,
    ResNetVisual,
    SequenceExtractor,
    VGGishAudio,
)
from pipelines.settings import TOKENS, FeatureConfig, encoders
from pipelines.tokens import TokenExtractor, frozen_backbone
from shards.errors import InputError
from shards.schema import DatasetInfo


def build_extractor(config: FeatureConfig, info: DatasetInfo, backbone: Path | None, weights: Path | None) -> Extractor:
    """The frozen networks that the config names; never with random weights.

    Args:
        info: of the media.
        backbone: folder of a `finetune` run, for tokens and cavmae; for cavmae of a `dense` run, too.
        weights: folder of public weights, for all else.

    Raises:
        InputError: weights that are missing or do not fit, or media without what the networks take.
    """
    own = _backbone(config, backbone) if config.needs_backbone else None
    if config.extractor == TOKENS:
        assert own is not None
        return TokenExtractor(own, config)
    audio, visual = encoders(config.extractor)
    steps = info.preprocessing.get("frames")
    if not isinstance(steps, int):
        remedy = "ingest the clips again with this version"
        raise InputError("dataset.json has no number of frames per clip", field="frames", remedy=remedy)
    if audio == "vggish" and not info.preprocessing.get("wave"):
        remedy = "ingest the clips again with keep_wave=true"
        raise InputError("vggish needs the waveform, the media have none", field="extractor", remedy=remedy)
    sound, picture = _audio(audio, own, weights, config.pca), _visual(visual, own, weights)
    return SequenceExtractor(config.extractor, sound, picture, steps, config.side)


def _backbone(config: FeatureConfig, folder: Path | None) -> Backbone:
    if folder is None:
        remedy = "give --backbone, the folder of an 'avmend train finetune' run"
        raise InputError(f"{config.extractor} needs a backbone", field="backbone", remedy=remedy)
    return frozen_backbone(folder, config.depth, classifies=config.extractor == TOKENS)


def _audio(name: str, own: Backbone | None, weights: Path | None, pca: bool) -> Any:
    if name == "vggish":
        return VGGishAudio(load_vggish(weights, pca))
    assert own is not None
    return CavmaeAudio(own)


def _visual(name: str, own: Backbone | None, weights: Path | None) -> Any:
    if name == "resnet18":
        return ResNetVisual(load_resnet18(weights))
    if name == "clip":
        return ClipVisual(load_clip(weights))
    assert own is not None
    return CavmaeVisual(own)
