"""What clips are to be taken for: a class each, or a share of every class (several labels, smoothing, mixtures).

Shapes: S samples of a split, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from shards.errors import InputError
from shards.split import SplitData

Loss = Literal["ce", "bce"]


@dataclass(frozen=True)
class TargetForm:
    """How labels become what a loss takes.

    Attributes:
        several: clips may have several labels.
        smoothing: s: every class gets s / C, a clip's own ones 1 - s (CAV-MAE's rule, for either loss).
        shares: shares of all classes even where a clip has one label and nothing is smoothed (mixtures have them).
    """

    several: bool = False
    smoothing: float = 0.0
    shares: bool = False

    @property
    def vector(self) -> bool:
        """Targets are float32 [C], not an index."""
        return self.several or self.shares or self.smoothing > 0


ONE_LABEL = TargetForm()


class Targets:
    """The labels of a split's samples in the order of a model's outputs: 4 bytes a label, and where samples have
    several 8 a sample.

    Args:
        data: shards of one split.
        vocabulary: the model's labels, C of them.
        form: of the targets.

    Raises:
        InputError: a label that the model does not know, or several labels on one sample where one is wanted.
    """

    def __init__(self, data: SplitData, vocabulary: Sequence[str], form: TargetForm = ONE_LABEL):
        self.form, self.classes = form, len(vocabulary)
        labels = data.column("labels")
        counts, self._places = _counts(labels), _places(labels, vocabulary)
        odd = np.flatnonzero(counts != 1)
        if not form.several and len(odd):
            remedy = "give each clip one label, or train with loss=bce"
            message = f"sample '{data.ids[int(odd[0])]}' has {counts[odd[0]]} labels"
            raise InputError(message, file=data.folder, field="label", remedy=remedy)
        self._size = len(counts)
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]) if len(odd) else None
        if len(unknown := np.flatnonzero(self._places < 0)):
            at = int(unknown[0])
            first = at if self._starts is None else int(np.searchsorted(self._starts, at, side="right")) - 1
            message = f"sample '{data.ids[first]}': unknown label '{pc.list_flatten(labels)[at]}'"
            raise InputError(message, file=data.folder, field="label", remedy=f"known labels: {_few(vocabulary)}")

    def __len__(self) -> int:
        return self._size

    def of(self, i: int) -> np.ndarray:
        """Classes of a sample, int32 [its labels]."""
        begin, end = (i, i + 1) if self._starts is None else self._starts[i : i + 2]
        return self._places[begin:end]

    def __getitem__(self, i: int) -> Tensor:
        """Of a sample: its class, int64 [], or shares of all classes, float32 [C]."""
        if not self.form.vector:
            return torch.tensor(int(self._places[i]))
        out = torch.full((self.classes,), self.form.smoothing / self.classes)
        out[torch.from_numpy(self.of(i)).long()] = 1 - self.form.smoothing
        return out

    def batch(self, positions: Sequence[int]) -> Tensor:
        """Of several samples, int64 [B] or float32 [B, C]."""
        return torch.stack([self[i] for i in positions])

    def mixture(self, first: int, second: int, share: float) -> Tensor:
        """Of a mixture of two samples, float32 [C]: s / C everywhere, and 1 - s by the share of each, added up where
        both have a class (Gong et al. 2023, the released data loader)."""
        out = torch.full((self.classes,), self.form.smoothing / self.classes)
        for i, part in ((first, share), (second, 1 - share)):
            out[torch.from_numpy(self.of(i)).long()] += part * (1 - self.form.smoothing)
        return out

    def counts(self) -> np.ndarray:
        """Samples that have each class, int64 [C]."""
        return np.bincount(self._places, minlength=self.classes)

    def balance(self) -> np.ndarray:
        """Weights by which samples are drawn so that rare classes come often, float64 [S]: the sum of
        1000 / (count + 0.01) over a sample's classes (CAV-MAE's ``gen_weight_file``)."""
        weights = 1000.0 / (self.counts() + 0.01)
        own = weights[self._places]
        return own if self._starts is None else np.add.reduceat(own, self._starts[:-1])


def _counts(labels: pa.ChunkedArray) -> np.ndarray:
    """How many labels each sample has, int32 [S]; like the next one part by part, so that little is held besides."""
    found, end = np.empty(len(labels), np.int32), 0
    for chunk in labels.chunks:
        begin, end = end, end + len(chunk)
        found[begin:end] = pc.list_value_length(chunk)
    return found


def _places(labels: pa.ChunkedArray, vocabulary: Sequence[str]) -> np.ndarray:
    """The class of every label, int32 [labels]; -1: of none."""
    known = pa.array(vocabulary, pa.string())
    found, end = np.empty(sum(len(chunk.flatten()) for chunk in labels.chunks), np.int32), 0
    for names in (chunk.flatten() for chunk in labels.chunks):
        begin, end = end, end + len(names)
        found[begin:end] = pc.index_in(names, known).fill_null(-1)
    return found


def several_labels(data: SplitData) -> bool:
    """Whether some sample has more than one label."""
    return bool(pc.any(pc.greater(pc.list_value_length(data.column("labels")), 1)).as_py())


def _few(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
