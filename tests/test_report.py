from __future__ import annotations

import fcntl
import json
import math
import re
import statistics
from html.parser import HTMLParser

import pytest
from scipy import stats

from shards.errors import InputError
from tests.fixtures.browser import chromium
from tests.fixtures.reporting import a_row, a_sweep, ended_run, evaluation, trained_run
from tests.fixtures.sweeps import an_outcome, sweep_config
from trainers.avqa.results import Result
from trainers.tables import write_rows
from trainers.tracking import Store
from tuning.report import intervals, main
from tuning.report.command import report
from tuning.report.evaluations import Evaluation, evaluations, inner_name
from tuning.report.page import Page, html
from tuning.report.parts import Part, Table, figure, spread, text
from tuning.report.run_selection import choose
from tuning.report.swept import sweep_blocks
from tuning.report.trained import Configurations, trained_blocks
from tuning.report.verdict import Standing, verdict
from tuning.tables import pareto

unit, integration = pytest.mark.unit, pytest.mark.integration
HOSTILE = "<script>alert(1)</script>"
QUARANTINED = {
    "id": "c7",
    "path": "a.mp4",
    "stage": "audio",
    "error": "truncated",
    "message": "m",
    "remedy": "r",
}


class Reader(HTMLParser):
    """What a browser makes of a page: its tables by caption, its text, its tags with their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._caption, self._inside = "", ""
        self._row: list[str] = []
        self._table: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "figcaption":
            self._caption = ""
        if tag == "table":
            self._table = self.tables[self._caption] = []
            self._caption = ""
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            self._row.append("")
        if tag in ("figcaption", "th", "td"):
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == "tr":
            self._table.append(self._row)
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data):
        if self._inside == "figcaption":
            self._caption += data
        elif self._inside:
            self._row[-1] += data

    def column(self, caption: str, name: str) -> dict[str, str]:
        """A table's column by its rows' first cells."""
        head, *rows = self.tables[caption]
        return {row[0]: row[head.index(name)] for row in rows}


@pytest.fixture
def store(mlflow_root):
    return Store(mlflow_root)


ROWS = [
    a_row(method, seed, condition, accuracy, **cost)
    for method, cost, by_seed in (
        ("finetune", {"trained": 1000, "epoch_seconds": 4.0}, [(0.9, 0.5), (0.8, 0.6), (0.85, 0.7)]),
        ("finetune_noisy", {"trained": 1000, "epoch_seconds": 5.0}, [(0.9, 0.8), (0.9, 0.9), (0.9, 0.7)]),
        ("prompt", {"trained": 10, "epoch_seconds": 1.0}, [(0.9, 0.75), (0.9, 0.8), (0.9, 0.7)]),
    )
    for seed, pair in enumerate(by_seed)
    for condition, accuracy in zip(("complete", "noisy_audio"), pair, strict=True)
]


@integration
def test_an_evaluations_figures_are_the_runs_own_with_students_interval(store):
    evaluation(store, "demo-aaaaaaaaaaaa", ROWS, {"conditions": ["complete", "noisy_audio"]})
    page = Reader(report(store.root, clips=0))
    shown = page.column("Accuracy by condition, percent", "noisy audio")
    values = [0.5, 0.6, 0.7]
    low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
    assert shown["finetune"] == f"60.0 ± {50 * (high - low):.1f}" == "60.0 ± 24.8"
    assert page.column("Accuracy by condition, percent", "complete")["prompt"] == "90.0 ± 0.0"
    costs = "Accuracy against cost"
    assert page.column(costs, "trained parameters") == {
        "finetune": "1,000",
        "finetune_noisy": "1,000",
        "prompt": "10",
    }
    marked = [attributes for tag, attributes in page.tags if attributes.get("class") == "n front"]
    assert {x["data-v"] for x in marked} >= {"10.0", "1.0", "5.0"}


@unit
def test_an_evaluation_that_was_killed_while_it_wrote_counts_as_the_one_before(store):
    """Written anew, its folder has no record and a part of a table; MLflow has the table that was finished."""
    folder, params = store.root / "demo-aaaaaaaaaaaa", {"conditions": ["complete", "noisy_audio"]}
    run = store.open(f"evaluate-{folder.name}", "study-t", params, None, None, folder=folder / "mlflow")
    write_rows(folder / "results.csv", ROWS)
    run.artifact(folder / "results.csv")
    run.close("FINISHED")
    whole = (folder / "results.csv").read_text().splitlines()
    (folder / "results.csv").write_text("\n".join([*whole[:3], whole[3][:20]]))
    (found,) = evaluations(choose(store.root))
    assert isinstance(found, Evaluation)
    assert len(found.rows) == len(ROWS)
    (folder / "results.csv").unlink()
    assert found.read("results.csv").splitlines() == whole


@unit
def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.csv"
    write_rows(path, ROWS[:2])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_rows(path, [*ROWS, "no row"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@unit
def test_one_seed_has_no_interval_and_two_runs_of_a_seed_count_once():
    rows = [a_row("lora", 0, "complete", 0.8), a_row("lora", 0, "complete", 0.6, run="lora-b")]
    (line,) = intervals.of_rows(rows)
    mean, half = line.accuracy["complete"]
    assert mean == pytest.approx(0.7)
    assert math.isnan(half)
    assert spread(mean, half, 1, 100).text == "70.0"
    (line,) = intervals.of_rows([*rows, a_row("lora", 1, "complete", 0.9)])
    assert line.accuracy["complete"] == pytest.approx((0.8, 12.706 * 0.1), rel=1e-4)


@unit
def test_half_widths():
    assert math.isnan(intervals.half_width(0.0, 1))
    assert intervals.half_width(1.0, 2) == pytest.approx(12.706 / math.sqrt(2), rel=1e-4)


@unit
def test_the_pareto_front_of_a_small_case():
    points = {
        "cheap": (1, 5),
        "dear": (9, 9),
        "beaten": (5, 5),
        "middle": (4, 7),
        "worse": (4, 6),
        "equal": (4, 7),
    }
    front = pareto(list(points), lambda name: points[name][0], lambda name: points[name][1])
    assert front == ["cheap", "middle", "equal", "dear"]


def an_answer(method: str, missing: str, rate: int, accuracy: float, kind: str = "all", seed: int = 0) -> Result:
    costs = {"trained": 5, "parameters": 5, "epoch_seconds": 1.0, "peak_memory_mb": 2.0}
    return Result(method, "avst", seed, missing, rate, kind, accuracy, 40, run=f"avqa-{seed}", **costs)


@unit
def test_questions_by_rate_and_kind_with_what_is_regained(store):
    results = [
        an_answer(method, missing, rate, accuracy, kind, seed)
        for seed, more in ((0, 0.0), (1, 0.02))
        for method, accuracies in (("zero", (0.6, 0.5, 0.4)), ("rmm", (0.6, 0.55, 0.5)))
        for (missing, rate), accuracy in zip(
            (("none", 0), ("audio", 40), ("audio", 100)), (a + more for a in accuracies), strict=True
        )
        for kind in ("Audio Counting", "all")
    ]
    evaluation(store, "asked-aaaaaaaaaaaa", results, {"rates": [0, 40, 100]})
    page = Reader(report(store.root, clips=0))
    whole = page.column("Accuracy over all questions, percent", "audio missing")
    assert whole == {"avst zero": "41.0 ± 12.7", "avst rmm": "51.0 ± 12.7"}
    assert page.column("Accuracy over all questions, percent", "regained, %")["avst rmm"] == "50"
    by_rate = page.column("audio missing in so many percent of the clips: accuracy, percent", "40 %")
    assert by_rate["avst rmm"] == "56.0 ± 12.7"
    by_kind = page.column("By kind of question, complete: accuracy, percent", "Audio Counting")
    assert by_kind["avst zero"] == "61.0 ± 12.7"


@integration
def test_a_sweep_shows_what_differs_its_grid_its_best_and_its_failures(store, tmp_path):
    space = {"length": [2, 4], "depth": [0, 1], "head": [False], "seed": [0, 1]}
    config = sweep_config(tmp_path, space=space)
    points = [(n, d, s) for n in (2, 4) for d in (0, 1) for s in (0, 1)]
    outcomes = [
        an_outcome(i, {"length": n, "depth": d, "head": False, "seed": s}, 0.1 * n + 0.1 * d + 0.02 * s, seed=s)
        for i, (n, d, s) in enumerate(points)
    ]
    failed = {"status": "failed", "curve": (), "metrics": {}, "error": "nan"}
    outcomes[-1] = an_outcome(7, {"length": 4, "depth": 1, "head": False, "seed": 1}, 0.0, seed=1, **failed)
    a_sweep(store, "slots-aaaaaaaaaaaa", config, outcomes)
    page = report(store.root, clips=0)
    head, first, *_ = Reader(page).tables["By parameters"]
    assert head[:3] == ["length", "depth", "val accuracy, %"], "head is the same in every trial"
    assert first[:4] == ["4", "1", "50.0", "1"]
    assert first[-1] == "1 failed"
    assert "8 trials ended (7 finished, 1 failed)" in page
    two = sweep_config(tmp_path, space={"length": [2, 4], "depth": [0, 1], "seed": [0, 1]})
    folder = a_sweep(store, "prompts-bbbbbbbbbbbb", two, outcomes[:-1])
    grid = next(b for b in sweep_blocks(folder, "x") if getattr(b, "caption", "").endswith("and depth"))
    assert grid.head == ("length", "depth = 0", "depth = 1")
    assert [cell.text for cell in grid.rows[0]] == ["2", "21.0 ± 12.7", "31.0 ± 12.7"]
    assert grid.rows[1][2].text == "50.0"


@unit
def test_only_settings_that_differ_have_a_column_and_seeds_make_a_mean(store):
    backbones = [trained_run(store, "finetune", s, 0.9, name=f"finetune-{s:012x}") for s in (0, 1)]
    for run in backbones:
        store.client.set_tag(run.run_id, "dataset", "d" * 64)
    for length, seed, accuracy in ((2, 0, 0.6), (2, 1, 0.7), (4, 0, 0.8), (4, 1, 0.8)):
        backbone = f"/elsewhere/runs/finetune-{seed:012x}"
        trained_run(store, "prompt", seed, accuracy, length=length, backbone=backbone, workers=1 + seed)
    page = Reader(report(store.root, clips=0))
    head, *rows = page.tables["prompt"]
    assert head == ["", "length", "seeds", "val accuracy, %", "s / epoch", "peak MiB"]
    assert [row[:4] for row in rows] == [["A", "2", "0, 1", "65.0 ± 63.5"], ["B", "4", "0, 1", "80.0 ± 0.0"]]
    assert page.tables["finetune"][0] == ["seeds", "val accuracy, %", "s / epoch", "peak MiB"]


@integration
def test_a_run_of_another_backbone_code_or_dataset_is_another_configuration(store):
    trained_run(store, "finetune", 0, 0.9, name="finetune-000000000001", epochs=1)
    trained_run(store, "finetune", 0, 0.9, name="finetune-000000000002", epochs=2)
    for number, changes in enumerate(
        (
            {"backbone": "/r/finetune-000000000001"},
            {"backbone": "/r/finetune-000000000002"},
            {"backbone": "/r/finetune-000000000001", "tags": {"commit": "c0ffee-dirty-1234"}},
            {"backbone": "/r/finetune-000000000001", "tags": {"dataset": "e" * 64}},
        )
    ):
        trained_run(store, "prompt", 0, 0.5, name=f"prompt-{number:012x}", **changes)
    groups = Configurations(tuple(choose(store.root).of("training"))).all
    assert [len(c.runs) for c in groups if c.recipe == "prompt"] == [1, 1, 1, 1]
    (shown,) = [b for b in trained_blocks(choose(store.root)) if getattr(b, "caption", "") == "prompt"]
    backbones = [row[shown.head.index("backbone")].text for row in shown.rows]
    assert backbones == ["finetune A", "finetune B", "finetune A", "finetune A"]
    assert {"data", "commit"} < set(shown.head)


@unit
@pytest.mark.parametrize(
    ("commit", "shown", "state"),
    [
        ("c0ffee123456", "c0ffee123456", "clean"),
        ("c0ffee123456-dirty-0badcafe", "c0ffee123456", "with changes (hash 0badcafe)"),
        ("code-0123456789ab", "code-0123456789ab", "no git checkout: the hash of its code"),
        ("unknown", "unknown", "no git checkout"),
    ],
)
def test_code_is_called_clean_only_if_it_is_a_commit(store, commit, shown, state):
    trained_run(store, "prompt", 0, 0.5, tags={"commit": commit})
    assert Reader(report(store.root, clips=0)).tables["Code"][1][:2] == [shown, state]


@unit
def test_failures_tell_their_cause_and_quarantined_clips_theirs(store, tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "quarantine.jsonl").write_text(json.dumps(QUARANTINED) + "\n")
    folder = store.root / "prompt-x"
    with pytest.raises(ZeroDivisionError), store.run("prompt-x", "t", {"recipe": "prompt"}, folder=folder):
        raise ZeroDivisionError("by nothing")
    trained_run(store, "lora", 0, 0.5, status="KILLED", name="lora-y", data=str(tmp_path / "clips"))
    page = Reader(report(store.root, clips=0))
    assert page.column("Runs that did not finish", "status") == {"prompt-x": "FAILED", "lora-y": "KILLED"}
    assert page.column("Runs that did not finish", "cause")["prompt-x"] == "ZeroDivisionError: by nothing"
    assert page.column("Clips of clips that were not ingested", "clips") == {"truncated": "1"}
    assert "torch" in page.tables["Code"][1][2]
    with store.run("prompt-x", "t", {"recipe": "prompt"}, folder=folder):
        pass
    assert "ZeroDivisionError" not in report(store.root, clips=0), "it was run again and finished"


@integration
def test_hostile_names_are_escaped_and_nothing_is_loaded_from_elsewhere(store, tmp_path):
    rows = [a_row(f"$x_{HOSTILE}", s, "complete", 0.5, run=HOSTILE) for s in (0, 1)]
    rows += [a_row("prompt", 0, "complete", 0.4)]
    evaluation(store, "demo-aaaaaaaaaaaa", rows, {"conditions": [], "split": HOSTILE, "data": f"/x/{HOSTILE}"})
    params = {
        "recipe": "prompt",
        "seed": 0,
        HOSTILE.replace("(", "").replace(")", "").replace("<", ""): HOSTILE,
    }
    params = {key.replace(">", ""): value for key, value in params.items()}
    ended_run(
        store,
        f'"><img src=x onerror=alert(1)>{HOSTILE}',
        params,
        tags={"commit": HOSTILE},
        status="FAILED",
        folder=tmp_path / "r",
    )
    a_sweep(
        store,
        "s-aaaaaaaaaaaa",
        sweep_config(tmp_path),
        [an_outcome(i, {"length": HOSTILE, "depth": i}, 0.5) for i in (0, 1)],
    )
    page = report(store.root)
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in page
    assert page.count("<script") == 1
    tags = Reader(page).tags
    assert "img" not in {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    for _, attributes in tags:
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
            assert re.match(r"#|data:image/", attributes.get(name) or "#"), attributes
    assert not re.findall(r"(?:url\(|@import|https?:)[^#)]*", re.sub(r"url\(#", "", page))
    assert "default-src 'none'" in page


@unit
def test_names_choose_runs_with_what_belongs_to_them(store):
    parent = ended_run(store, "demo-aaaaaaaaaaaa", {"study": "demo"})
    trained_run(store, "prompt", 0, 0.5, parent=parent, name="prompt-000000000001")
    trained_run(store, "prompt", 1, 0.5, name="prompt-000000000002")
    assert [run.name for run in choose(store.root, ["demo"]).runs] == [
        "demo-aaaaaaaaaaaa",
        "prompt-000000000001",
    ]
    assert [run.name for run in choose(store.root, ["runs/prompt-000000000002"]).runs] == ["prompt-000000000002"]
    assert len(choose(store.root, ["prompt"]).runs) == 2
    assert len(choose(store.root, experiments=["study-t"]).runs) == 3


@unit
def test_wrong_input_is_told_with_a_remedy(store, tmp_path, capsys):
    assert main(["--runs", str(tmp_path / "nothing")]) == 2
    assert "no MLflow store yet" in capsys.readouterr().err
    (tmp_path / "mlflow.db").write_text("this is no database, whatever its name says")
    assert main(["--runs", str(tmp_path)]) == 2
    assert "is not a database" in capsys.readouterr().err
    with pytest.raises(InputError, match="the store has no runs"):
        choose(store.root)
    trained_run(store, "prompt", 0, 0.5, name="prompt-000000000001")
    assert main(["promt", "--runs", str(store.root)]) == 2
    assert "did you mean 'prompt'" in capsys.readouterr().err
    assert main(["--experiment", "study-x", "--runs", str(store.root)]) == 2
    assert "there are: study-t" in capsys.readouterr().err
    assert main(["--runs", str(store.root), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["--runs", str(store.root), "--out", str(tmp_path / "new" / "r.html")]) == 0
    assert "<!doctype html>" in (tmp_path / "new" / "r.html").read_text()


@unit
def test_it_looks_where_the_environment_says_that_runs_are(store, tmp_path, monkeypatch, capsys):
    trained_run(store, "prompt", 0, 0.5, name="prompt-000000000001")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVMEND_RUNS", str(store.root))
    assert main([]) == 0
    assert (tmp_path / "report.html").is_file()


@unit
def test_a_name_in_the_store_leads_nowhere_else(store, tmp_path):
    """Names come from a store that others may write."""
    outside = store.root.parent / "outside"
    outside.mkdir()
    (outside / "results.csv").write_text("a secret\n")
    assert (store.root / "../outside/results.csv").is_file()
    for name in ("../outside", str(outside), "..", "a/../../outside"):
        assert (store.root / inner_name(name)).resolve().parent == store.root.resolve()
    assert inner_name("my results.v2") == "my results.v2"


@unit
def test_a_killed_report_leaves_no_file_that_the_next_does_not_remove(store, tmp_path):
    out = tmp_path / "out" / "report.html"
    out.parent.mkdir()
    left, kept = (out.with_name(f".report.1-{number}.tmp.html") for number in ("0123abcd", "4567abcd"))
    for path in (left, kept, out.with_name(".other.1-0123abcd.tmp.html")):
        path.write_text("half")
    trained_run(store, "prompt", 0, 0.5, name="prompt-000000000001")
    with kept.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(["--runs", str(store.root), "--out", str(out)]) == 0
    assert not left.exists()
    assert kept.exists(), "of a process that lives"
    assert len(list(out.parent.iterdir())) == 3


@unit
def test_a_verdict_names_the_best_and_says_when_there_is_no_difference():
    """By hand: intervals 0.80 ± 0.02 and 0.77 ± 0.02 meet, 0.80 ± 0.01 and 0.77 ± 0.01 do not."""
    near = verdict("x", [Standing("a", 0.77, 0.02), Standing("b", 0.80, 0.02)], chance=0.125)
    assert (
        near
        == "Best in x: b, 80.0 ± 2.0 %; next a, 77.0 ± 2.0 % (no difference: the intervals meet). Chance is 12.5 %."
    )
    apart = verdict("x", [Standing("a", 0.77, 0.01), Standing("b", 0.80, 0.01)])
    assert apart.endswith("(the intervals do not meet).")
    assert "one seed: no interval" in verdict("x", [Standing("a", 0.7, math.nan), Standing("b", 0.8, math.nan)])
    assert verdict("x", [Standing("a", 0.5, math.nan)]) == "Best in x: a, 50.0 %."
    assert verdict("x", []) == ""


@integration
def test_a_column_sorts_both_ways_with_what_is_empty_last(tmp_path):
    figures = {"a": 1.0, "b": None, "c": 30.0, "d": math.nan, "e": 4.0}
    rows = tuple((text(name), figure(value)) for name, value in figures.items())
    part = Part("Figures", "", (Table(("name", "figure"), rows),))
    (tmp_path / "page.html").write_text(html(Page("sorted", (), (part,))), encoding="utf-8")
    with chromium() as browser:
        browser.get((tmp_path / "page.html").as_uri())
        buttons = browser.find_elements("css selector", "thead button")

        def after_click(button) -> str:
            button.click()
            return "".join(cell.text for cell in browser.find_elements("css selector", "tbody td:first-child"))

        assert after_click(buttons[1]) == "cea" + "bd"
        assert after_click(buttons[1]) == "aec" + "bd"
        assert [after_click(buttons[0]) for _ in range(2)] == ["edcba", "abcde"]
