"""Sequence features of clips by their number: as stored (float16, or float32), NaN where absent.

Bytes go from the shards straight into the tensor that is asked for; small corpora stay in memory.
Shapes: B clips, T time steps, R rows of a visual step, Da, Dv widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import compress, repeat
from math import prod
from mmap import PAGESIZE
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.avqa.batch import FeatureSpec
from models.avqa.scale import Scale
from models.settings import MODALITIES, Modality
from shards.errors import InputError
from shards.positions import Positions
from shards.reader import ShardDataset
from shards.schema import DatasetInfo, Statistics
from shards.sequence import StepChoice, sequence_dtype, sequence_spec
from shards.store import url_of
from trainers.avqa.buffers import Buffers, huge_empty
from trainers.config import TrainConfig
from trainers.data import at_hand

ALL_STEPS = StepChoice()
Channels = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each
RESIDENT = 10**9  # bytes of shards up to which they are kept in memory unless told otherwise


def scale_of_left(clips: Clips, numbers: Iterable[int], present: np.ndarray) -> Scale:
    """The statistics of those clips, of what of them is `present` (bool [clips, 2]) alone."""
    found = {m: _measured(clips, m, [n for n in numbers if present[n, i]]) for i, m in enumerate(MODALITIES)}
    return Scale(found["audio"], found["visual"])


def _measured(clips: Clips, modality: Modality, numbers: Sequence[int]) -> Channels:
    """Mean and deviation of each channel over all rows, in double precision."""
    width = clips.shapes[modality][-1]
    if not numbers:
        return _values(None, width)
    total, squares, rows = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64), 0
    for number in numbers:
        x = clips.features(modality, [number]).double().flatten(0, -2)
        total, squares, rows = total + x.sum(dim=0), squares + x.square().sum(dim=0), rows + len(x)
    mean = total / rows
    deviation = (squares / rows - mean.square()).clamp_min(0).sqrt()
    return tuple(mean.tolist()), tuple(deviation.tolist())


def scale_of(info: DatasetInfo, standardise: bool = True) -> Scale:
    """The statistics in dataset.json; a modality that the training split lacks stays as it is, and both without
    `standardise`."""
    spec, found = sequence_spec(info), info.normalisation
    if not standardise:
        return Scale(_values(None, spec.audio), _values(None, spec.visual))
    return Scale(_values(found.audio, spec.audio), _values(found.visual, spec.visual))


def _values(of: Statistics | None, width: int) -> Channels:
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


def experiment(config: TrainConfig) -> str:
    """The MLflow experiment of a question-answering run: its media dataset's name."""
    return media_name(config.data)


class Clips:
    """The clips of a dataset of sequence features, whatever their split: a question's split decides.

    Args:
        folder: of the feature shards, or their URL: then all splits are fetched.
        resident: keep what was read in memory (float16); None: if the shards are below a GB. Otherwise the
            shards are mapped: pages that were read count as the process's resident memory, and the system
            takes them back when it needs them.
        choice: which of the stored time steps are taken; no others are read.

    Attributes:
        number: of each clip by its id, which the reading methods take.
        present: which modalities each clip has at its source, bool [clips, 2], in the order of `MODALITIES`.
        shapes: of one clip's features by modality, audio (T, Da) and visual (T, R, Dv).

    Raises:
        InputError: no sequence features there, or one id in two splits.
    """

    def __init__(self, folder: Path, resident: bool | None = None, choice: StepChoice = ALL_STEPS):
        folder = at_hand(folder) if url_of(folder) else folder
        self.folder, self.info = Path(folder), DatasetInfo.load(folder)
        self.stored, self.dtype = feature_spec(self.info), np.dtype(sequence_dtype(self.info))
        self.taken = choice.of(self.stored.steps)
        self.spec = spec = replace(self.stored, steps=len(self.taken)) if self.taken is not None else self.stored
        self._splits = [ShardDataset(folder, name, info=self.info) for name in self.info.splits]
        self.number = Positions(*(data.ids for data in self._splits))
        if (twice := self.number.repeated()) is not None:
            first, second = (self._place(number)[0].split for number in twice)
            message = f"clip '{self.number.text(twice[0])}' is in split '{second}' and in split '{first}'"
            raise InputError(message, file=self.folder, field="id", remedy="give every clip its own id")
        self.present = np.concatenate([data.present for data in self._splits])
        self.shapes: dict[Modality, tuple[int, ...]] = {
            "audio": (spec.steps, spec.audio),
            "visual": (spec.steps, spec.rows, spec.visual),
        }
        size = sum(shard.bytes for split in self.info.splits.values() for shard in split.shards)
        size = size * spec.steps // self.stored.steps
        self._kept: dict[Modality, Tensor] = {}
        if size < RESIDENT if resident is None else resident:
            self._kept = {m: huge_empty(len(self.present), *s, dtype=self.dtype) for m, s in self.shapes.items()}
        self._read = {m: np.zeros(len(self.present), bool) for m in MODALITIES}
        self._buffers = Buffers(self.dtype)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of the features."""
        return torch.float32 if self.dtype == np.float32 else torch.float16

    def _place(self, clip: int) -> tuple[ShardDataset, int]:
        """The split of a clip, and its position there."""
        split, at = self.number.place(clip)
        return self._splits[split], at

    def __contains__(self, clip: str) -> bool:
        return clip in self.number

    def left(self, clip: str, *absent: Modality | None) -> bool:
        """Whether the clip has anything besides `absent`."""
        there = zip(MODALITIES, self.present[self.number[clip]], strict=True)
        return any(present and m not in absent for m, present in there)

    def load(self, modality: Modality, clips: Iterable[int]) -> None:
        """Read a modality of clips now, if it is to be kept in memory: loader processes then share it."""
        if not self._kept:
            return
        features, read, wanted = self._kept[modality], self._read[modality], np.unique(np.fromiter(clips, np.int64))
        if new := wanted[~read[wanted]].tolist():
            self._copy(modality, new, [features[clip].numpy() for clip in new])
            read[new] = True
            self.close()

    def close(self) -> None:
        """Let go of the shards' files; the next read opens them again."""
        for data in self._splits:
            data.close()

    def features(self, modality: Modality, clips: Sequence[int], there: np.ndarray | None = None) -> Tensor:
        """Features of one modality, [B, ...] as stored; NaN for a clip that lacks it, or is not `there` (bool [B]): of
        those nothing is read."""
        out = self._buffers.empty(len(clips), *self.shapes[modality])
        there = np.ones(len(clips), dtype=bool) if there is None else there
        if not self._kept:
            self._copy(modality, [clip if has else None for clip, has in zip(clips, there, strict=True)], out.numpy())
            return out
        self.load(modality, compress(clips, there))
        torch.index_select(self._kept[modality], 0, torch.tensor(clips), out=out)
        if not there.all():
            out[torch.from_numpy(~there)] = torch.nan  # in place of memory that was never filled
        return out

    def frames(self, clips: Sequence[int], steps: Sequence[int]) -> Tensor:
        """One visual step of each clip, [B, R, Dv]; no more than these are read."""
        out = self._buffers.empty(len(clips), *self.shapes["visual"][1:])
        if self._kept:
            self.load("visual", clips)
            rows = torch.tensor(clips) * self.spec.steps + torch.tensor(steps)
            return torch.index_select(self._kept["visual"].flatten(0, 1), 0, rows, out=out)
        self._copy("visual", clips, out.numpy(), steps)
        return out

    def _copy(
        self,
        modality: Modality,
        clips: Sequence[int | None],
        out: Iterable[np.ndarray],
        steps: Iterable[int | None] = repeat(None),
    ) -> None:
        """Features of each clip, or one step of them, into the arrays of `out`, in order; NaN for None."""
        asked = zip(clips, steps, strict=False)
        views = [None if clip is None else self._views(modality, clip, step) for clip, step in asked]
        for room, those in zip(out, views, strict=True):  # all views first: the disk reads them side by side
            if those is None:
                room.fill(np.nan)
                continue
            whole = len(those) == 1
            for i, view in enumerate(those):
                _copy_bits(view, room if whole else room[i])

    def _views(self, modality: Modality, clip: int, step: int | None) -> list[np.ndarray] | None:
        """What the shards hold: all that is asked for, or a view for each of the steps taken; None where the clip lacks
        the modality."""
        if not self.present[clip, MODALITIES.index(modality)]:
            return None
        if self.taken is None:
            return [self._view(modality, clip, step)]
        if step is not None:
            return [self._view(modality, clip, self.taken[step])]
        if prod(self.shapes[modality][1:]) * self.dtype.itemsize < PAGESIZE:  # all of it lies in a few pages
            return [self._view(modality, clip, None)[self.taken]]
        return [self._view(modality, clip, row) for row in self.taken]

    def _view(self, modality: Modality, clip: int, row: int | None) -> np.ndarray:
        """A clip's features, or one row of them, where they lie in the shard."""
        data, i = self._place(clip)
        view = data.view(i, modality, row)
        shape = (self.stored.steps, *self.shapes[modality][1:])[row is not None :]
        if (view.shape, view.dtype) != (shape, self.dtype):
            raise data.bad(i, f"'{modality}' is {view.dtype} {view.shape}, not {self.dtype} {shape}")
        return view


def _copy_bits(view: np.ndarray, room: np.ndarray) -> None:
    """By an arithmetic loop: memcpy is slower where the two are aligned differently to a page."""
    bits = np.dtype(f"i{view.itemsize}")
    np.positive(view.view(bits), out=room.view(bits))
