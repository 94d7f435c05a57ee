"""Metrics of clips with several labels, as VGGSounder scores them: sets, top-k sets, areas under curves.

Symbols: N clips, C classes. Rates are 0 to 1 (published tables show them times 100). "Micro" pools the
decisions of all clips and classes; "macro" is the mean over classes, a class without any decision counting 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from shards.modality_labels import ModalityLabels

KS = (1, 3, 5, 10)
# Which modality tags count as true in which of VGGSounder's test sets.
TRUTHS = {
    "a": ("A", "AV"),
    "v": ("V", "AV"),
    "av": ("AV",),
    "a only": ("A",),
    "v only": ("V",),
    "all": ("A", "V", "AV"),
}


def vggsounder_scores(
    clips: Sequence[ModalityLabels], classes: Sequence[str], scores: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """VGGSounder's figures of a model's scores: `score_metrics` of each of its test sets, and "mu".

    Args:
        clips: their labels.
        classes: in the order of the scores.
        scores: of sound ("a"), picture ("v") and both ("av"): clip -> scores, float [C]. As published, clips without
            scores are left out of a test set, and have an empty prediction in ``mu``; "a only" takes those of "a".

    Raises:
        ValueError: a test set has no clips with scores.
    """
    found = {}
    for of in (name for name in TRUTHS if name != "all"):
        own = scores[of.partition(" ")[0]]
        ids, true = truth(clips, classes, of)
        rows = [row for row, name in enumerate(ids) if name in own]
        if not rows:
            raise ValueError(f"no clip of the test set '{of}' has scores")
        found[of] = score_metrics(true[rows], np.stack([own[ids[row]] for row in rows]))
    ids, true = truth(clips, classes, "all")
    nothing = np.zeros(len(classes), dtype=bool)
    best = {
        name: np.stack([top_sets(own[clip][None], 1)[0] if clip in own else nothing for clip in ids])
        for name, own in scores.items()
    }
    return found | {"mu": modality_confusion(true, best["av"], best["a"], best["v"])}


def truth(clips: Sequence[ModalityLabels], classes: Sequence[str], of: str) -> tuple[list[str], np.ndarray]:
    """Ids and labels, bool [N, C], of one of `TRUTHS`; clips without such a label are left out.

    Raises:
        KeyError: ``of`` is none of `TRUTHS`; a label is none of the classes.
    """
    place = {name: index for index, name in enumerate(classes)}
    tags = TRUTHS[of]
    chosen = {clip.id: [place[name] for name, tag in clip.labels.items() if tag in tags] for clip in clips}
    chosen = {name: labels for name, labels in chosen.items() if labels}
    true = np.zeros((len(chosen), len(classes)), dtype=bool)
    for row, labels in zip(true, chosen.values(), strict=True):
        row[labels] = True
    return list(chosen), true


def label_sets(ids: Iterable[str], predicted: Mapping[str, Iterable[str]], classes: Sequence[str]) -> np.ndarray:
    """Predicted labels, bool [N, C], of the clips ``ids``; a clip without a prediction has the empty set.

    Raises:
        KeyError: a predicted label is none of the classes.
    """
    place = {name: index for index, name in enumerate(classes)}
    names = list(ids)
    found = np.zeros((len(names), len(classes)), dtype=bool)
    for row, name in zip(found, names, strict=True):
        row[[place[label] for label in predicted.get(name, ())]] = True
    return found


def top_sets(scores: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` best-scored classes, bool [N, C], of scores [N, C]; of equal scores the first class."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, best, True, axis=1)
    return found


def set_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Metrics of predicted sets, bool [N, C], against true ones.

    ``accuracy``: the very same set; ``hit``: at least one right class; ``precision``, ``recall``, ``f1`` and
    ``jaccard``: micro; ``f1_macro``. What would divide by zero is 0.

    Raises:
        ValueError: the shapes differ, or there are no clips.
    """
    _check(true, predicted)
    right, wrong, missed = _decisions(true, predicted)
    hits, extra, lost = right.sum(), wrong.sum(), missed.sum()
    by_class = [_share(2 * r, 2 * r + w + m) for r, w, m in zip(right, wrong, missed, strict=True)]
    return {
        "accuracy": float((true == predicted).all(axis=1).mean()),
        "hit": float((true & predicted).any(axis=1).mean()),
        "precision": _share(hits, hits + extra),
        "recall": _share(hits, hits + lost),
        "f1": _share(2 * hits, 2 * hits + extra + lost),
        "f1_macro": float(np.mean(by_class)),
        "jaccard": _share(hits, hits + extra + lost),
    }


def score_metrics(true: np.ndarray, scores: np.ndarray, ks: Sequence[int] = KS) -> dict[str, float]:
    """Metrics of scores, float [N, C]: those of `set_metrics` of the top-k sets ("hit@3"), and areas under curves.

    ``auc_roc`` and ``auc_pr`` (average precision) are means over the classes that some clip has and some has not.

    Raises:
        ValueError: the shapes differ, there are no clips, or a score is NaN.
    """
    _check(true, scores)
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: leave out the clips that have none")
    found = {f"{name}@{k}": value for k in ks for name, value in set_metrics(true, top_sets(scores, k)).items()}
    mixed = [c for c in range(true.shape[1]) if 0 < true[:, c].sum() < len(true)]
    roc = [area_under_roc(true[:, c], scores[:, c]) for c in mixed]
    precision = [average_precision(true[:, c], scores[:, c]) for c in mixed]
    return found | {"auc_roc": _mean(roc), "auc_pr": _mean(precision)}


def area_under_roc(true: np.ndarray, scores: np.ndarray) -> float:
    """The share of pairs (with the class, without it) in the right order, ties half; bool and float [N]."""
    with_it, without = np.sort(scores[true]), np.sort(scores[~true])
    below = np.searchsorted(without, with_it, side="left")
    ties = np.searchsorted(without, with_it, side="right") - below
    return float((below + ties / 2).sum() / (len(with_it) * len(without)))


def average_precision(true: np.ndarray, scores: np.ndarray) -> float:
    """Precision at each threshold, weighted by the recall that it adds; equal scores are one threshold. [N]"""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # the last of each run of equal scores
    recall = hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits[last] / (last + 1)))


def class_average_precisions(true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`average_precision` of every class, float [C]; NaN of a class that no clip has.

    Args:
        true: bool [N, C].
        scores: float [N, C].

    Raises:
        ValueError: the shapes differ, there are no clips, or a score is NaN.
    """
    _check(true, scores)
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: leave out the clips that have none")
    columns = range(true.shape[1])
    return np.array([average_precision(true[:, c], scores[:, c]) if true[:, c].any() else np.nan for c in columns])


def mean_average_precision(true: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """mAP as published (mean over all classes; one that no clip has counts 0, as scikit-learn's average precision
    does and CAV-MAE's tables with it), and over the classes that occur.

    Raises:
        ValueError: as `class_average_precisions`.
    """
    found = class_average_precisions(true, scores)
    occurring = found[~np.isnan(found)]
    return float(occurring.sum() / len(found)), _mean(occurring.tolist())


def modality_confusion(true: np.ndarray, both: np.ndarray, audio: np.ndarray, visual: np.ndarray) -> dict[str, float]:
    """VGGSounder's mu: how often a modality alone hits a true class where both together do not.

    Args:
        true: all labels of the clips, whatever their modality, bool [N, C].
        both, audio, visual: predicted from both, from sound alone, from the picture alone, bool [N, C]; of scores
            the published figures take the best class (`top_sets` with k = 1).

    Returns:
        ``mu_a``, ``mu_v`` and ``mu_av`` (each of the two alone hits), shares of all clips.

    Raises:
        ValueError: the shapes differ, or there are no clips.
    """
    for predicted in (both, audio, visual):
        _check(true, predicted)
    missed, heard, seen = ~(true & both).any(axis=1), (true & audio).any(axis=1), (true & visual).any(axis=1)
    return {
        "mu_a": float((missed & heard).mean()),
        "mu_v": float((missed & seen).mean()),
        "mu_av": float((missed & heard & seen).mean()),
    }


def _decisions(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, wrong and missed decisions per class, int [C] each."""
    return (true & predicted).sum(axis=0), (~true & predicted).sum(axis=0), (true & ~predicted).sum(axis=0)


def _check(true: np.ndarray, other: np.ndarray) -> None:
    if true.shape != other.shape:
        raise ValueError(f"{other.shape} predictions for {true.shape} labels")
    if not len(true):
        raise ValueError("no clips")


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
