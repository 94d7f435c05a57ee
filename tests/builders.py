"""What several tests build: a small backbone with no trivial weight, inputs, and real shards on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.cavmae import CAVMAE, BackboneConfig
from models.conditions import variant_names
from shards.schema import (
    BackboneInfo,
    DatasetInfo,
    Normalisation,
    SampleMeta,
    SplitInfo,
    Statistics,
    StreamInfo,
)
from shards.writer import Record, write_shard

SMALL = BackboneConfig(dim=32, heads=2, mlp_ratio=2.0, depth=3, target_length=32, image_size=32)
LABELS = ("bell", "drum", "rain")
GONE = StreamInfo(present=False, cause="absent at source")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter, so that no zero, one or identity of an initialisation hides a mistake."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=rng)
            if name.endswith("weight") and p.dim() > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:
                p.copy_(0.3 * noise + float(name.endswith("weight")))
    return module


def small_net(config: BackboneConfig = SMALL, classes: int = 5, seed: int = 0) -> CAVMAE:
    net = CAVMAE(config, classes)
    randomise(net, seed)
    return net.eval()


def small_inputs(n: int, config: BackboneConfig = SMALL, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised fbank [n, F, 128] and pictures [n, 3, H, W]."""
    rng = torch.Generator().manual_seed(seed)
    side = config.image_size
    return (
        torch.randn(n, config.target_length, 128, generator=rng),
        torch.randn(n, 3, side, side, generator=rng),
    )


def meta(key: str, label: str, split: str, audio: bool = True, visual: bool = True) -> SampleMeta:
    there = StreamInfo(present=True)
    return SampleMeta(
        key=key,
        id=f"clip {key}",
        labels=(label,),
        split=split,
        duration=0.4,
        audio=there if audio else GONE,
        visual=there if visual else GONE,
        source_sha256="0" * 64,
    )


def absent(i: int) -> tuple[bool, bool]:
    """(audio there, picture there): every fifth sample lacks its sound, another sixth its picture."""
    return i % 5 != 3, i % 5 == 3 or i % 6 != 4


def media_records(split: str, n: int, label: Callable[[int], str]) -> Iterable[Record]:
    for i in range(n):
        rng, kind = np.random.default_rng([i, len(split)]), i % len(LABELS)
        audio, visual = absent(i)
        members: dict = {"json": meta(f"{split}{i:03d}", label(i), split, audio, visual)}
        if audio:
            x = rng.normal(-5, 2, (40, 128))
            x[:, 40 * kind : 40 * kind + 20] += 4
            members["audio.npy"] = x.astype(np.float16)
        if visual:
            frames = rng.integers(0, 120, (3, 32, 32, 3), dtype=np.uint8)
            frames[..., kind] += 100
            members["frames.npy"] = frames
        yield members["json"].key, members


def split_info(folder: Path, split: str, records: list[Record], size: int) -> SplitInfo:
    shards = tuple(
        write_shard(folder / f"{split}-{j:06d}.tar", records[at : at + size], root=folder)
        for j, at in enumerate(range(0, len(records), size))
    )
    metas = [members["json"] for _, members in records]
    present = {m: sum(getattr(x, m).present for x in metas) for m in ("audio", "visual")}
    return SplitInfo(samples=len(records), present=present, shards=shards)


def media_dataset(
    folder: Path,
    sizes: dict[str, int],
    label: Callable[[int], str] = lambda i: LABELS[i % len(LABELS)],
) -> DatasetInfo:
    """Media shards of 9 samples each, with sounds of 40 frames and three pictures of 32 pixels a sample."""
    splits = {s: split_info(folder, s, list(media_records(s, n, label)), 9) for s, n in sizes.items()}
    statistics = Normalisation(
        audio=Statistics(mean=(-5.0,), std=(2.5,), samples=sizes["train"]),
        visual=Statistics(mean=(0.3, 0.3, 0.3), std=(0.2, 0.2, 0.2), samples=sizes["train"]),
    )
    info = DatasetInfo(kind="media", preprocessing={}, labels=LABELS, splits=splits, normalisation=statistics)
    info.save(folder)
    return info


def feature_records(split: str, n: int, shapes: dict[str, tuple[int, int]], draws: int) -> Iterable[Record]:
    for i in range(n):
        rng = np.random.default_rng([7, i, len(split)])
        there = dict(zip(("audio", "visual"), absent(i), strict=True))
        members: dict = {"json": meta(f"{split}{i:03d}", LABELS[i % len(LABELS)], split, *there.values())}
        for modality, shape in shapes.items():
            if there[modality]:
                x = rng.normal(0, 1, (1 + 2 * draws, *shape)) + i % len(LABELS)
                members[f"{modality}.npy"] = x.astype(np.float16)
        yield members["json"].key, members


def feature_dataset(
    folder: Path,
    sizes: dict[str, int],
    config: BackboneConfig,
    fingerprint: str,
    depth: int = 0,
    draws: int = 2,
) -> DatasetInfo:
    """Feature shards of random tokens: the clean variant and `draws` of either severity."""
    shapes = {m: (n, config.dim) for m, n in config.tokens.items()}
    splits = {
        s: split_info(folder, s, list(feature_records(s, n, shapes, draws)), 9) for s, n in sizes.items()
    }
    made_by = BackboneInfo(
        id="small", fingerprint=fingerprint, depth=depth, variants=tuple(variant_names(draws))
    )
    info = DatasetInfo(kind="features", preprocessing={}, labels=LABELS, splits=splits, backbone=made_by)
    info.save(folder)
    return info
