"""Confidence by hand: calibration error, risk against coverage, temperatures, what ruining does, flags of an audit."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

import avmend
from serving.predict import main as predict_main
from shards.audit_file import FIRST_COLUMNS
from shards.errors import InputError
from shards.reader import ShardDataset
from tests.fixtures.asking import asking_world, saved_run, settings
from tests.fixtures.worlds import World
from trainers.answers import Answers
from trainers.audit_table import ANY, AuditRow, audit_rows, share
from trainers.avqa.config import AVQAConfig
from trainers.calibrate import FEWEST, fit_groups
from trainers.calibrate import main as calibrate_main
from trainers.calibration import CALIBRATION_FILE, Calibration, Temperature, read_calibration
from trainers.classification.config import EvaluateConfig
from trainers.confidence import (
    area_under_risk_coverage,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    risk_coverage,
    selected,
)
from trainers.confidence_rows import COVERAGES, ConfidenceRow, confidence_rows, risk_rows
from trainers.confidence_table import markdown, raised_text
from trainers.evaluate import main as evaluate_main
from trainers.judged import Judged, judged
from trainers.runs import read_run
from trainers.tables import read_rows
from tuning.report.command import report

pytestmark = pytest.mark.integration
CONFIDENCE = np.array([0.95, 0.85, 0.85, 0.30, 0.60])
RIGHT = np.array([True, True, False, False, True])


def test_calibration_error_by_hand():
    # two bins: (0, .5] holds .30 (wrong), (.5, 1] the others: 3 of 4 right at a mean of .8125
    assert expected_calibration_error(CONFIDENCE, RIGHT, 2) == pytest.approx(0.2 * 0.30 + 0.8 * (0.8125 - 0.75))
    # of fifteen every value has its own bin but the two of .85, of which one is right
    fifteen = (0.05 + 2 * abs(0.85 - 0.5) + 0.30 + 0.40) / 5
    assert expected_calibration_error(CONFIDENCE, RIGHT) == pytest.approx(fifteen)
    edges = np.array([1 / 15, 2 / 15, 1.0])  # a bin's upper edge is its own
    assert expected_calibration_error(edges, np.ones(3, bool)) == pytest.approx((14 / 15 + 13 / 15) / 3)


def test_risk_and_coverage_by_hand_and_over_all_orders_of_ties():
    assert risk_coverage(CONFIDENCE, RIGHT) == pytest.approx([0, 0.25, 1 / 3, 0.25, 0.4])
    orders = []
    for order in itertools.permutations(range(5)):
        if all(CONFIDENCE[a] >= CONFIDENCE[b] for a, b in itertools.pairwise(order)):
            wrong = np.cumsum(~RIGHT[list(order)])
            orders.append(np.mean(wrong / np.arange(1, 6)))
    assert len(orders) == 2
    assert area_under_risk_coverage(CONFIDENCE, RIGHT) == pytest.approx(np.mean(orders))
    best = area_under_risk_coverage(np.array([0.9, 0.8, 0.2]), np.array([True, True, False]))
    assert best == pytest.approx(1 / 9), "errors last: what is left is the whole's"


def test_what_abstaining_buys_by_hand():
    assert selected(CONFIDENCE, RIGHT, None) == (1.0, 0.4)
    assert selected(CONFIDENCE, RIGHT, 0.60) == (0.8, 0.25)
    assert selected(CONFIDENCE, RIGHT, 0.99) == (0.0, 0.0)


def test_a_temperature_solves_its_equation():
    """d/dT of the smoothed likelihood is 0 where the expected logit under the model is that under the targets."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (200, 5))
    label = np.where(rng.random(200) < 0.6, logits.argmax(1), rng.integers(0, 5, 200))
    share_wrong = 1 / 202
    targets = np.full((200, 5), share_wrong / 5)
    targets[np.arange(200), label] += 1 - share_wrong

    def slope(temperature: float) -> float:
        shares = torch.softmax(torch.from_numpy(logits) / temperature, dim=1).numpy()
        return float(((shares - targets) * logits).sum())

    assert fit_temperature(logits, label) == pytest.approx(brentq(slope, 0.1, 20), rel=1e-3)


def test_few_samples_all_right_give_no_certainty():
    logits = np.array([[4.0, 0.0, 0.0]] * 5)
    temperature = fit_temperature(logits, np.zeros(5, int))
    # five right and one more, wrong: 1 - e + e / 3 with e = 1 / 7 is the likeliest share
    assert probabilities(logits[0], temperature).max() == pytest.approx(1 - 2 / 21, abs=1e-4)
    with pytest.raises(ValueError, match="no sample"):
        fit_temperature(logits, np.full(5, -1))


def test_likelihoods_are_torchs_and_absent_answers_have_none():
    rng = np.random.default_rng(1)
    logits, label = rng.normal(0, 3, (6, 4)), np.array([0, 1, 2, 3, -1, 2])
    logits[5, 2] = -np.inf  # a choice that was not offered
    found = negative_log_likelihood(logits, label, 1.7)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[:4]) / 1.7, torch.from_numpy(label[:4]), reduction="none"
    )
    assert found[:4] == pytest.approx(expected.numpy())
    assert np.isnan(found[4:]).all()
    shares = probabilities(logits, np.arange(1.0, 7.0))
    assert shares.sum(axis=1) == pytest.approx(np.ones(6))
    assert shares[5, 2] == 0


def some_answers(observed: list[str], spread: float, seed: int = 0) -> Answers:
    """Answers that are right in about 60 % of the cases, with logits of that spread."""
    rng, count = np.random.default_rng(seed), len(observed)
    logits = rng.normal(0, 1, (count, 3))
    label = np.where(rng.random(count) < 0.6, logits.argmax(1), rng.integers(0, 3, count))
    logits = (spread * logits).astype(np.float32)
    return Answers(np.arange(count), logits, label, logits.argmax(1) == label, tuple(observed))


def test_each_observation_has_a_temperature_where_it_has_enough_samples():
    seen = ["complete: nothing ruined"] * 100 + ["complete: audio ruined"] * FEWEST
    seen += ["complete: visual ruined"] * (FEWEST - 1) + ["audio_missing: nothing ruined"] * 3
    groups = fit_groups([{"detected": some_answers(seen, 6.0)}])["detected"]
    assert set(groups) == {"complete", "audio_missing", "complete: nothing ruined", "complete: audio ruined"}
    assert groups["complete"].samples == 100 + 2 * FEWEST - 1
    assert groups["complete"].ece_after < groups["complete"].ece_before
    found = Calibration(weights="", inputs={}, groups={"detected": groups})
    assert found.group("detected", "complete: visual ruined") == ("complete", groups["complete"].temperature)
    assert found.group("detected", "audio_missing: nothing ruined")[0] == "audio_missing"
    assert found.group("detected", "visual_missing: nothing ruined") is None
    assert found.group("situation", "complete") is None
    assert found.temperatures("detected", ["visual_missing"]).tolist() == [1.0]


def test_scaled_logits_keep_their_answers_and_lose_confidence():
    answers = some_answers(["complete"] * 50, 8.0)
    calibration = Calibration(weights="", inputs={}, groups=fit_groups([{"": answers}]))
    before, after = judged(("m", "", 0, "complete", "r"), answers, calibration)
    assert (before.calibrated, after.calibrated) == (False, True)
    assert np.array_equal(before.right, after.right)
    assert after.confidence.mean() < before.confidence.mean()
    assert after.nll.mean() < before.nll.mean()


def a_judged(condition: str, index: list[int], confidence: list[float], right: list[int], **more) -> Judged:
    given = {"method": "m", "selection": "", "seed": 0, "run": "r", "calibrated": False, **more}
    sure = np.array(confidence)
    return Judged(
        condition=condition,
        index=np.array(index),
        right=np.array(right, bool),
        confidence=sure,
        nll=-np.log(sure),
        **given,
    )


def test_what_ruining_does_is_told_on_the_same_samples():
    whole = a_judged("complete", [0, 1, 2], [0.9, 0.5, 0.7], [1, 0, 1])
    ruined = a_judged("audio_missing", [2, 0], [0.8, 0.6], [1, 0])
    first, second = confidence_rows([whole, ruined], 0.6)
    assert (first.change, first.raised, first.coverage, first.error) == (0, 0, pytest.approx(2 / 3), 0)
    assert second.change == pytest.approx((0.1 - 0.3) / 2)
    assert (second.raised, second.coverage, second.error) == (0.5, 1.0, 0.5)
    assert "No condition raised" in markdown([first, second], None)
    louder = a_judged("noisy_audio", [0, 1, 2], [0.95, 0.6, 0.7], [1, 0, 0])
    text = markdown(confidence_rows([whole, louder], 0.6), 0.6)
    assert "m under noisy audio (+5.0)" in text
    assert "| m | 67 %, 0.0 | 100 %, 66.7 |" in text
    assert math.isnan(confidence_rows([ruined])[0].change)


def test_what_ruining_does_is_measured_against_the_method_itself():
    answers = [
        a_judged(condition, [0, 1], [sure, sure], [1, 1], method=method)
        for method, whole, ruined in (("m", 0.9, 0.8), ("m + READ", 0.6, 0.7), ("m + Tent", 0.5, 0.4))
        for condition, sure in (("complete", whole), ("noisy_audio", ruined))
    ]
    rows = confidence_rows(answers)
    assert [row.change for row in rows] == pytest.approx([0, -0.1, 0, 0.1, 0, -0.1])
    assert [row.raised for row in rows] == [0, 0, 0, 1, 0, 0]
    said = "Points by which a condition raised the mean confidence of the same samples: "
    assert raised_text(rows) == said + "m + READ under noisy audio (+10.0)."


def test_a_risk_is_that_of_as_many_answers_as_the_coverage_says():
    sure = [1 - n / 200 for n in range(100)]
    rows = list(risk_rows([a_judged("complete", list(range(100)), sure, [1] * 55 + [0] * 45)]))
    assert [row.coverage for row in rows] == list(COVERAGES)
    wanted = [max(0, n - 55) / n for n in range(5, 101, 5)]  # of the n surest
    assert [row.risk for row in rows] == pytest.approx(wanted)


def test_flags_split_the_samples_and_intervals_are_wilsons():
    flags = [frozenset({"silent", "frozen"}), frozenset(), frozenset({"frozen"}), frozenset(), frozenset()]
    answers = a_judged("complete", [0, 1, 2, 3, 4], [0.9] * 5, [0, 1, 1, 1, 0])
    rows = {row.flag: row for row in audit_rows([answers], flags)}
    assert list(rows) == [ANY, "silent", "frozen"]
    assert (rows[ANY].flagged, rows[ANY].accuracy_flagged) == (2, 0.5)
    assert (rows[ANY].others, rows[ANY].accuracy_others) == (3, pytest.approx(2 / 3))
    assert (rows["silent"].flagged, rows["silent"].accuracy_flagged, rows["silent"].others) == (1, 0.0, 4)
    # Wilson: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    z, p, n = 1.959964, 2 / 3, 3
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert (rows[ANY].low_others, rows[ANY].high_others) == (pytest.approx(low), pytest.approx(high))
    none, *unknown = share(np.empty(0, bool))
    assert none == 0
    assert len(unknown) == 3
    assert all(map(math.isnan, unknown))


@pytest.fixture(scope="module")
def calibrated(world: World, tmp_path_factory, _mlflow_schema) -> tuple[Path, Path, list[str]]:
    """Copies of two runs, calibrated by the command; their folder, the evaluation's, and the clips' ids."""
    root = tmp_path_factory.mktemp("calibrated")
    shutil.copy(_mlflow_schema, root)
    runs = [world.backbone, world.others["prompt"]]
    for run in runs:
        shutil.copytree(run, root / run.name)
    copies = [str(root / run.name) for run in runs]
    data = ["--data", str(world.media)]
    assert calibrate_main([*copies, *data]) == 0
    ids = [meta.id for meta in ShardDataset(world.media, "test").metas]
    (root / "audit").mkdir()
    with (root / "audit" / "audit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIRST_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({"id": name, "flags": "silent;blurred" if i < 4 else ""} for i, name in enumerate(ids))
    out = root / "results"
    command = [*copies, *data, "--out", str(out), "--by", "audit", "--audit", str(root / "audit")]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert evaluate_main([*command, "--set", "abstain_below=0.5", "conditions=[complete,audio_missing]"]) == 0
    return root, out, ids


def test_an_evaluation_tells_confidence_before_and_after_and_by_flag(calibrated):
    root, out, _ = calibrated
    rows = read_rows((out / "confidence.csv").read_text(), ConfidenceRow)
    accuracies = {
        (r["method"], r["selection"], r["condition"]): r for r in csv.DictReader((out / "results.csv").open())
    }
    assert {row.scaling for row in rows} == {"none", "temperature"}
    for row in rows:
        theirs = accuracies[row.method, row.selection, row.condition]
        assert (row.accuracy, row.samples) == (float(theirs["accuracy"]), int(theirs["samples"]))
    flagged = [r for r in read_rows((out / "by_audit.csv").read_text(), AuditRow) if r.condition == "complete"]
    assert {r.flag for r in flagged} == {ANY, "silent", "blurred"}
    for row in flagged:
        whole = float(accuracies[row.method, row.selection, "complete"]["accuracy"])
        together = row.flagged * row.accuracy_flagged + row.others * row.accuracy_others
        assert (row.flagged, together) == (4, pytest.approx(whole * (row.flagged + row.others)))
    text = (out / "results.md").read_text()
    for said in ("### Confidence", " → ", "Abstaining below a probability of 0.5", "Flags among 20 clips: silent 4"):
        assert said in text
    page = report(root, clips=0)
    for said in ("Confidence: expected calibration error", "what the audit flagged, complete", "wrong among answered"):
        assert said in page


def test_predictions_have_the_calibrated_probabilities_of_their_observation(calibrated, world: World, tmp_path):
    from tests.fixtures.clips import ingested_clips

    media = ingested_clips(tmp_path)
    run = read_run(calibrated[0] / world.others["prompt"].name)
    calibration = read_calibration(run)
    model = avmend.load(run.folder, "cpu", data=media, backbone=None, abstain_below=0.999)
    found = model.predict(tmp_path / "silent.mp4")
    group = calibration.groups["detected"][found.calibrated]
    assert found.calibrated.startswith("audio_missing")
    assert found.temperature == group.temperature
    scaled = torch.softmax(torch.from_numpy(found.logits).double() / group.temperature, dim=0)
    assert found.probabilities == pytest.approx(scaled.numpy(), abs=1e-6)
    assert found.abstains
    assert found.as_dict()["calibrated"] == found.calibrated
    bare = avmend.load(world.others["prompt"], "cpu", data=media).predict(tmp_path / "silent.mp4")
    assert (bare.calibrated, bare.temperature, bare.abstains) == (None, 1.0, False)
    assert bare.logits.tolist() == found.logits.tolist()


def test_predict_says_what_abstaining_bought_on_validation_data(calibrated, world: World, tmp_path, capsys):
    from tests.fixtures.clips import ingested_clips

    media = ingested_clips(tmp_path)
    run = read_run(calibrated[0] / world.backbone.name)
    evaluation = run.recipe.task.evaluate([run], EvaluateConfig(data=world.media, split="val"))
    sure, right = [], []
    for _, _, by_selection in evaluation.answers(lambda *counts, **labels: None):
        for logits, hit, seen in zip(
            by_selection[""].logits, by_selection[""].right, by_selection[""].observed, strict=True
        ):
            shares = torch.softmax(
                torch.from_numpy(logits).double() / read_calibration(run).groups[""][seen].temperature, 0
            )
            sure.append(float(shares.max()))
            right.append(bool(hit))
    limit = round(float(np.median(sure)), 2)
    kept = [hit for share, hit in zip(sure, right, strict=True) if share >= limit]
    said = (
        f"answered {100 * len(kept) / len(sure):.0f} % of its validation samples, {100 * (1 - np.mean(kept)):.1f} % of"
    )
    words = [str(run.folder), str(tmp_path / "silent.mp4"), "--data", str(media), "--device", "cpu"]
    assert predict_main([*words, "--abstain-below", str(limit)]) == 0
    out = capsys.readouterr()
    assert said in out.err
    assert "[calibrated: audio_missing]" in out.out
    assert predict_main([*words, "--abstain-below", "1.5"]) == 2
    assert "is no probability" in capsys.readouterr().err


def test_a_calibration_is_made_once_and_of_these_weights_alone(calibrated, world: World, tmp_path, capsys):
    folder = tmp_path / world.backbone.name
    shutil.copytree(calibrated[0] / world.backbone.name, folder)
    file = folder / CALIBRATION_FILE
    before = file.stat().st_mtime_ns
    assert calibrate_main([str(folder), "--data", str(world.media)]) == 0
    assert file.stat().st_mtime_ns == before
    assert calibrate_main([str(folder), "--data", str(world.media), "--set", "split=test"]) == 2
    assert "temperatures are not fitted to test data" in capsys.readouterr().err
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "weights": "0" * 12}))
    with pytest.raises(InputError, match="of other weights"):
        read_calibration(read_run(folder))
    file.write_text("{")
    with pytest.raises(InputError, match="is no calibration"):
        read_calibration(read_run(folder))
    assert calibrate_main([str(folder), "--data", str(world.media)]) == 0
    assert json.loads(file.read_text()) == record


def test_questions_are_calibrated_by_what_is_there(mlflow_root):
    tmp_path = mlflow_root.parent
    asking_world(tmp_path, {"train": 9, "val": 18, "test": 12})
    run = saved_run(tmp_path, "avst", AVQAConfig(**settings(tmp_path)))
    assert calibrate_main([str(run)]) == 0
    groups = read_calibration(read_run(run)).groups[""]
    assert set(groups) == {"complete", "audio_missing", "visual_missing"}
    # three questions a clip; of the 18 two are silent and two dark, and are so when complete, too
    gone = {"audio_missing": 16 + 2, "visual_missing": 16 + 2}
    assert {name: groups[name].samples / 3 for name in gone} == gone
    assert groups["complete"].samples == 3 * 14
    assert evaluate_main([str(run), "--out", str(mlflow_root / "out"), "--set", "rates=[50]"]) == 0
    rows = read_rows((mlflow_root / "out" / "confidence.csv").read_text(), ConfidenceRow)
    results = list(csv.DictReader((mlflow_root / "out" / "results.csv").open()))
    mine = {r["missing"]: float(r["accuracy"]) for r in results if r["run"] == "avst" and r["kind"] == "all"}
    assert {r.condition: r.accuracy for r in rows if r.scaling == "none"} == {
        "complete": mine["none"],
        "audio_missing": mine["audio"],
        "visual_missing": mine["visual"],
    }


def test_an_audit_of_other_clips_is_refused(calibrated, world: World, tmp_path, capsys):
    root = calibrated[0]
    text = (root / "audit" / "audit.csv").read_text().splitlines()
    (tmp_path / "audit.csv").write_text("\n".join(text[:-1]) + "\n")
    command = [str(world.backbone), "--out", str(root / "other"), "--audit"]
    assert evaluate_main([*command, str(tmp_path), "--set", "conditions=[complete]"]) == 2
    assert "does not know 1 of the clips" in capsys.readouterr().err
    assert evaluate_main([*command, str(tmp_path / "nothing")]) == 2
    assert "no audit.csv here" in capsys.readouterr().err


def test_temperatures_are_positive():
    with pytest.raises(ValueError, match="greater than 0"):
        Temperature(temperature=0, samples=1, ece_before=0, ece_after=0)
