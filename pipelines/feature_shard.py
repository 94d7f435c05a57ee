"""The work of one task: all variants of a media shard's samples through the frozen backbone. No Ray here.

Shapes: R rows (variants of several samples), V variants of one sample, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.backbone import Backbone
from models.cavmae import MODALITIES, Modality
from models.conditions import variant_names
from models.noise import ruin
from pipelines.resume import Ledger, read_ledger, write_ledger
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.reader import Sample, ShardDataset
from shards.schema import DatasetInfo, ShardInfo, SplitInfo
from shards.writer import Member, Record, write_shard

LARGEST = float(torch.finfo(torch.float16).max)


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
        FeatureShard(Path(shard.name).stem, split, shard, _only(info, split, shard))
        for split in dict.fromkeys(splits or info.splits)
        for shard in info.splits[split].shards
    ]


def _only(info: DatasetInfo, split: str, shard: ShardInfo) -> DatasetInfo:
    one = SplitInfo(samples=shard.samples, present={}, shards=(shard,))
    return info.model_copy(update={"splits": {split: one}})


def read_features_ledger(out: Path, shard: FeatureShard) -> Ledger | None:
    """The result of a finished feature shard, if it is finished."""
    return read_ledger(Ledger, out, shard.name, shard.digest)


def extract_shard(
    shard: FeatureShard,
    backbone: Backbone,
    config: FeatureConfig,
    data: Path,
    out: Path,
    device: str = "cpu",
) -> Ledger:
    """Write ``out/<name>.tar`` with the tokens of a media shard's samples, and then its ledger.

    Members ``audio.npy`` and ``visual.npy``: float16 [V, N, D] before encoder block ``config.depth``, V in
    the order of `models.conditions.variant_names`; only for modalities that the sample has.

    Args:
        backbone: its network on ``device``, in evaluation mode.
        data, out: folders of the media and of the feature shards.

    Raises:
        InputError: a damaged media shard, or tokens that float16 can't hold; names the sample.
        OSError: the shard can't be written.
    """
    if (done := read_features_ledger(out, shard)) is not None:
        return done
    work = _Work(shard, backbone, config, device)
    with reproducible(), torch.inference_mode():
        written = write_shard(out / f"{shard.name}.tar", work.records(shard.open(data)), root=out)
    result = Ledger(digest=shard.digest, shard=written, present=work.present)
    write_ledger(result, out, shard.name)
    return result


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
    """The samples of one shard on their way; how many had which modality."""

    def __init__(self, shard: FeatureShard, backbone: Backbone, config: FeatureConfig, device: str):
        self.backbone, self.config, self.device = backbone, config, device
        self.noise = config.noise.build()
        self.black = backbone.normalisation.black
        self.draws = config.draws if shard.split == "train" else config.eval_draws
        self.variants = variant_names(self.draws)
        self.present: dict[str, int] = dict.fromkeys(MODALITIES, 0)

    def records(self, data: ShardDataset) -> Iterator[Record]:
        """The samples as the writer takes them. So many go through the network together as fill a batch;
        which ones never depends on anything but the shard."""
        step = max(1, self.config.batch_size // len(self.variants))
        for at in range(0, len(data), step):
            samples = [data[i] for i in range(at, min(at + step, len(data)))]
            tokens = {modality: self._tokens(modality, samples) for modality in MODALITIES}
            for sample in samples:
                key = sample.meta.key
                members: dict[str, Member] = {"json": sample.meta}
                members |= {f"{m}.npy": tokens[m][key] for m in MODALITIES if key in tokens[m]}
                yield key, members

    def _tokens(self, modality: Modality, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Tokens [V, N, D] by key of those samples that have the modality."""
        having = [sample for sample in samples if getattr(sample.meta, modality).present]
        self.present[modality] += len(having)
        if not having:
            return {}
        rows = torch.cat([self._inputs(modality, sample) for sample in having])  # [R, ...]
        size = self.config.batch_size
        parts = [self._forward(modality, rows[i : i + size]) for i in range(0, len(rows), size)]
        tokens = torch.cat(parts).view(len(having), len(self.variants), *parts[0].shape[1:])
        for sample, of_sample in zip(having, tokens, strict=True):
            self._refuse_overflow(modality, sample, of_sample)
        halves = tokens.half().cpu().numpy()
        return {sample.meta.key: half for sample, half in zip(having, halves, strict=True)}

    def _forward(self, modality: Modality, rows: Tensor) -> Tensor:
        net = self.backbone.net
        return net.encode(modality, net.embed(modality, rows.to(self.device)), 0, self.config.depth)

    def _inputs(self, modality: Modality, sample: Sample) -> Tensor:
        """All variants of one sample's normalised input: [V, F, 128] or [V, 3, H, W]."""
        x, key, noise = self._clean(modality, sample), sample.meta.key, self.noise
        out = x.new_empty(len(self.variants), *x.shape)
        out[0] = x
        for row, name in enumerate(self.variants[1:], start=1):
            kind, _, draw = name.partition("-")
            severity = noise.both if kind == "both" else noise.alone
            out[row], _ = ruin(
                x, modality, severity, noise, self.config.seed, key, int(draw), floor=self.black
            )
        return out

    def _clean(self, modality: Modality, sample: Sample) -> Tensor:
        sizes, norm = self.backbone.net.config, self.backbone.normalisation
        if modality == "audio":
            return norm.fbank(sample.arrays["audio"], sizes.target_length)
        frames = sample.arrays["frames"]
        return norm.picture(frames, len(frames) // 2, sizes.image_size)

    def _refuse_overflow(self, modality: Modality, sample: Sample, tokens: Tensor) -> None:
        peak = float(tokens.abs().max())
        if not peak <= LARGEST:  # NaN too
            remedy = "look at this sample and at the backbone's weights; choose another depth or backbone"
            message = (
                f"sample '{sample.meta.id}': {modality} tokens reach {peak:g}, float16 ends at {LARGEST:g}"
            )
            raise InputError(message, field="depth", remedy=remedy)
