"""Sequence features of clips by the clip's id, standardised at the loader's edge.

Shapes: T time steps, R rows of a visual step, Da, Dv widths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.avqa.batch import FeatureSpec
from models.cavmae import MODALITIES, Modality
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, Statistics
from shards.sequence import sequence_spec

RESIDENT = 10**9  # bytes of shards up to which they are kept in memory unless told otherwise


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation per channel over the training clips.

    Attributes:
        audio, visual: (mean, std), each with as many values as the modality's width.
    """

    audio: tuple[tuple[float, ...], tuple[float, ...]]
    visual: tuple[tuple[float, ...], tuple[float, ...]]

    @classmethod
    def of(cls, info: DatasetInfo) -> Scale:
        """The statistics in dataset.json; a modality that the training split lacks stays as it is."""
        spec = sequence_spec(info)
        return cls(
            _values(info.normalisation.audio, spec.audio), _values(info.normalisation.visual, spec.visual)
        )

    def tensors(self, modality: Modality) -> tuple[Tensor, Tensor]:
        """Mean and 1 / std, [D]; a channel that never varies is only centred."""
        mean, std = (torch.tensor(x) for x in getattr(self, modality))
        return mean, torch.where(std > 0, 1 / std, 1.0)


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
        scale: what the features are standardised with; None: their own statistics.
        resident: keep what was read in memory (float16); None: if the shards are below a GB.

    Raises:
        InputError: no sequence features there, or one id in two splits.
    """

    def __init__(self, folder: Path, scale: Scale | None = None, resident: bool | None = None):
        self.folder, self.info = Path(folder), DatasetInfo.load(folder)
        self.spec, self.scale = feature_spec(self.info), scale or Scale.of(self.info)
        self._splits = {name: ShardDataset(folder, name, info=self.info) for name in self.info.splits}
        self._place: dict[str, tuple[str, int]] = {}
        for name, data in self._splits.items():
            for i, meta in enumerate(data.metas):
                if (other := self._place.setdefault(meta.id, (name, i))) != (name, i):
                    message = f"clip '{meta.id}' is in split '{name}' and in split '{other[0]}'"
                    raise InputError(message, file=folder, field="id", remedy="give every clip its own id")
        size = sum(shard.bytes for split in self.info.splits.values() for shard in split.shards)
        self._kept: dict[str, dict[str, np.ndarray]] | None = (
            {} if (size < RESIDENT if resident is None else resident) else None
        )
        self._scale = {m: self.scale.tensors(m) for m in MODALITIES}

    def __contains__(self, clip: str) -> bool:
        return clip in self._place

    def present(self, clip: str) -> tuple[bool, bool]:
        """Which modalities the clip has at its source, in the order of `MODALITIES`."""
        split, i = self._place[clip]
        meta = self._splits[split].metas[i]
        return meta.audio.present, meta.visual.present

    def left(self, clip: str, absent: Modality | None = None) -> bool:
        """Whether the clip has anything besides `absent`."""
        there = zip(MODALITIES, self.present(clip), strict=True)
        return any(present and m != absent for m, present in there)

    def load(self, clips: Iterable[str]) -> None:
        """Read clips now, if they are to be kept in memory: loader processes then share them."""
        if self._kept is not None:
            for clip in clips:
                self._arrays(clip)

    def features(self, clip: str) -> dict[Modality, Tensor]:
        """Standardised features of the modalities that the clip has: audio [T, Da], visual [T, R, Dv]."""
        arrays = self._arrays(clip)
        return {m: self._standard(m, arrays[m]) for m in MODALITIES if m in arrays}

    def frame(self, clip: str, step: int) -> Tensor:
        """One standardised visual step of a clip that has pictures, [R, Dv]; no more than that is read."""
        if self._kept is not None:
            return self._standard("visual", self._arrays(clip)["visual"][step])
        split, i = self._place[clip]
        return self._standard("visual", self._splits[split].rows(i, lambda *_: step).arrays["visual"])

    def _arrays(self, clip: str) -> dict[str, np.ndarray]:
        if self._kept is not None and clip in self._kept:
            return self._kept[clip]
        split, i = self._place[clip]
        arrays = self._splits[split][i].arrays
        if self._kept is not None:
            self._kept[clip] = arrays
        return arrays

    def _standard(self, modality: Modality, x: np.ndarray) -> Tensor:
        mean, inverse = self._scale[modality]
        return (torch.from_numpy(x).float() - mean) * inverse
