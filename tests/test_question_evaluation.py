"""Evaluation of question answering: masks, missing rates, figures by hand, one command for all runs."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.batch import take_away
from models.settings import MODALITIES
from shards.errors import InputError
from shards.questions import load_questions
from tests.fixtures.asking import KINDS, RMM, asking_world, saved_run, settings
from trainers.avqa.accuracy import ALL, scores
from trainers.avqa.clips import Clips
from trainers.avqa.config import AVQAConfig, QuestionEvaluation
from trainers.avqa.figure import drawing
from trainers.avqa.items import AnswerableQuestions, QuestionItems
from trainers.avqa.masks import draw, lost
from trainers.avqa.predict import load_answerer
from trainers.avqa.results import CONDITIONS, Line, Result, markdown, regained, summarise
from trainers.bootstrap import wilson
from trainers.evaluate import evaluate, main
from trainers.evaluation_cache import RECORD, written_files
from trainers.runs import CONFIG_FILE, read_run
from trainers.scored import ANSWERS_FILE
from trainers.tracking import PARENT, Store
from tuning.report.asked_clips import answers_of

unit, integration = pytest.mark.unit, pytest.mark.integration
CLIPS, RATES = 27, (0, 30, 70, 100)
GONE = {"audio": 3, "visual": 3}  # silent and dark ones among the 27
NOTES = {"questions": 10, "clips": 4, "split": "test", "seed": 0, "unasked": 2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained runs of one network: two seeds of zero fill, slots, a specialist for either modality."""
    root = tmp_path_factory.mktemp("asking")
    asking_world(root, {"train": 9, "test": CLIPS})
    kinds: dict[str, dict] = {
        "zero-0": {},
        "zero-1": {"seed": 1},
        "rmm": {"recovery": "rmm", "recovery_sizes": RMM},
        "special-audio": {"absent": "audio"},
        "special-visual": {"absent": "visual"},
    }
    return {name: saved_run(root, name, AVQAConfig(**settings(root) | more)) for name, more in kinds.items()}


@pytest.fixture(scope="module")
def evaluated(runs, tmp_path_factory, _mlflow_schema) -> tuple[Path, list[Result]]:
    root = tmp_path_factory.mktemp("evaluated")
    shutil.copy(_mlflow_schema, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        config = QuestionEvaluation(rates=(70, 30), batch_size=7)
        return root / "results", evaluate(list(runs.values()), config, root / "results")


def figures(results: list[Result], run: Path, kind: str = ALL) -> dict[tuple[str, int], Result]:
    return {(r.missing, r.rate): r for r in results if r.run == run.name and r.kind == kind}


@unit
def test_masks_are_nested_in_the_rate_and_depend_on_seed_and_clip_alone():
    clips = [f"clip {i}" for i in range(400)]
    draws = draw(0, clips)
    for modality in MODALITIES:
        gone = [{c for c in clips if lost(draws[c][modality], rate)} for rate in (0, 20, 40, 60, 80, 100)]
        assert gone[0] == set()
        assert gone[-1] == set(clips)
        assert all(less < more for less, more in itertools.pairwise(gone))
        assert all(abs(len(g) / 400 - r) < 0.08 for g, r in zip(gone, (0, 0.2, 0.4, 0.6, 0.8, 1), strict=True))
    assert draw(0, reversed(clips[:9])) == {c: draws[c] for c in clips[:9]}
    assert draw(1, clips) != draws
    both = [lost(draws[c]["audio"], 50) == lost(draws[c]["visual"], 50) for c in clips]
    assert 0.4 < np.mean(both) < 0.6, "sound and picture go apart"


@integration
def test_masks_are_saved_with_the_results(evaluated):
    with (evaluated[0] / "masks.csv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file)}
    draws = draw(0, rows)
    assert len(rows) == CLIPS
    assert all(float(rows[c][f"{m}_missing_above_percent"]) == 100 * draws[c][m] for c in rows for m in MODALITIES)


@integration
@torch.inference_mode()
@pytest.mark.parametrize("name", ["zero-0", "rmm"])
def test_accuracy_at_a_rate_is_that_of_a_batch_with_those_clips_taken_away(runs, evaluated, name):
    """By hand: one mixed batch per rate, as data with so many gaps would come in."""
    p = load_answerer(read_run(runs[name]), torch.device("cpu"))
    clips = Clips(p.config.data)
    asked = [q for q in load_questions(p.config.questions) if q.split == "test"]
    items = QuestionItems(clips, asked, p.vocabulary, p.words)
    found = figures(evaluated[1], runs[name])
    for m in MODALITIES:
        left = [i for i, q in enumerate(asked) if clips.left(q.clip, m)]
        assert len(left) == 3 * (CLIPS - GONE["audio" if m == "visual" else "visual"])
        batch = items.batch(left)
        for rate in RATES:
            gone = torch.tensor([lost(draw(0, [asked[i].clip])[asked[i].clip][m], rate) for i in left])
            less = take_away(batch, m, gone)
            share = float((p(less).argmax(1) == batch.label).float().mean())  # type: ignore[arg-type]
            assert found[m, rate].accuracy == pytest.approx(share), (m, rate)
            assert found[m, rate].samples == len(left)


@unit
def test_every_method_has_its_cases_and_the_specialists_theirs_alone(runs, evaluated):
    results = evaluated[1]
    everything = {("none", 0), *((m, rate) for m in MODALITIES for rate in RATES)}
    for name in ("zero-0", "zero-1", "rmm"):
        assert set(figures(results, runs[name])) == everything
    for m in MODALITIES:
        special = figures(results, runs[f"special-{m}"])
        assert set(special) == {(m, rate) for rate in RATES}
        assert len({r.accuracy for r in special.values()}) == 1, "it never looks at the modality"
    lines = {line.name: line for line in summarise(results)}
    assert set(lines) == {
        "question look-up",
        "majority of the kind",
        "avst zero",
        "avst rmm",
        "avst specialist",
    }
    assert (lines["avst zero"].seeds, lines["avst specialist"].seeds) == (2, 1)
    assert {what for what, _ in lines["avst specialist"].accuracy} == set(MODALITIES)


@unit
def test_kinds_add_up_to_averages_over_questions(evaluated, runs):
    of = {r.kind: r for r in evaluated[1] if r.run == runs["rmm"].name and (r.missing, r.rate) == ("none", 0)}
    assert list(of) == [
        *("Audio Naming", "Audio average", "Visual Naming", "Visual average"),
        *("Audio-Visual Existential", "Audio-Visual average", ALL),
    ]
    right = sum(of[kind].accuracy * of[kind].samples for kind in KINDS)
    assert of[ALL].accuracy == pytest.approx(right / of[ALL].samples)
    assert of[ALL].samples == 3 * CLIPS


@unit
def test_averages_weigh_questions_not_kinds():
    questions = [
        q.model_copy(update={"type": kind})
        for q, kind in zip(load_some(5), ["Audio Counting"] * 3 + ["Audio Comparative"] + ["Why"], strict=True)
    ]
    found = scores(questions, np.array([1, 1, 0, 0, 1], bool), np.array([1, 1, 1, 1, 1], bool))
    told = {s.kind: (s.accuracy, s.samples) for s in found}
    assert told["Audio average"] == (0.5, 4)
    assert told[ALL] == (0.6, 5)
    assert told["Why"] == (1.0, 1)
    less = scores(questions, np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 0, 0], bool))
    assert {s.kind: s.accuracy for s in less} == {"Audio Counting": 1.0, "Audio average": 1.0, ALL: 1.0}


def load_some(n: int) -> list:
    from tests.fixtures.asking import questions_about

    return list(questions_about({"test": n}))[:n]


@unit
def test_files_and_mlflow_have_all_of_it(evaluated, runs):
    out, results = evaluated
    with (out / "results.csv").open() as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [r.accuracy for r in results]
    assert (out / "results.png").stat().st_size > 10_000
    client = Store(out.parent).client
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    top = next(r for r in found if r.info.run_name == "evaluate-results")
    children = {r.info.run_name: r for r in found if r.data.tags.get(PARENT) == top.info.run_id}
    assert set(children) == {line.name for line in summarise(results)}
    history = client.get_metric_history(children["avst rmm"].info.run_id, "accuracy_by_audio_missing_rate")
    expected = {rate: r.accuracy for (m, rate), r in figures(results, runs["rmm"]).items() if m == "audio"}
    assert {m.step: m.value for m in history} == pytest.approx(expected)
    assert {f.path for f in client.list_artifacts(top.info.run_id)} == {
        *("results.csv", "results.md", "results.png", "masks.csv"),
        *("confidence.csv", "risk_coverage.csv", "confidence.png", "differences.csv", "cost.png"),
    }
    assert client.get_experiment(top.info.experiment_id).name == "media"
    assert {path.name for path in out.iterdir() if path.is_file()} <= {*written_files(), RECORD}


@integration
def test_the_command_knows_the_kind_of_run_and_keeps_what_is_done(runs, mlflow_root, tmp_path, capsys):
    out = mlflow_root / "results"
    chosen = [str(runs["zero-0"]), str(runs["rmm"])]
    arguments = [*chosen, "--out", str(out), "--set", "rates=[50]"]
    assert main(arguments) == 0
    assert "| avst | rmm |" in capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} == before
    assert main([*arguments, "seed=3"]) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()} != before
    other = {"recipe": "finetune", "config": {"recipe": "finetune", "data": "."}}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(other))
    assert main([chosen[0], str(tmp_path), "--out", str(out)]) == 2
    assert "these runs are of several tasks: avqa, classification" in capsys.readouterr().err


@unit
@pytest.mark.parametrize(
    ("settings_", "chosen", "parts"),
    [
        ({"rates": [130]}, ("rmm",), ["0 to 100 percent, not 130"]),
        ({"split": "final"}, ("rmm",), ["split 'final'"]),
        ({}, ("rmm", "rmm"), ["'rmm' on avst with seed 0", "label=NAME"]),
    ],
)
def test_what_can_not_be_evaluated_is_refused(runs, tmp_path, settings_, chosen, parts):
    folders = [runs[name] for name in chosen]
    if len(folders) > 1:
        folders[1] = Path(shutil.copytree(folders[1], tmp_path / "twin"))
    with pytest.raises(ValueError) as error:
        evaluate(folders, QuestionEvaluation(**settings_), tmp_path / "out")
    assert [part for part in parts if part not in str(error.value)] == []
    assert not (tmp_path / "out").exists()


@unit
def test_features_of_another_extractor_are_refused(runs, tmp_path):
    from tests.fixtures.asking import sequence_dataset

    info = sequence_dataset(tmp_path / "other", {"train": 9, "test": CLIPS})
    other = info.backbone.model_copy(update={"fingerprint": "0" * 64})  # type: ignore[union-attr]
    info.model_copy(update={"backbone": other}).save(tmp_path / "other")
    with pytest.raises(InputError, match="another extractor"):
        evaluate([runs["rmm"]], QuestionEvaluation(data=tmp_path / "other"), tmp_path / "out")


# By hand: complete, without sound, without picture.
HAND = {
    ("avst", "zero", 0): (0.80, 0.50, 0.40),
    ("avst", "zero", 1): (0.70, 0.40, 0.40),
    ("avst", "rmm", 0): (0.75, 0.70, 0.52),
    ("avst", "specialist", 0): (None, 0.70, 0.60),
    ("", "question look-up", 0): (0.3, 0.3, 0.3),
}


WIDE = {"zero": (0.10, 0.30), "rmm": (0.50, 0.54)}  # intervals, half 0.1 and 0.02


def table() -> list[Line]:
    cases = (("none", 0), ("audio", 100), ("visual", 100))
    return summarise(
        [
            Result(
                method, network, seed, missing, rate, ALL, accuracy, 10, 5, 50, 2.0, 100.0, "run", *WIDE.get(method, ())
            )
            for (network, method, seed), values in HAND.items()
            for (missing, rate), accuracy in zip(cases, values, strict=True)
            if accuracy is not None
        ]
    )


@unit
def test_spreads_regained_shares_and_the_table_by_hand():
    zero, rmm, special, _ = table()
    assert zero.accuracy["none", 0][ALL] == (pytest.approx(0.75), pytest.approx(0.0707107, abs=1e-6))
    assert regained(rmm, zero, ("audio", 100)) == pytest.approx(0.25 / 0.30)
    assert regained(special, zero, ("visual", 100)) == pytest.approx(0.20 / 0.35)
    assert regained(rmm, None, ("audio", 100)) is None
    unsure = replace(zero, intervals={("audio", 100): {ALL: (0.10, 0.80)}})
    assert regained(rmm, unsure, ("audio", 100)) is None, "what zero fill loses, 0.30, is within 0.35"
    text = markdown(table(), NOTES).splitlines()
    cost = "| 50 | 2.0 | 100 |"
    assert text[2] == f"| avst | zero | 75.0 ± 10.0 | 45.0 ± 10.0 | -25.0 | 0 % | 40.0 ± 10.0 | -20.0 | 0 % {cost}"
    assert text[3] == f"| avst | rmm | 75.0 ± 2.0 | 70.0 ± 2.0 | +0.0 | 83 % | 52.0 ± 2.0 | -8.0 | 34 % {cost}"
    assert text[4] == f"| avst | specialist |  | 70.0 |  | 83 % | 60.0 |  | 57 % {cost}"
    assert text[5] == "|  | question look-up | 30.0 | 30.0 |  |  | 30.0 |  |  |  |  |  |"
    assert "2 more can't be asked" in "\n".join(text)


@unit
def test_accuracies_are_those_of_the_answers_that_were_kept(evaluated):
    table = pq.read_table(evaluated[0] / ANSWERS_FILE).to_pylist()
    found: dict[tuple, list[bool]] = {}
    for row in table:
        for kind in (row["kind"], ALL):
            key = (row["network"], row["method"], row["seed"] or 0, row["condition"], kind)
            found.setdefault(key, []).append(row["right"])
    told = {(r.network, r.method, r.seed, r.condition, r.kind): r for r in evaluated[1] if r.rate in (0, 100)}
    assert len(found) > 50
    for key, right in found.items():
        assert (np.mean(right), len(right)) == (pytest.approx(told[key].accuracy), told[key].samples)


@unit
def test_figures_have_intervals_and_costs(evaluated):
    for r in (r for r in evaluated[1] if r.kind == ALL or r.condition in CONDITIONS.values()):
        assert r.low <= r.accuracy + 1e-9 or r.method == "zero", "of two seeds, the interval is of their mean"
        assert r.low < r.high
        assert r.inference_seconds > 0 or not r.network
    (plain,) = [r for r in evaluated[1] if (r.method, r.missing, r.kind) == ("rmm", "none", ALL)]
    assert (plain.low, plain.high) != wilson(plain.accuracy, plain.samples), "questions about one clip are no tosses"
    text = (evaluated[0] / "results.md").read_text()
    assert text.index("### Differences") < text.index("### Gain and cost") < text.index("### Accuracy by kind")
    assert "| avst rmm | avst zero |" in text
    assert (evaluated[0] / "cost.png").stat().st_size > 10_000


@unit
def test_a_baseline_is_one_of_the_methods(runs, tmp_path):
    with pytest.raises(InputError, match=r"no method 'dropout'.*these are: zero, rmm"):
        evaluate([runs["zero-0"], runs["rmm"]], QuestionEvaluation(baseline="dropout"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@unit
@pytest.mark.parametrize("missing", [None, "audio", "visual"])
def test_a_reports_answers_are_those_that_were_evaluated(runs, evaluated, missing):
    predictor = load_answerer(read_run(runs["rmm"]), torch.device("cpu"))
    clips = Clips(predictor.config.data)
    asked = AnswerableQuestions.of(load_questions(predictor.config.questions), "test", clips).questions
    told = answers_of(predictor, clips, asked, missing)
    right = [a == q.answer for a, q in zip(told, asked, strict=True) if clips.left(q.clip, missing)]
    case = (missing, 100) if missing else ("none", 0)
    expected = figures(evaluated[1], runs["rmm"])[case]
    assert (len(right), sum(right) / len(right)) == (expected.samples, pytest.approx(expected.accuracy))


@unit
def test_methods_trained_at_several_rates_are_told_apart():
    """A line, a cell of the table and a panel for each; zero fill and the specialist are those of the same rate."""
    cases = (("none", 0), ("audio", 50), ("audio", 100), ("visual", 50), ("visual", 100))
    lost = {"": 0.0, "audio 15 %, visual 15 %": 0.1}
    gained = {"zero": 0.0, "rmm": 0.2}

    def accuracy(less: float, gain: float, rate: int) -> float:
        return 0.8 - less - (less - gain) * rate / 100

    results = [
        Result(
            m, "avst", 0, missing, rate, ALL, accuracy(less, gain, rate), 10, 5, 50, 2.0, 9.0, "run", train_missing=by
        )
        for by, less in lost.items()
        for m, gain in gained.items()
        for missing, rate in cases
    ]
    lines = summarise(results)
    assert [(line.method, line.train_missing) for line in lines] == [(m, by) for by in lost for m in gained]
    assert [line.accuracy["none", 0][ALL][0] for line in lines] == pytest.approx([0.8, 0.8, 0.7, 0.7])
    assert lines[3].name == "avst rmm, trained without audio 15 %, visual 15 %"
    text = markdown(lines, NOTES).splitlines()
    assert text[0].startswith("| network | method | training clips lack | complete |")
    assert text[5].startswith("| avst | rmm | audio 15 %, visual 15 % | 70.0 | 80.0 |")
    assert text[5].split("|")[7].strip() == "200 %", "of the ten points that zero fill lost, trained at the same rate"
    axes = drawing(lines).axes
    assert [len(axis.get_lines()) for axis in axes] == [2] * 4
    assert axes[2].get_title().endswith("trained without audio 15 %, visual 15 %")
    assert list(axes[3].get_lines()[0].get_ydata()) == pytest.approx([65.0, 60.0])
    plain = markdown([line for line in lines if not line.train_missing], NOTES)
    assert "training clips lack" not in plain
