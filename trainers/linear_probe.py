"""Linear probes of sequence features: what they hold of seconds and places before any network trains.

Everything is fitted on train clips and asked of others. Shapes: N clips, T steps, P cells, D widths, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.multilabel_metrics import mean_average_precision

DECAY = 1e-4  # of the probes' weights, over a mean loss of standardised features
STEPS = 60  # of LBFGS
MIDDLE_DB, SCALE_DB = -30.0, 10.0  # of levels, as they are fitted


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

    def of(self, chosen: np.ndarray) -> Probed:
        """Those clips alone, bool [N]."""
        return Probed(**{name: x[chosen] for name, x in vars(self).items()})


@dataclass(frozen=True)
class Figure:
    """One thing that features may hold.

    Attributes:
        modality: whose features.
        what: in words.
        value: share right, mAP, or dB.
        floor: the same without looking: of the most frequent train answer, a coin, a random order, the mean level.
        right: bool, one per item that was asked; None where the value is no share of items.
    """

    modality: str
    what: str
    value: float
    floor: float
    right: np.ndarray | None = None

    @classmethod
    def share(cls, modality: str, what: str, right: np.ndarray, floor: float) -> Figure:
        """Of items that are right or wrong."""
        return cls(modality, what, _mean(right), floor, right)


class Linear:
    """A linear map of standardised features [N, D] to [N, K], fitted by LBFGS from zero: the same result every time.

    Args:
        rows: train features.
        loss: of outputs [N, K], a mean.
        outputs: K.
    """

    def __init__(self, rows: np.ndarray, loss: Callable[[Tensor], Tensor], outputs: int):
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
        yield from _of_sound(*(clips.of(clips.heard) for clips in (train, test)))
    if train.looked.any() and test.looked.any():
        yield from _of_pictures(*(clips.of(clips.looked) for clips in (train, test)))


def _of_sound(train: Probed, test: Probed) -> Iterator[Figure]:
    rows, others = _flat(train.audio), _flat(test.audio)
    levels, truth = _flat(train.levels), _flat(test.levels)
    logits = several(rows, ~np.isnan(levels))(others)
    guess = MIDDLE_DB + SCALE_DB * known_values(rows, (levels - MIDDLE_DB) / SCALE_DB)(others)
    yield from _sets("audio", "who sounds in a second", ~np.isnan(levels), ~np.isnan(truth), logits)
    error, floor = (_mean(np.abs(values - truth)[~np.isnan(truth)]) for values in (guess, np.nanmean(levels)))
    yield Figure("audio", "how loud, mean error in dB", error, floor)
    probable = (1 / (1 + np.exp(-logits.astype(np.float64)))).reshape(test.levels.shape)
    louder = list(_louder(test.levels, probable, guess.reshape(test.levels.shape)))
    yield Figure.share("audio", "louder of two", np.array(louder, bool), 0.5)
    yield Figure.share("audio", "first of two", np.array(list(_first(test.levels, probable)), bool), 0.5)
    heard = [(~np.isnan(clips.levels)).any(axis=1).sum(axis=1) for clips in (train, test)]
    yield _count("audio", "how many are heard", train.audio, test.audio, *heard)


def _of_pictures(train: Probed, test: Probed) -> Iterator[Figure]:
    rows, others = _flat(train.visual), _flat(test.visual)
    wanted, truth = _flat(train.cells), _flat(test.cells)
    yield from _sets("visual", "who is seen in a cell", wanted, truth, several(rows, wanted)(others))
    one, alone = wanted.sum(axis=1) == 1, truth.sum(axis=1) == 1
    if one.any() and alone.any():
        classes, own = wanted[one].argmax(axis=1), truth[alone].argmax(axis=1)
        found = one_of(rows[one], classes, wanted.shape[1])(others[alone]).argmax(axis=1)
        floor = _mean(own == np.bincount(classes).argmax())
        yield Figure.share("visual", "who it is, in a cell with one", found == own, floor)
    yield _count("visual", "how many are seen", train.visual, test.visual, train.seen, test.seen)


def _sets(modality: str, what: str, wanted: np.ndarray, truth: np.ndarray, logits: np.ndarray) -> Iterator[Figure]:
    """Of sets of classes, bool [R, C]: mAP over the classes that occur, and how often the whole set is right."""
    occurring = truth.any(axis=0)
    precision = mean_average_precision(truth[:, occurring], logits[:, occurring])[0]
    yield Figure(modality, f"{what}, mAP", precision, _mean(truth[:, occurring]))
    sets, counts = np.unique(wanted, axis=0, return_counts=True)
    floor = _mean((truth == sets[counts.argmax()]).all(axis=1))
    yield Figure.share(modality, f"{what}, all right", ((logits > 0) == truth).all(axis=1), floor)


def _count(
    modality: str, what: str, rows: np.ndarray, others: np.ndarray, wanted: np.ndarray, truth: np.ndarray
) -> Figure:
    """How many, from mean and maximum of rows [N, R, D] over R."""
    both = [np.concatenate([x.mean(axis=1), x.max(axis=1)], axis=1) for x in (rows, others)]
    found = one_of(both[0], wanted, int(wanted.max()) + 1)(both[1]).argmax(axis=1)
    return Figure.share(modality, what, found == truth, _mean(truth == np.bincount(wanted).argmax()))


def _flat(x: np.ndarray) -> np.ndarray:
    """[N, R, D] to [N * R, D]."""
    return x.reshape(-1, x.shape[-1])


def _mean(x: np.ndarray) -> float:
    return float(x.mean()) if x.size else float("nan")


def _pairs(levels: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Clip and two classes that both sound in it."""
    for clip, there in enumerate((~np.isnan(levels)).any(axis=1)):
        yield from ((clip, a, b) for a, b in itertools.combinations(np.flatnonzero(there).tolist(), 2))


def _louder(levels: np.ndarray, probable: np.ndarray, guess: np.ndarray) -> Iterator[bool]:
    """Whether the louder of two is found: by the mean of the guessed levels, weighted by how probably it sounds."""
    guessed = (probable * guess).sum(axis=1) / probable.sum(axis=1)
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
