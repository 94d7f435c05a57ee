"""Linear probes of sequence features: what they hold of seconds and places before any network trains.

Everything is fitted on train clips and asked of others. Shapes: N clips, T steps, P cells, D widths, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.multilabel_metrics import mean_average_precision

DECAY = 1e-4  # of the probes' weights, over a mean loss of standardised features
STEPS = 60  # of LBFGS


@dataclass(frozen=True)
class Probed:
    """Features of clips and the truth about them; NaN features and truth where a clip lacks either.

    Attributes:
        audio: float32 [N, T, Da].
        visual: float32 [N, P, Dv], the mean over steps.
        levels: float32 [N, T, C], dB, NaN where a class is silent.
        cells: bool [N, P, C].
        seen: int [N], how many are in the picture.
        heard, looked: bool [N], which clips have sound (picture) and a target that tells of it.
    """

    audio: np.ndarray
    visual: np.ndarray
    levels: np.ndarray
    cells: np.ndarray
    seen: np.ndarray
    heard: np.ndarray
    looked: np.ndarray


@dataclass(frozen=True)
class Figure:
    """One thing that features may hold.

    Attributes:
        modality: whose features.
        what: in words.
        right: bool, one per item that was asked; of figures that are no share [0].
        floor: share right without looking: the most frequent train answer, or a coin.
        value: the figure, if it is no share of items.
    """

    modality: str
    what: str
    right: np.ndarray
    floor: float
    value: float = float("nan")


class Linear:
    """A linear map of standardised features [N, D] to [N, K], fitted by LBFGS from zero: the same result every time.

    Args:
        rows: train features.
        loss: of outputs [N, K], a mean.
        outputs: K.
    """

    def __init__(self, rows: np.ndarray, loss, outputs: int):
        x = torch.from_numpy(rows).float()
        self.mean, self.std = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
        self.weight = torch.zeros(x.shape[1] + 1, outputs, requires_grad=True)
        x = self._standardised(x)
        optimizer = torch.optim.LBFGS([self.weight], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(x @ self.weight) + DECAY * self.weight[:-1].square().sum()
            value.backward()
            return value

        optimizer.step(closure)

    def _standardised(self, x: Tensor) -> Tensor:
        return F.pad((x - self.mean) / self.std, (0, 1), value=1.0)

    @torch.no_grad()
    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return (self._standardised(torch.from_numpy(rows).float()) @ self.weight).numpy()


def several(rows: np.ndarray, wanted: np.ndarray) -> Linear:
    """Which of C classes, each by itself: `wanted` bool [N, C]."""
    target = torch.from_numpy(wanted).float()
    return Linear(rows, lambda out: F.binary_cross_entropy_with_logits(out, target), wanted.shape[1])


def one_of(rows: np.ndarray, wanted: np.ndarray, classes: int) -> Linear:
    """Which one: `wanted` int [N]."""
    target = torch.from_numpy(wanted).long()
    return Linear(rows, lambda out: F.cross_entropy(out, target), classes)


def known_values(rows: np.ndarray, wanted: np.ndarray) -> Linear:
    """Values [N, C] where they are not NaN, by least squares."""
    target = torch.from_numpy(wanted).float()
    known = ~target.isnan()
    target = target.nan_to_num()

    def loss(out: Tensor) -> Tensor:
        return ((out - target).square() * known).sum() / known.sum().clamp_min(1)

    return Linear(rows, loss, wanted.shape[1])


def figures(train: Probed, test: Probed) -> Iterator[Figure]:
    """All figures of a set of features."""
    if train.heard.any() and test.heard.any():
        yield from _of_sound(train, test)
    if train.looked.any() and test.looked.any():
        yield from _of_pictures(train, test)


def _of_sound(train: Probed, test: Probed) -> Iterator[Figure]:
    rows, levels = _steps(train)
    others, truth = _steps(test)
    sounding, sounds = ~np.isnan(levels), ~np.isnan(truth)
    logits = several(rows, sounding)(others)
    yield Figure(
        "audio",
        "who sounds in a second, mAP",
        np.zeros(0, bool),
        float(sounds.mean(axis=0)[sounds.any(axis=0)].mean()),
        mean_average_precision(sounds, logits)[0],
    )
    yield Figure(
        "audio",
        "who sounds in a second, all right",
        ((logits > 0) == sounds).all(axis=1),
        _share((sounds == _most_frequent(sounding)).all(axis=1)),
    )
    guess = known_values(rows, (levels + 30) / 10)(others)
    off = 10 * np.abs(guess - (truth + 30) / 10)[sounds]
    mean = np.nanmean(levels)
    yield Figure(
        "audio",
        "loudness, mean error in dB",
        np.zeros(0, bool),
        float(np.abs(truth - mean)[sounds].mean()),
        float(off.mean()),
    )
    shape = test.levels[test.heard].shape
    probable = (1 / (1 + np.exp(-logits.astype(np.float64)))).reshape(shape)
    guess = guess.reshape(shape)
    true = test.levels[test.heard]
    yield Figure("audio", "louder of two", np.array(list(_louder(true, probable, guess)), bool), 0.5)
    yield Figure("audio", "first of two", np.array(list(_first(true, probable)), bool), 0.5)
    yield _count("audio", "how many are heard", train, test)


def _of_pictures(train: Probed, test: Probed) -> Iterator[Figure]:
    rows, others = (p.visual[p.looked].reshape(-1, p.visual.shape[-1]) for p in (train, test))
    wanted, truth = (p.cells[p.looked].reshape(-1, p.cells.shape[-1]) for p in (train, test))
    logits = several(rows, wanted)(others)
    prevalence = truth.mean(axis=0)[truth.any(axis=0)]
    yield Figure(
        "visual",
        "who is seen in a cell, mAP",
        np.zeros(0, bool),
        float(prevalence.mean()),
        mean_average_precision(truth, logits)[0],
    )
    yield Figure(
        "visual",
        "who is seen in a cell, all right",
        ((logits > 0) == truth).all(axis=1),
        _share((truth == _most_frequent(wanted)).all(axis=1)),
    )
    single, alone = wanted.sum(axis=1) == 1, truth.sum(axis=1) == 1
    classes = wanted[single].argmax(axis=1)
    found = one_of(rows[single], classes, wanted.shape[1])(others[alone]).argmax(axis=1)
    usual = np.bincount(classes, minlength=wanted.shape[1]).argmax()
    yield Figure(
        "visual",
        "who it is, in a cell with one",
        found == truth[alone].argmax(axis=1),
        _share(truth[alone].argmax(axis=1) == usual),
    )
    yield _count("visual", "how many are seen", train, test)


def _steps(clips: Probed) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N * T, D] and levels [N * T, C] of the clips that are heard."""
    return clips.audio[clips.heard].reshape(-1, clips.audio.shape[-1]), clips.levels[clips.heard].reshape(
        -1, clips.levels.shape[-1]
    )


def _most_frequent(sets: np.ndarray) -> np.ndarray:
    """The most frequent row of bool [N, C]."""
    rows, counts = np.unique(sets, axis=0, return_counts=True)
    return rows[counts.argmax()]


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else float("nan")


def _pairs(levels: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Clip and two classes that both sound in it, the one with the lower number first."""
    for clip, there in enumerate((~np.isnan(levels)).any(axis=1)):
        names = np.flatnonzero(there).tolist()
        yield from ((clip, a, b) for i, a in enumerate(names) for b in names[i + 1 :])


def _louder(levels: np.ndarray, probable: np.ndarray, guess: np.ndarray) -> Iterator[bool]:
    """Whether the louder of two is found: by the mean of the guessed levels, weighted by how probably it sounds."""
    weights = probable / probable.sum(axis=1, keepdims=True)
    guessed = (weights * guess).sum(axis=1)
    for clip, a, b in _pairs(levels):
        true = np.nanmax(levels[clip, :, a]) - np.nanmax(levels[clip, :, b])
        if true:
            yield bool((guessed[clip, a] > guessed[clip, b]) == (true > 0))


def _first(levels: np.ndarray, probable: np.ndarray) -> Iterator[bool]:
    """Whether the one who begins earlier is found: by the expected number of steps before it sounds."""
    before = np.cumprod(1 - probable, axis=1).sum(axis=1)
    for clip, a, b in _pairs(levels):
        begins = [int(np.flatnonzero(~np.isnan(levels[clip, :, c]))[0]) for c in (a, b)]
        if begins[0] != begins[1]:
            yield bool((before[clip, a] < before[clip, b]) == (begins[0] < begins[1]))


def _count(modality: str, what: str, train: Probed, test: Probed) -> Figure:
    """How many, from mean and maximum over steps or cells."""
    (rows, wanted), (others, truth) = (_counted(modality, clips) for clips in (train, test))
    most = int(max(wanted.max(), truth.max())) + 1
    found = one_of(rows, wanted, most)(others).argmax(axis=1)
    return Figure(modality, what, found == truth, _share(truth == np.bincount(wanted).argmax()))


def _counted(modality: str, clips: Probed) -> tuple[np.ndarray, np.ndarray]:
    known = clips.heard if modality == "audio" else clips.looked
    values = (clips.audio if modality == "audio" else clips.visual)[known]
    rows = np.concatenate([values.mean(axis=1), values.max(axis=1)], axis=1)
    heard = (~np.isnan(clips.levels)).any(axis=1).sum(axis=1)
    return rows, (heard if modality == "audio" else clips.seen)[known]
