"""Metrics of several labels per clip: right values computed by hand, and those of scikit-learn on random input."""

from __future__ import annotations

import numpy as np
import pytest

from shards.modality_labels import ModalityLabels
from trainers.multilabel_metrics import (
    area_under_roc,
    average_precision,
    label_sets,
    modality_confusion,
    score_metrics,
    set_metrics,
    top_sets,
    truth,
    vggsounder_scores,
)

pytestmark = pytest.mark.unit

CLASSES = ("dog", "rain", "drum")
CLIPS = (
    ModalityLabels(id="x", labels={"dog": "AV", "rain": "A"}),
    ModalityLabels(id="y", labels={"drum": "V"}),
    ModalityLabels(id="z", labels={"rain": "A", "drum": "AV"}),
)


def bits(*rows: str) -> np.ndarray:
    return np.array([[mark == "1" for mark in row] for row in rows])


@pytest.mark.parametrize(
    ("of", "ids", "rows"),
    [
        ("a", ["x", "z"], ["110", "011"]),
        ("v", ["x", "y", "z"], ["100", "001", "001"]),
        ("av", ["x", "z"], ["100", "001"]),
        ("a only", ["x", "z"], ["010", "010"]),
        ("v only", ["y"], ["001"]),
        ("all", ["x", "y", "z"], ["110", "001", "011"]),
    ],
)
def test_truth_of_a_modality_leaves_out_clips_without_it(of: str, ids: list[str], rows: list[str]):
    found, true = truth(CLIPS, CLASSES, of)
    assert found == ids
    assert (true == bits(*rows)).all()


def test_sets_by_hand():
    true, predicted = bits("110", "001", "011", "100"), bits("110", "101", "100", "000")
    # right 2 + 1 + 0 + 0, wrong 0 + 1 + 1 + 0, missed 0 + 0 + 2 + 1; classes: dog 1/2/1, rain 1/0/1, drum 1/0/1
    assert set_metrics(true, predicted) == pytest.approx(
        {
            "accuracy": 1 / 4,
            "hit": 2 / 4,
            "precision": 3 / 5,
            "recall": 3 / 6,
            "f1": 6 / 11,
            "f1_macro": (2 / 5 + 2 / 3 + 2 / 3) / 3,
            "jaccard": 3 / 8,
        }
    )
    nothing = set_metrics(true, np.zeros_like(true))
    assert set(nothing.values()) == {0.0}


def test_a_clip_without_a_prediction_has_the_empty_set():
    assert (label_sets(["x", "y"], {"x": ["drum"]}, CLASSES) == bits("001", "000")).all()
    with pytest.raises(KeyError):
        label_sets(["x"], {"x": ["cow"]}, CLASSES)


def test_top_sets_take_the_first_of_equal_scores():
    scores = np.array([[0.1, 0.5, 0.5, 0.2], [0.0, 0.0, 0.0, 0.0]])
    assert (top_sets(scores, 1) == bits("0100", "1000")).all()
    assert (top_sets(scores, 3) == bits("0111", "1110")).all()
    assert top_sets(scores, 10).all()


def test_areas_by_hand():
    true, scores = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.8, 0.1])
    # pairs: 0.9 > 0.8, 0.9 > 0.1, 0.8 = 0.8 (half), 0.8 > 0.1
    assert area_under_roc(true, scores) == pytest.approx(3.5 / 4)
    # thresholds 0.9 (recall 1/2, precision 1), 0.8 (recall 1, precision 2/3), 0.1 (no more recall)
    assert average_precision(true, scores) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_scores_by_hand():
    true = bits("110", "010")
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    found = score_metrics(true, scores, ks=(1, 2))
    assert found["hit@1"] == 1 / 2
    assert found["recall@1"] == 1 / 3
    assert found["precision@2"] == 2 / 4
    assert found["accuracy@2"] == 0
    assert (found["auc_roc"], found["auc_pr"]) == (1.0, 1.0)  # of dog alone: everybody has rain, nobody the drum
    with pytest.raises(ValueError, match="NaN"):
        score_metrics(true, np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="no clips"):
        set_metrics(true[:0], true[:0])
    with pytest.raises(ValueError, match="predictions for"):
        set_metrics(true, true[:1])


def test_modality_confusion_by_hand():
    true = bits("100", "010", "001", "110", "100")
    both = bits("100", "100", "000", "001", "010")
    audio = bits("100", "010", "001", "100", "000")
    visual = bits("100", "000", "001", "010", "100")
    # clip 1: both hit; 2: sound alone; 3 and 4: each alone; 5: the picture alone
    assert modality_confusion(true, both, audio, visual) == {"mu_a": 3 / 5, "mu_v": 3 / 5, "mu_av": 2 / 5}


def test_scores_of_all_test_sets_by_hand():
    def best(name: str) -> np.ndarray:
        return np.array([float(name == other) for other in CLASSES])

    scores = {
        "a": {"x": best("rain"), "z": best("drum")},  # y has none
        "v": {"x": best("rain"), "y": best("drum"), "z": best("dog")},
        "av": {"x": best("drum"), "y": best("drum"), "z": best("dog")},
    }
    found = vggsounder_scores(CLIPS, CLASSES, scores)
    assert {name: metrics.get("hit@1") for name, metrics in found.items()} == {
        "a": 1.0,  # x: rain of dog and rain; z: drum of rain and drum
        "v": 1 / 3,  # y alone
        "av": 0.0,
        "a only": 1 / 2,  # x: rain; z has rain, not the drum
        "v only": 1.0,
        "mu": None,
    }
    # of all labels both together miss x and z; sound hits x and z, the picture x (by rain, which it has)
    assert found["mu"] == {"mu_a": 2 / 3, "mu_v": 1 / 3, "mu_av": 1 / 3}
    with pytest.raises(ValueError, match="no clip of the test set 'v only' has scores"):
        vggsounder_scores(CLIPS, CLASSES, {**scores, "v": {"x": best("dog"), "z": best("dog")}})


def test_equal_to_scikit_learn_on_random_labels():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    true, predicted = rng.random((60, 7)) < 0.3, rng.random((60, 7)) < 0.4
    scores = np.round(rng.random((60, 7)), 1)  # with ties
    found = set_metrics(true, predicted)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    for average, name in (("micro", "f1"), ("macro", "f1_macro")):
        assert found[name] == pytest.approx(metrics.f1_score(true, predicted, average=average, zero_division=0))
    for name in ("precision", "recall", "jaccard"):
        assert found[name] == pytest.approx(getattr(metrics, f"{name}_score")(true, predicted, average="micro"))
    areas = score_metrics(true, scores)
    assert areas["auc_roc"] == pytest.approx(metrics.roc_auc_score(true, scores, average="macro"))
    assert areas["auc_pr"] == pytest.approx(metrics.average_precision_score(true, scores, average="macro"))
