"""Sweeps of question answering without Ray: what they refuse, the protocol of a trial, the tables as papers print
them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from shards.errors import InputError
from shards.questions import load_questions
from tests.fixtures.asking import AVR, RMM, asking_world, saved_run, settings
from tests.fixtures.sweeps import an_outcome, sweep_config
from trainers.avqa import protocol as avqa_protocol
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig
from trainers.avqa.predict import load_answerer
from trainers.runs import read_run
from tuning.config import AnswerProtocol, check
from tuning.paper_tables import as_printed, place_of
from tuning.prerequisites import _features
from tuning.test_answers import BLIND, CASES, FILE, Answer, _answers, answered, run_protocol, save_answers, summary
from tuning.trial_metrics import TrialMetrics
from tuning.trial_result import save_outcome, saved_outcome

pytestmark = pytest.mark.unit
ASKED = {
    "corpus": {"clips": 20},
    "solos": {"clips": 16},
    "features": {"extractor": "cavmae"},
}
SWEEP = {
    "recipe": "avqa",
    "data": {"question_data": ASKED},
    "settings": {"recovery": "rmm_avr"},
    "space": {"recovery_sizes.rmm.slots": [2, 4]},
    "search": {"metric": "val_accuracy_mean"},
}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"space": {"recovery_sizes.rmm.slotss": [2]}},
            ["'space.recovery_sizes.rmm.slotss'", "did you mean 'slots'"],
        ),
        ({"data": {"corpus": {"clips": 3}}}, ["trains on questions", "data.question_data"]),
        (
            {"recipe": "finetune", "settings": {}, "space": {"lr": [1e-3]}},
            ["asks no questions", "data.question_data"],
        ),
        ({"data": {"question_data": {**ASKED, "solos": None}}}, ["need solos"]),
        ({"data": {"question_data": {**ASKED, "features": {}}}}, ["features.extractor=cavmae"]),
        (
            {"data": {"question_data": {**ASKED, "solos": {"clips": 3, "finetune": {"epoch": 1}}}}},
            ["data.question_data.solos.finetune.epoch", "did you mean 'epochs'"],
        ),
        ({"protocol": {"steps": [0]}}, ["protocol.steps"]),
        ({"data": {"question_data": ASKED, "media": "."}}, ["give one of"]),
    ],
)
def test_what_can_not_be_is_refused_before_any_work(tmp_path, changes, parts):
    with pytest.raises(InputError) as caught:
        check(sweep_config(tmp_path, **{**SWEEP, **changes}))
    assert [part for part in parts if part not in str(caught.value)] == [], caught.value


@pytest.mark.parametrize("recipe", ["avqa", "rmm", "avr"])
def test_question_recipes_take_data_and_questions_and_no_tokens(tmp_path, recipe):
    changes = {"recipe": recipe, "settings": {}, "space": {"lr": [1e-3]}, "search": {}}
    config = sweep_config(tmp_path, **{**SWEEP, **changes})
    check(config)
    assert _features(config) == []
    made = config.trial({"lr": 1e-3}, data="d", questions="q")
    assert (str(made.data), str(made.questions)) == ("d", "q")  # type: ignore[attr-defined]


def test_a_run_before_the_trials_gets_data_and_questions_too(tmp_path):
    before = {"network_from": {"recipe": "avqa", "recovery": "zero"}}
    config = sweep_config(tmp_path, **{**SWEEP, "data": {"question_data": ASKED, "before": before}})
    check(config)
    made = config.trial({"recovery_sizes.rmm.slots": 2}, data="d", questions="q", network_from="n")
    assert isinstance(made, AVQAConfig)
    assert str(made.network_from) == "n"


def test_the_mean_over_cases_counts_all_three_equally():
    told = TrialMetrics()
    case = {"val_accuracy": 0.9, "val_accuracy_audio_missing": 0.3}
    assert "val_accuracy_mean" not in (told("avqa", 1, case) or {})
    line = told("avqa", 2, {**case, "val_accuracy_visual_missing": 0.6})
    assert line is not None
    assert line["val_accuracy_mean"] == pytest.approx(0.6)


@pytest.fixture(scope="module")
def sat(tmp_path_factory) -> tuple[Path, Path]:
    """A run of RMM + AVR, and the place of its trial after the protocol."""
    root = tmp_path_factory.mktemp("sat")
    asking_world(root, {"train": 10, "val": 4, "test": 12})
    sizes = {"rmm": RMM, "avr": {**AVR, "timesteps": 10}}
    config = settings(root, recovery="rmm_avr", recovery_sizes=sizes)
    run = saved_run(root, "run", AVQAConfig.model_validate(config))
    place = root / "trial"
    place.mkdir()
    run_protocol(run, place, AnswerProtocol(steps=(1, 2, 3, 50)))
    return run, place


def _answer(predictor, clips, protocol, missing):
    return avqa_protocol.right_answers(predictor, clips, protocol, missing, 3, 0, torch.device("cpu"))


def test_the_exam_says_what_evaluation_says(sat):
    run, place = sat
    predictor = load_answerer(read_run(run), torch.device("cpu"))
    clips, questions = Clips(predictor.config.data), load_questions(predictor.config.questions)
    protocol = avqa_protocol.EvaluationProtocol.of(questions, "test", clips, 0)
    right = {m: _answer(predictor, clips, protocol, m) for m in avqa_protocol.scored_cases(predictor)}
    cases = avqa_protocol.answered_cases(protocol, right, (0, 100), {})
    theirs = [
        *avqa_protocol.results_of(predictor, protocol, list(cases)),
        *avqa_protocol.blind_results(protocol, avqa_protocol.blind_cases(questions, protocol)),
    ]
    cases = {"none": "complete", "audio": "audio missing", "visual": "visual missing"}
    wanted = {
        (cases[r.missing], r.kind): (r.accuracy, r.samples)
        for r in theirs
        if r.run and r.rate == (0 if r.missing == "none" else 100)
    }
    wanted |= {
        (BLIND, r.kind): (r.accuracy, r.samples)
        for r in theirs
        if r.method == "question look-up" and r.missing == "none"
    }
    found = {(a.case, a.kind): (a.accuracy, a.samples) for a in answered(place) if not a.steps}
    assert found == wanted
    values = [found[case, "all"][0] for case in CASES]
    assert summary(answered(place))["protocol/mean"] == pytest.approx(sum(values) / 3)


def test_other_steps_are_those_that_the_diffusion_can_take_besides_its_own(sat):
    _, place = sat
    assert {a.steps for a in answered(place)} == {0, 1, 2}, "from timestep 3, in 3 steps: its own; 50: too many"
    assert {a.case for a in answered(place) if a.steps} <= set(CASES) - {"complete"}


def test_other_steps_are_those_of_the_diffusion_while_it_answers(sat):
    run, _ = sat
    predictor = load_answerer(read_run(run), torch.device("cpu"))
    answers = _answers(predictor, AnswerProtocol(steps=(1, 2)), torch.device("cpu"))
    taken = {(answer.steps, predictor.diffusion.steps) for answer in answers}
    assert taken == {(0, 3), (1, 1), (2, 2)}
    assert predictor.diffusion.steps == 3, "its own again"


def test_answers_of_earlier_versions_with_other_steps_are_made_anew(sat, tmp_path):
    run, place = sat
    wanted = answered(place)
    save_outcome(tmp_path, an_outcome(0, {}, 0.5))
    own = [asdict(answer) for answer in wanted if not answer.steps]
    (tmp_path / FILE).write_text(json.dumps(own))
    assert len(answered(tmp_path)) == len(own), "with the run's own steps alone they are right"
    assert saved_outcome(tmp_path) is not None
    wrong = [asdict(replace(answer, accuracy=0.0)) for answer in wanted]
    (tmp_path / FILE).write_text(json.dumps(wrong))
    assert (answered(tmp_path), saved_outcome(tmp_path)) == ((), None)
    run_protocol(run, tmp_path, AnswerProtocol(steps=(1, 2, 3, 50)))
    assert answered(tmp_path) == wanted
    assert saved_outcome(tmp_path) is not None


def test_an_exam_is_sat_once(sat):
    run, place = sat
    before = (place / FILE).stat().st_mtime_ns
    run_protocol(run, place, AnswerProtocol())
    assert (place / FILE).stat().st_mtime_ns == before


def test_tables_as_printed(tmp_path):
    config = sweep_config(tmp_path, **{**SWEEP, "space": {"recovery_sizes.rmm.slots": [2, 4], "seed": [0, 1]}})
    found = []
    for number, (slots, seed) in enumerate([(2, 0), (2, 1), (4, 0), (4, 1)]):
        value = 0.25 * slots / 2 + 0.1 * seed
        metrics = {"val_accuracy_mean": value, "val_accuracy": value}
        metrics |= {f"val_accuracy_{m}_missing": value for m in ("audio", "visual")}
        params = {"recovery_sizes.rmm.slots": slots, "seed": seed}
        found.append(an_outcome(number, params, value, metrics=metrics, curve=(value,)))
        answers = [Answer(case, 0, "all", value, 8) for case in (*CASES, BLIND)]
        answers += [
            Answer("audio missing", 1, "all", 0.125, 8),
            Answer("complete", 0, "Audio Naming", 1.0, 2),
        ]
        place = place_of(tmp_path, found[-1])
        place.mkdir(parents=True)
        save_answers(place, answers)
    text = as_printed(tmp_path, found, config)
    assert "| 2 | 30.0 ± 7.1 | 30.0 ± 7.1 | 30.0 ± 7.1 | 30.0 ± 7.1 |\n" in text, "validation"
    assert "| **4** |" in text, "the protocol's line that validation chose"
    assert "| 2 | 1 | 12.5 ± 0.0 |  |" in text, "one step; without a figure for the picture"
    assert "| recovery_sizes.rmm.slots | all | Audio Naming |" in text
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + 4 * 6
    assert (tmp_path / "answers.png").stat().st_size > 5000


def test_two_parameters_are_crossed(tmp_path):
    config = sweep_config(tmp_path, space={"length": [1, 2], "depth": [0, 1]})
    points = [(length, depth) for length in (1, 2) for depth in (0, 1)]
    found = [
        an_outcome(n, {"length": a, "depth": b}, 0.1 * a + 0.5 * b, epoch_seconds=float(3 - b))
        for n, (a, b) in enumerate(points)
    ]
    text = as_printed(tmp_path, found, config)
    assert "| length | depth=0 | depth=1 | depth=0, s/epoch | depth=1, s/epoch |" in text
    assert "| 2 | 20.0 | 70.0 | 3.00 | 2.00 |" in text
    assert as_printed(tmp_path, found[:3], config) == "", "no whole grid"
