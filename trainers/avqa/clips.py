"""Sequence features of clips by their number: float16 as stored, NaN where absent.

Bytes go from the shards straight into the tensor that is asked for; small corpora stay in memory.
Shapes: B clips, T time steps, R rows of a visual step, Da, Dv widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.avqa.batch import FeatureSpec
from models.avqa.scale import Scale
from models.cavmae import MODALITIES, Modality
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, Statistics
from shards.sequence import sequence_spec

RESIDENT = 10**9  # bytes of shards up to which they are kept in memory unless told otherwise


def scale_of(info: DatasetInfo) -> Scale:
    """The statistics in dataset.json; a modality that the training split lacks stays as it is."""
    spec, found = sequence_spec(info), info.normalisation
    return Scale(_values(found.audio, spec.audio), _values(found.visual, spec.visual))


def _values(of: Statistics | None, width: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (of.mean, of.std) if of is not None else ((0.0,) * width, (1.0,) * width)


def feature_spec(info: DatasetInfo) -> FeatureSpec:
    """Sizes of a dataset's sequence features, as the networks take them.

    Raises:
        InputError: it holds something else.
    """
    return FeatureSpec(**sequence_spec(info).model_dump())


def media_name(features: Path) -> str:
    """The name of the media dataset that a folder of features lies in; its own if it lies elsewhere."""
    return features.parent.parent.name if features.parent.name == "features" else features.name


class Clips:
    """The clips of a dataset of sequence features, whatever their split: a question's split decides.

    Args:
        folder: of the feature shards.
        resident: keep what was read in memory (float16); None: if the shards are below a GB.

    Attributes:
        number: of each clip by its id, which the reading methods take.
        present: which modalities each clip has at its source, bool [clips, 2], in the order of `MODALITIES`.
        shapes: of one clip's features by modality, audio (T, Da) and visual (T, R, Dv).

    Raises:
        InputError: no sequence features there, or one id in two splits.
    """

    def __init__(self, folder: Path, resident: bool | None = None):
        self.folder, self.info = Path(folder), DatasetInfo.load(folder)
        self.spec = spec = feature_spec(self.info)
        self.number: dict[str, int] = {}
        self._places: list[tuple[ShardDataset, int]] = []
        for name in self.info.splits:
            self._add(ShardDataset(folder, name, info=self.info))
        metas = [data.metas[i] for data, i in self._places]
        there = [[getattr(meta, m).present for m in MODALITIES] for meta in metas]
        self.present = np.array(there, bool).reshape(-1, len(MODALITIES))
        self.shapes: dict[Modality, tuple[int, ...]] = {
            "audio": (spec.steps, spec.audio),
            "visual": (spec.steps, spec.rows, spec.visual),
        }
        size = sum(shard.bytes for split in self.info.splits.values() for shard in split.shards)
        self._kept: dict[Modality, Tensor] = {}
        if size < RESIDENT if resident is None else resident:
            self._kept = {m: blank(len(metas), shape) for m, shape in self.shapes.items()}
        self._read: set[int] = set()

    def _add(self, data: ShardDataset) -> None:
        """Number the clips of a split."""
        for i, meta in enumerate(data.metas):
            if (number := self.number.setdefault(meta.id, len(self._places))) != len(self._places):
                other = self._places[number][0].split
                message = f"clip '{meta.id}' is in split '{data.split}' and in split '{other}'"
                raise InputError(message, file=self.folder, field="id", remedy="give every clip its own id")
            self._places.append((data, i))

    def __contains__(self, clip: str) -> bool:
        return clip in self.number

    def left(self, clip: str, absent: Modality | None = None) -> bool:
        """Whether the clip has anything besides `absent`."""
        there = zip(MODALITIES, self.present[self.number[clip]], strict=True)
        return any(present and m != absent for m, present in there)

    def load(self, clips: Iterable[int]) -> None:
        """Read clips now, if they are to be kept in memory: loader processes then share them."""
        if self._kept:
            for clip in sorted(set(clips) - self._read):
                for m, features in self._kept.items():
                    self._fill(m, clip, features[clip].numpy())
                self._read.add(clip)

    def features(self, modality: Modality, clips: Sequence[int]) -> Tensor:
        """Features of one modality, float16 [B, ...] as stored; NaN for a clip that lacks it."""
        if self._kept:
            self.load(clips)
            return self._kept[modality].index_select(0, torch.tensor(clips))
        out = blank(len(clips), self.shapes[modality])
        for row, clip in zip(out.numpy(), clips, strict=True):
            self._fill(modality, clip, row)
        return out

    def frames(self, clips: Sequence[int], steps: Sequence[int]) -> Tensor:
        """One visual step of each clip, float16 [B, R, Dv]; no more than these are read."""
        if self._kept:
            self.load(clips)
            rows = torch.tensor(clips) * self.spec.steps + torch.tensor(steps)
            return self._kept["visual"].flatten(0, 1).index_select(0, rows)
        out = blank(len(clips), self.shapes["visual"][1:])
        for row, clip, step in zip(out.numpy(), clips, steps, strict=True):
            self._fill("visual", clip, row, step)
        return out

    def _fill(self, modality: Modality, clip: int, out: np.ndarray, step: int | None = None) -> None:
        if self.present[clip, MODALITIES.index(modality)]:
            data, i = self._places[clip]
            data.read_into(i, modality, out, step)
        else:
            out.fill(np.nan)


def blank(clips: int, shape: Sequence[int]) -> Tensor:
    """Room for `shape` of as many clips: float16 [clips, ...], not filled."""
    return torch.from_numpy(np.empty((clips, *shape), np.float16))  # numpy asks for huge pages
