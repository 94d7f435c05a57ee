"""Differences in words, their families, and gain against cost."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from models.conditions import CASES
from shards import extraction_log
from shards.errors import InputError
from tests.fixtures.builders import absent, media_dataset
from tests.fixtures.evaluating import untrained_evaluation
from trainers.bootstrap import holm
from trainers.classification.results import Row, summarise
from trainers.classification.uncertainty import compared_sets, cost_points, within_intervals
from trainers.comparing import Comparison
from trainers.cost import CostPoint, Gain, cost_markdown, drawing
from trainers.differences import (
    AGAINST,
    BY_KIND,
    DIFFERENCES_FILE,
    PAIRS,
    SAME,
    DifferenceRow,
    baselines,
    chosen_baseline,
    difference_rows,
    differences_markdown,
    write_differences,
)
from trainers.journal import append_metrics, logs, parts_seconds, record_parts
from trainers.resources import Stopwatch
from trainers.scored import Samples, Scored, write_scored
from trainers.tables import markdown_table, read_rows

pytestmark = pytest.mark.unit
CLIPS = 400
KINDS = {"all": np.ones(CLIPS, dtype=bool), "even": np.arange(CLIPS) % 2 == 0}
LEVELS = {"low": 0.45, "base": 0.60, "same": 0.60, "high": 0.75}


@pytest.fixture(scope="module")
def found() -> Comparison:
    """Two networks with three seeds: methods that are right more or less often than their baseline, and a rule."""
    rng, scored, counted = np.random.default_rng(0), [], np.ones(CLIPS, dtype=bool)
    for network in ("one", "two"):
        for condition in ("complete", "audio_missing"):
            u = rng.random((3, CLIPS))
            for method, level in LEVELS.items():
                for seed in range(3):
                    right = u[seed] < level
                    scored.append(Scored(f"{network} {method}", seed, condition, right, counted, network, method))
    scored.append(Scored("rule", None, "complete", rng.random(CLIPS) < 0.3, counted))
    names = [f"c{i}" for i in range(CLIPS)]
    return Comparison(scored, Samples(names, names, KINDS), by_kind=("complete",), draws=500)


SETS = {"complete": ("complete",), "audio_missing": ("audio_missing",), "mean": ("complete", "audio_missing")}


def test_every_method_is_compared_with_the_baseline_of_its_network(found):
    rows = difference_rows(found, SETS, "base")
    against = [row for row in rows if row.family == AGAINST]
    assert {(row.method, row.other) for row in against} == {
        (f"{n} {m}", f"{n} base") for n in ("one", "two") for m in ("low", "same", "high")
    }
    assert len(against) == 2 * 3 * len(SETS)
    words = {row.method: row.verdict for row in against}
    assert {words[f"{n} {m}"] for n in ("one", "two") for m in ("low",)} == {"lower"}
    assert {words[f"{n} {m}"] for n in ("one", "two") for m in ("high",)} == {"higher"}
    same = [row for row in against if row.method == "one same"]
    assert [(row.difference, row.low, row.high, row.p, row.words) for row in same] == [(0, 0, 0, 1, SAME)] * 3
    high = next(row for row in against if row.method == "one high")
    assert high.words == f"{100 * high.difference:+.1f} ({100 * high.low:.1f} to {100 * high.high:.1f})"
    assert high.low < high.difference < high.high


def test_families_are_corrected_by_themselves(found):
    rows = difference_rows(found, SETS, "base")
    for family in (AGAINST, BY_KIND, PAIRS):
        own = [row for row in rows if row.family == family]
        assert [row.p_corrected for row in own] == pytest.approx(holm([row.p for row in own]))
    pairs = [row for row in rows if row.family == PAIRS]
    assert len(pairs) == 28 * 3 + 8  # every pair of eight lines in three columns, and each with the rule in one
    assert {row.kind for row in rows if row.family == BY_KIND} == {"even"}
    assert {row.condition for row in rows if row.family == BY_KIND} == {"complete"}, "the others have no kinds"


def test_a_variant_of_a_network_has_the_baseline_of_what_it_varies():
    counted = np.ones(4, dtype=bool)

    def base(*lines: tuple[str, str]) -> dict[str, str]:
        scored = [Scored(f"{n} {m}".strip(), 0, "complete", counted, counted, n, m) for n, m in lines]
        return baselines(Comparison(scored, Samples.of_clips("abcd", [None] * 4), draws=10), "zero")

    two = base(("avst", "zero"), ("avsd", "zero"), ("avst_prompts", "input"), ("pstp", "rmm"), ("", "rule"))
    assert two == {"avst zero": "avst zero", "avsd zero": "avsd zero", "avst_prompts input": "avst zero"}
    assert base(("", "zero"), ("", "rmm")) == {"zero": "zero", "rmm": "zero"}


def test_methods_are_compared_with_the_baseline_that_was_trained_on_as_much():
    right = {"zero": [1, 0, 0, 0], "rmm": [1, 1, 0, 0], "zero, less": [1, 1, 1, 0], "rmm, less": [1, 1, 1, 1]}
    counted = np.ones(4, dtype=bool)
    scored = [
        Scored(f"avst {name}", 0, "complete", np.array(of, dtype=bool), counted, "avst", name.partition(",")[0],
               train_missing="sound 30 %" if "less" in name else "")
        for name, of in right.items()
    ]  # fmt: skip
    compared = Comparison(
        [*scored, Scored("rule", None, "complete", counted, counted)], Samples.of_clips("abcd", [None] * 4)
    )
    rows = [row for row in difference_rows(compared, {"complete": ("complete",)}, "zero") if row.family == AGAINST]
    assert [(row.method, row.other, row.difference) for row in rows] == [
        ("avst rmm", "avst zero", 0.25),
        ("avst rmm, less", "avst zero, less", 0.25),
    ]
    one = baselines(compared, "avst zero")
    assert one == dict.fromkeys((f"avst {name}" for name in right), "avst zero"), "a line is the baseline of all"


def test_a_mean_of_conditions_is_that_of_differences(found):
    rows = [row for row in difference_rows(found, SETS, "base") if (row.family, row.method) == (AGAINST, "two high")]
    by = {row.condition: row.difference for row in rows}
    assert by["mean"] == pytest.approx((by["complete"] + by["audio_missing"]) / 2)


def test_the_table_and_the_file(found, tmp_path):
    text = write_differences(tmp_path, found, SETS, "base")
    rows = read_rows((tmp_path / DIFFERENCES_FILE).read_text(), DifferenceRow)
    assert rows == difference_rows(found, SETS, "base")
    lines = text.splitlines()
    assert lines[0] == "### Differences"
    assert lines[2] == "| method | less | complete | audio missing | mean |"
    assert lines[5] == f"| one same | one base | {SAME} | {SAME} | {SAME} |"
    assert "corrected for these 18 comparisons (Holm)" in text
    assert "3 seeds, paired" in text
    assert differences_markdown(difference_rows(found, SETS, None)) == ""


@pytest.mark.parametrize(
    ("wanted", "methods", "chosen"),
    [
        (None, ["zero", "dropout", "rmm"], "dropout"),
        (None, ["zero", "rmm"], "zero"),
        (None, ["rmm"], None),
        ("rmm", ["zero", "rmm"], "rmm"),
    ],
)
def test_the_baseline_is_as_wanted_or_the_first_usual_one(wanted, methods, chosen):
    assert chosen_baseline(methods, wanted, ("dropout", "zero")) == chosen


def test_a_baseline_that_is_not_evaluated_is_refused():
    with pytest.raises(InputError, match="no method 'drop_out' is evaluated; did you mean 'dropout'"):
        chosen_baseline(["zero", "dropout"], "drop_out", ("zero",))


def test_what_is_compared_in_classification():
    counted = np.ones(4, dtype=bool)
    names = [*CASES, "avrobustbench-rain-1", "avrobustbench-rain-5"]
    scored = [Scored("finetune", 0, name, counted, counted) for name in names]
    sets = compared_sets(Comparison(scored, Samples.of_clips("abcd", [None] * 4), draws=10))
    assert list(sets) == [*CASES, "noisy_mean", "avrobustbench_mean"]
    assert sets["avrobustbench_mean"] == ["avrobustbench-rain-1", "avrobustbench-rain-5"]


def a_row(seed: int, value: float, metric: str = "mAP") -> Row:
    return Row("finetune", "", seed, "complete", value, 40, 500, 500, 2.0, 100.0, f"run-{seed}", metric)


def test_map_has_students_interval_over_seeds_alone():
    values = [0.5, 0.6, 0.7]
    rows = within_intervals([a_row(seed, value) for seed, value in enumerate(values)], None)
    assert (rows[0].low, rows[0].high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))
    assert math.isnan(within_intervals([a_row(0, 0.5)], None)[0].low)
    points, gain = cost_points(None, summarise(rows))
    assert gain.label == "mAP, %, mean of all conditions"
    assert [(p.gain, math.isnan(p.half)) for p in points] == [(pytest.approx(60.0), True)]


POINTS = (
    CostPoint("finetune", "finetune", "", 0.0, 0.0, 1000, (50.0, 1.0), 0.002),
    CostPoint("finetune_noisy", "finetune_noisy", "", 8.0, 2.0, 1000, (40.0, 1.0), 0.002),
    CostPoint("prompt, detected", "prompt, detected", "", 7.0, 2.5, 10, (10.0, math.nan), 0.003),
    CostPoint("lora, detected", "lora, detected", "", 7.5, math.nan, 0, (math.nan, math.nan), math.nan),
)
GAIN = Gain(("noisy_audio",), "mean of the noisy cases", "finetune", {"prompt, detected": "finetune"})


def test_cells_of_a_table_hold_any_text():
    text = markdown_table(["a|b", "n"], [["one\ntwo", "1"], ["x || y\r\nz", "2"]])
    assert text.split("\n") == [r"| a\|b | n |", "| --- | ---: |", "| one two | 1 |", r"| x \|\| y z | 2 |"]


def test_gain_and_cost_in_a_table():
    lines = cost_markdown(POINTS, GAIN, "finetune_noisy").splitlines()
    assert lines[2].startswith("| method | points over finetune, mean of the noisy cases | trained parameters |")
    assert lines[6] == "| prompt, detected | +7.0 ± 2.5 | 10 | 10 | 25 % | 3.00 |"
    assert lines[7] == "| lora, detected | +7.5 | 0 |  |  |  |"
    assert "of finetune_noisy" not in cost_markdown(POINTS[:1], GAIN, "finetune_noisy")


def test_the_figure_has_a_panel_per_cost_and_leaves_out_what_is_not_known(tmp_path):
    page = drawing(POINTS, GAIN)
    assert [axes.get_xlabel() for axes in page.axes] == ["trained parameters", "training, s", "1,000 answers, s"]
    places = [[float(c.lines[0].get_xdata()[0]) for c in axes.containers] for axes in page.axes]
    assert [sum(not math.isnan(at) for at in of) for of in places] == [4, 3, 3]
    assert page.axes[0].get_xscale() == "symlog"  # one trains nothing
    page.savefig(tmp_path / "cost.png")


def test_a_figure_of_several_groups_tells_methods_by_colour_and_groups_by_mark():
    points = [
        CostPoint(f"{group} {method}", method, group, 1.0, 1.0, 1000, (seconds, 0.0), 0.002)
        for group, seconds in (("trained on complete clips", 10.0), ("trained without audio 15 %", 250.0))
        for method in ("zero", "rmm", "dropout")
    ]
    page = drawing(points, Gain(("audio_missing",), "a modality missing", "zero", {"x": "y"}))
    shown = [text.get_text() for text in page.legends[0].get_texts()]
    assert sorted(shown) == sorted({p.method for p in points} | {p.group for p in points})
    looks = {
        p.name: (c.lines[0].get_color(), c.lines[0].get_marker())
        for p, c in zip(points, page.axes[0].containers, strict=True)
    }
    assert len(set(looks.values())) == len(points)
    assert page.axes[1].get_xscale() == "log"
    page.canvas.draw()
    assert not any(label.get_text() for label in page.axes[1].get_xticklabels(minor=True)), "they would overlap"


def test_a_stopwatch_tells_the_median_of_each_part(monkeypatch):
    watch, clock = Stopwatch(torch.device("cpu")), iter([0.0, 0.2, 1.0, 1.1, 2.0, 2.9, 5.0, 5.4])
    monkeypatch.setattr("trainers.resources.time.perf_counter", lambda: next(clock))
    for _ in range(3):
        with watch.lap(10):
            pass
    with watch.lap(10, "detected"):
        pass
    assert watch.per_sample() == pytest.approx(0.02)  # of 0.02, 0.01 and 0.09
    assert watch.per_sample("", "detected") == pytest.approx(0.06)
    assert math.isnan(watch.per_sample("concat"))


def test_seconds_of_a_clip_are_those_of_all_its_pictures(tmp_path, monkeypatch):
    """A second a look, three looks at a clip with pictures, one at a clip of sound alone."""
    ticks = itertools.count()
    monkeypatch.setattr("trainers.resources.time.perf_counter", lambda: float(next(ticks)))
    seconds = {}
    for frames in ("middle", "all"):
        evaluation = untrained_evaluation(tmp_path, 9, conditions=("complete",), frames=frames, batch_size=1)
        (row,) = evaluation.rows(lambda *_, **__: None)
        seconds[frames] = row.inference_seconds
    assert seconds == {"middle": 1.0, "all": pytest.approx(sum(3 if absent(i)[1] else 1 for i in range(9)) / 9)}


def test_what_shards_took_is_known_when_all_are(tmp_path):
    media_dataset(tmp_path, {"train": 6, "val": 4, "test": 5}).save(tmp_path)
    assert math.isnan(extraction_log.making_seconds(tmp_path, ("train",)))
    for split, count, seconds in (("train", 3, 1.5), ("test", 5, 9.0), ("train", 3, 0.5), ("val", 3, 0.25)):
        extraction_log.append_seconds(tmp_path, split, count, seconds)
    assert extraction_log.making_seconds(tmp_path, ("train",)) == 2.0
    assert math.isnan(extraction_log.making_seconds(tmp_path, ("train", "val")))
    extraction_log.append_seconds(tmp_path, "val", 1, 0.25)
    assert extraction_log.making_seconds(tmp_path, ("train", "val")) == 2.5


def test_what_the_parts_of_a_run_took(tmp_path):
    assert parts_seconds(tmp_path, ()) == 0.0
    assert math.isnan(parts_seconds(tmp_path, ("detector",)))
    record_parts(tmp_path, ("detector",), 1.25)
    assert parts_seconds(tmp_path, ("detector",)) == 1.25
    append_metrics(logs(tmp_path, "detector"), 0, {"other": 1.0})
    assert math.isnan(parts_seconds(tmp_path, ("detector",)))


def test_answers_are_kept_once_and_compactly(tmp_path: Path):
    import pyarrow.parquet as pq

    counted = np.array([True, True, False, True])
    right = np.array([True, False, False, True])
    scored = [
        Scored("one rmm", 3, "complete", right, counted, "one", "rmm", "run-a"),
        Scored("one rmm", 3, "audio_missing_40", right, counted, "one", "rmm", "run-a", kept=False),
        Scored("rule", None, "complete", ~right, counted),
    ]
    kinds = {"all": np.ones(4, dtype=bool)}
    samples = Samples(["a", "a", "b", "b"], ["a", "a", "b", "b"], kinds, ["q1", "q2", "q3", "q4"], ["x", "y", "x", "y"])
    write_scored(tmp_path / "answers.parquet", scored, samples)
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert len(rows) == 6
    facts = {"network": "one", "method": "rmm", "train_missing": "", "seed": 3, "condition": "complete", "run": "run-a"}
    assert rows[2] == {**facts, "clip": "b", "question": "q4", "kind": "y", "right": True}
    assert (rows[3]["method"], rows[3]["seed"], rows[3]["right"]) == ("rule", None, False)
