"""Random clips in real shards: what the measurements read. Content is noise, sizes are a preset's.

Shapes: F fbank frames (10 ms each), S picture side.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.backbone import Backbone
from models.cavmae import CAVMAE
from models.inputs import Normalisation as InputNormalisation
from models.settings import BACKBONES, BackboneConfig
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.checkpoint import save_checkpoint
from shards.schema import DatasetInfo, Normalisation, SampleMeta, SplitInfo, Statistics, StreamInfo
from shards.writer import Record, write_shard

LABELS = tuple(f"class{i}" for i in range(10))
FRAMES, PER_SHARD = 3, 64  # pictures per clip, clips per shard


def write_media(folder: Path, preset: str, clips: int) -> DatasetInfo:
    """A media dataset of one split ("train") whose clips have a preset's length and picture size."""
    numbers = list(range(clips))
    shards = tuple(
        write_shard(
            folder / "media" / f"train-{at // PER_SHARD:06d}.tar",
            _records(BACKBONES[preset], numbers[at : at + PER_SHARD]),
            root=folder,
        )
        for at in range(0, clips, PER_SHARD)
    )
    split = SplitInfo(samples=clips, present={"audio": clips, "visual": clips}, shards=shards)
    statistics = Normalisation(
        audio=Statistics(mean=(-5.0,), std=(2.0,), samples=clips),
        visual=Statistics(mean=(0.5,) * 3, std=(0.3,) * 3, samples=clips),
    )
    info = DatasetInfo(kind="media", preprocessing={}, labels=LABELS, splits={"train": split}, normalisation=statistics)
    info.save(folder)
    return info


def _records(config: BackboneConfig, numbers: list[int]) -> Iterator[Record]:
    side = config.image_size
    for i in numbers:
        rng = np.random.default_rng(i)
        fbank = rng.standard_normal((config.target_length, 128), np.float32) * 2 - 5
        key = f"clip{i:06d}"
        yield (
            key,
            {
                "json": sample_meta(key, i, config.target_length / 100),
                "audio.npy": fbank.astype(np.float16),
                "frames.npy": rng.integers(0, 256, (FRAMES, side, side, 3), dtype=np.uint8),
            },
        )


def sample_meta(key: str, i: int, seconds: float) -> SampleMeta:
    """Of a clip with both modalities."""
    stream = StreamInfo(present=True, codec="none", rate=16000.0, duration=seconds)
    return SampleMeta(
        key=key,
        id=key,
        labels=(LABELS[i % len(LABELS)],),
        split="train",
        duration=seconds,
        audio=stream,
        visual=stream,
        source_sha256="0" * 64,
    )


def write_backbone(folder: Path, preset: str) -> Path:
    """The checkpoint of a fresh backbone of a preset (weights decide nothing about time or memory)."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(CAVMAE(BACKBONES[preset], len(LABELS)), LABELS, InputNormalisation())
    save_checkpoint(folder, backbone.net.state_dict(), backbone.meta())
    return folder


def write_features(data: Path, backbone: Path, depth: int, draws: int, gpu: bool) -> Path:
    """Feature shards at one depth, by the project's own extraction in this process."""
    config = FeatureConfig(depth=depth, draws=draws, eval_draws=draws, workers=0, gpu=gpu)
    return extract(data, backbone, config)
