"""Sweeps without Ray running: what they refuse, which trials they have, how many at a time, their tables."""

from __future__ import annotations

import csv
import re

import pytest

from configs import load_config
from configs.presets import sweep_names
from shards.errors import InputError
from tests.fixtures.builders import SMALL, feature_dataset, media_dataset
from tests.fixtures.sweeps import SWEEP, an_outcome, sweep_config, sweep_file
from trainers.classification.config import FinetuneConfig, PromptConfig
from trainers.journal import append_metrics
from tuning.capacity import concurrency, need
from tuning.config import SWEEPS, SweepConfig, check, find_sweep
from tuning.plan import record, recorded, suggest
from tuning.space import Axis, draw
from tuning.sweep import main
from tuning.tables import best, front, summarise, write_tables
from tuning.trial_metrics import TrialMetrics, read_trial_metrics
from tuning.trial_result import save_outcome, saved_outcome

pytestmark = pytest.mark.unit
BEFORE = SWEEP["data"]["before"]["backbone"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"recipe": "promt"}, ["unknown recipe 'promt'", "did you mean 'prompt'"]),
        ({"space": {"lenght": [1, 2]}}, ["'space.lenght'", "did you mean 'length'"]),
        ({"space": {"noise.bth": [1, 2]}}, ["'space.noise.bth'", "did you mean 'noise.both'"]),
        ({"space": {"length": [1, 0]}}, ["'space.length'", "0 does not fit"]),
        ({"space": {"lr": {"log_range": [1e-3, -1]}}}, ["'space.lr'", "not below"]),
        ({"space": {"lr": {"log_range": [0, 1]}}}, ["'space.lr'", "above 0"]),
        ({"space": {"lr": {"logrange": [1e-3, 1]}}}, ["'space.lr.logrange'", "did you mean", "log_range"]),
        ({"space": {"lr": {"grid": [1], "choice": [1]}}}, ["'space.lr'", "grid and choice"]),
        ({"space": {"length": [2, 2]}}, ["'space.length'", "given twice"]),
        ({"space": {"lr": {"range": [0.1, 1.0]}}}, ["'space.lr'", "a grid search needs grids"]),
        ({"space": {}}, ["'space'"]),
        ({"search": {"method": "tpe"}}, ["'space.length'", "tpe takes no grids"]),
        ({"search": {"method": "tpee"}}, ["'search.method'", "did you mean 'tpe'"]),
        ({"search": {"cost": "trained"}}, ["'search.cost'", "only tpe"]),
        ({"settings": {"epoch": 3}}, ["'settings.epoch'", "did you mean 'epochs'"]),
        (
            {"data": {"media": ".", "before": {"backbon": BEFORE}}},
            ["'data.before'", "did you mean 'backbone'"],
        ),
        (
            {"data": {"media": ".", "before": {"backbone": {"dimm": 3}}}},
            ["'data.before.backbone.dimm'", "unknown name"],
        ),
        ({"data": {"before": {"backbone": BEFORE}}}, ["'data'", "corpus", "media"]),
        (
            {"data": {"corpus": {"kind": "manifest", "source": "none.csv"}, "before": {"backbone": BEFORE}}},
            ["'data.corpus.source'", "nothing here"],
        ),
        ({"early_stop": {}, "space": {"epochs": [1, 2]}}, ["'space.epochs'", "epoch by epoch"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_a_typo_is_refused_before_any_work(tmp_path, capsys, changes, parts):
    name = str(sweep_file(tmp_path, **changes))
    assert main([name, "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert [part for part in [*parts, "remedy: "] if part not in error] == [], error
    assert [path.name for path in tmp_path.iterdir()] == ["mini.yaml"]


def test_an_unknown_sweep_names_the_nearest(capsys):
    assert main(["promt"]) == 2
    assert "no sweep 'promt'\n  remedy: did you mean 'prompts'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", sweep_names())
def test_every_preset_is_sound_and_says_what_to_expect(name):
    check(load_config(SweepConfig, find_sweep(name)))
    header = [line for line in (SWEEPS / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    assert [re.match(r"# (\w+): \S", line)[1] for line in header[1:4]] == ["command", "expected", "time"]  # type: ignore[index]
    assert f"avmend sweep {name}" in header[1]


def test_overrides_reach_the_space_and_trials_get_their_settings(tmp_path):
    path = sweep_file(tmp_path, space={"length": [1], "noise.both": {"choice": [1, 4]}})
    config = load_config(SweepConfig, path, ["space.length=[3, 5]", "settings.noise.alone=4"])
    made = config.trial({"length": 5, "noise.both": 4}, data="d", backbone="b")
    assert isinstance(made, PromptConfig)
    assert (made.length, made.noise.both, made.noise.alone, made.epochs, made.cpus) == (5, 4, 4, 3, 1)


def test_a_grid_has_every_point_once_and_draws_are_crossed_with_it():
    grid = {"length": Axis(grid=(1, 2, 3)), "depth": Axis(grid=(0, 1))}
    points = draw(grid, 1, seed=0)
    assert sorted((p["length"], p["depth"]) for p in points) == [(a, b) for a in (1, 2, 3) for b in (0, 1)]
    space = {"lr": Axis(log_range=(1e-4, 1e-1)), "length": Axis(range=(2, 9)), "seed": Axis(grid=(0, 1))}
    found = draw(space, 40, seed=0)
    assert len(found) == 80
    drawn = {(p["lr"], p["length"]) for p in found}
    assert all({p["seed"] for p in found if (p["lr"], p["length"]) == point} == {0, 1} for point in drawn)
    assert {length for _, length in drawn} == set(range(2, 10)), "both ends of a whole range are drawn"
    below = sum(lr < 10**-2.5 for lr, _ in drawn)
    assert 10 <= below <= 30, "half of a log_range lies below its geometric middle"


def test_planned_trials_depend_on_space_number_and_seed_alone():
    space = {"lr": Axis(log_range=(1e-4, 1e-1)), "deep": Axis(choice=(True, False))}
    assert draw(space, 5, 0) == draw(space, 5, 0)
    assert draw(space, 5, 0) == draw(space, 8, 0)[:5]
    assert draw(space, 5, 0) != draw(space, 5, 1)


def test_a_space_with_fewer_points_than_draws_is_refused():
    with pytest.raises(InputError, match=r"only 3 different points, not 4"):
        draw({"length": Axis(choice=(1, 2, 3)), "seed": Axis(grid=(0, 1))}, 4, 0)


def tpe(tmp_path, **search):
    space = {
        "lr": {"log_range": [1e-4, 1e-1]},
        "length": {"range": [1, 8]},
        "deep": {"choice": [True, False]},
    }
    return sweep_config(tmp_path, space=space, search={"method": "tpe", "trials": 30, **search})


def test_tpe_is_the_same_again_and_learns_from_what_it_was_told(tmp_path):
    config = tpe(tmp_path)
    points: list = []
    for number in range(30):
        known = [an_outcome(n, p, 1.0 - abs(p["length"] - 6) / 8) for n, p in enumerate(points)]
        points.append(suggest(config.space, config.search, points, known))
        if number == 15:
            assert suggest(config.space, config.search, points[:-1], known) == points[-1]
    late = [p["length"] for p in points[15:]]
    assert sum(5 <= length <= 7 for length in late) > len(late) / 2
    assert all(isinstance(p["length"], int) and 1e-4 <= p["lr"] <= 1e-1 for p in points)


def test_tpe_weighs_cost_and_bears_failed_and_running_trials(tmp_path):
    config = tpe(tmp_path, cost="trained")
    points = [{"lr": 1e-3, "length": n, "deep": True} for n in (1, 2, 3)]
    known = [
        an_outcome(0, points[0], 0.5),
        an_outcome(1, points[1], 0.0, status="failed", curve=(), metrics={}, error="x"),
    ]
    assert set(suggest(config.space, config.search, points, known)) == {"lr", "length", "deep"}


def test_tpe_prefers_the_cheaper_of_equally_good_trials(tmp_path):
    points = [{"lr": 1e-3, "length": n % 8 + 1, "deep": True} for n in range(24)]

    def next_length(cost: str | None) -> float:
        """Mean over seeds."""
        found = []
        for seed in range(10):
            config = tpe(tmp_path, cost=cost, seed=seed)
            known = [an_outcome(n, p, 0.5, trained=10 ** p["length"]) for n, p in enumerate(points)]
            found.append(suggest(config.space, config.search, points, known)["length"])
        return sum(found) / len(found)

    assert next_length("trained") < next_length(None) - 1


def test_what_tpe_suggested_is_on_disk_in_order(tmp_path):
    for length in (3, 1):
        record(tmp_path, {"length": length})
    with (tmp_path / "plan.jsonl").open("a") as file:
        file.write('{"number": 2, "par')  # killed within the line
    assert recorded(tmp_path) == [{"length": 3}, {"length": 1}]
    record(tmp_path, {"length": 7})
    assert recorded(tmp_path)[2] == {"length": 7}


def test_a_failed_trial_is_tried_again_a_finished_or_stopped_one_kept(tmp_path):
    assert saved_outcome(tmp_path) is None
    for status, back in (("finished", True), ("stopped", True), ("failed", False)):
        found = an_outcome(0, {"length": 1}, 0.5, status=status)
        save_outcome(tmp_path, found)
        assert saved_outcome(tmp_path) == (found if back else None)


PROMPT = PromptConfig(data=".", backbone=".", cpus=1)


@pytest.mark.parametrize(
    ("workers", "cpus", "nodes", "width"),
    [
        (1, 1, [2], 2),
        (0, 2, [2, 3], 2),  # a trial does not spread over nodes
        (2, 1, [8], 2),  # 2 x (1 + 2), and 2 that would start a third's own process alone
        (2, 1, [3], 1),
        (2, 3, [4, 3], 1),
        (2, 3, [5], 0),
        (3, 1, [3], 0),  # the trial's own CPU counts: this is what hangs for ever otherwise
    ],
)
def test_width_comes_from_the_cluster_own_cpu_of_nested_trials_counted(workers, cpus, nodes, width):
    config = PROMPT.model_copy(update={"workers": workers, "cpus": cpus})
    wanted = need(config, 1.0, gpu_there=False)
    there = [{"CPU": float(n), "GPU": 0.0} for n in nodes]
    if width:
        assert concurrency(wanted, there) == width
    else:
        with pytest.raises(InputError, match=r"a trial needs 1 CPU for itself and \d x \d CPU for its workers"):
            concurrency(wanted, there)


def test_width_by_gpus_and_shares_of_them():
    there = [{"CPU": 16.0, "GPU": 2.0}]
    assert concurrency(need(PROMPT, 1.0, gpu_there=True), there) == 2
    assert concurrency(need(PROMPT, 0.25, gpu_there=True), there) == 8
    assert concurrency(need(PROMPT.model_copy(update={"gpu": False}), 1.0, gpu_there=True), there) == 16


def test_a_trial_tells_the_mean_over_its_stages_and_no_epoch_twice(tmp_path):
    told = TrialMetrics()
    assert told("complete", 1, {"loss": 2.0, "peak_memory_mb": 5.0}) == {
        "loss": 2,
        "peak_memory_mb": 5,
        "epoch": 1,
    }
    assert told("complete", 2, {"loss": 1.0, "peak_memory_mb": 9.0}) == {
        "loss": 1,
        "peak_memory_mb": 9,
        "epoch": 2,
    }
    assert told("complete", 1, {"loss": 2.0, "peak_memory_mb": 5.0}) is None
    both = told("noisy", 1, {"loss": 4.0, "peak_memory_mb": 7.0})
    assert both == {"loss": 2.5, "peak_memory_mb": 9.0, "epoch": 3}
    for stage, values in (("a", (1.0, 0.5)), ("b", (2.0,))):
        (tmp_path / "logs" / stage).mkdir(parents=True)
        for epoch, loss in enumerate(values, start=1):
            append_metrics(tmp_path / "logs" / stage, epoch, {"loss": loss})
    assert [line["loss"] for line in read_trial_metrics(tmp_path, ("a", "b"))] == [1.0, 0.5, 1.25]


def test_table_means_over_seeds_front_and_failures(tmp_path):
    config = sweep_config(tmp_path, space={"length": [1, 2, 3], "seed": [0, 1]})
    values = {(1, 0): 0.5, (1, 1): 0.7, (2, 0): 0.8, (2, 1): 0.8, (3, 0): 0.75}
    found = [
        an_outcome(n, {"length": a, "seed": s}, value, epoch_seconds=float(a), train_seconds=2.0 * a)
        for n, ((a, s), value) in enumerate(values.items())
    ]
    lost = {"status": "failed", "curve": (), "metrics": {}, "error": "loss is nan"}
    found.append(an_outcome(5, {"length": 3, "seed": 1}, 0.0, **lost))
    lines = summarise(found, "val_accuracy")
    assert [(line.params["length"], line.seeds) for line in lines] == [(1, 2), (2, 2), (3, 1)]
    assert lines[0].mean == pytest.approx(0.6)
    assert lines[0].sd == pytest.approx(0.02**0.5)
    top = best(lines, config.search)
    assert top is not None
    assert top.params == {"length": 2}
    edge = front(lines, config.search, "epoch_seconds")
    assert [line.params["length"] for line in edge] == [1, 2], "3 costs more than 2 and is worse"
    write_tables(tmp_path, "Sweep mini", found, config.space, config.search)
    text = (tmp_path / "sweep.md").read_text()
    assert "| 1 | 60.0 ± 14.1 | 2 |" in text
    assert "| 2 | **80.0 ± 0.0** | 2 |" in text
    assert "| 1 failed |" in text
    assert "trial 005 failed: loss is nan" in text
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val_accuracy"] for row in rows] == ["0.5", "0.7", "0.8", "0.8", "0.75", ""]
    assert rows[3]["seed"] == "1"
    assert (tmp_path / "sweep.png").stat().st_size > 5000


def test_halving_stops_the_worse_finishes_the_last_and_remembers_an_earlier_call():
    from types import SimpleNamespace

    from tuning.config import EarlyStop
    from tuning.search import Halving

    def asha(*curves):
        return Halving(EarlyStop(grace=1, reduction=2), "val_accuracy", "max", 4, curves)

    def run(scheduler, *values):
        trial = SimpleNamespace(trial_id="new")
        scheduler.on_trial_add(None, trial)
        lines = [{"epoch": n, "val_accuracy": v} for n, v in enumerate(values, start=1)]
        return [scheduler.on_trial_result(None, trial, line) for line in lines]

    good = (0.5, 0.6, 0.7, 0.8)
    assert run(asha(), 0.1) == ["CONTINUE"], "nothing to compare with yet"
    assert run(asha(good), 0.1) == ["STOP"]
    assert run(asha(good), 0.6, 0.7, 0.8, 0.1)[-1] == "CONTINUE", "it has its last epoch: let it be saved"


def test_finetune_sweeps_need_no_features(tmp_path):
    from tuning.prerequisites import _features

    space = {"lr": [1e-3], "backbone.dim": [48, 96]}
    config = sweep_config(tmp_path, recipe="finetune", settings={}, space=space, data={"media": "."})
    check(config)
    assert _features(config) == []
    made = config.trial({"lr": 1e-3, "backbone.dim": 96}, data=".")
    assert isinstance(made, FinetuneConfig)
    assert made.backbone.dim == 96
    depths = sweep_config(tmp_path, space={"depth": {"range": [0, 2]}}, search={"method": "random"})
    assert _features(depths) == [("", 0), ("", 1), ("", 2)], "every depth that can be drawn, once"


def test_data_without_a_validation_split_is_refused_before_anything_starts(tmp_path, capsys):
    media_dataset(tmp_path / "media", {"train": 8, "validation": 4})
    space = tmp_path / "mine.yaml"
    space.write_text(f"recipe: finetune\ndata: {{media: {tmp_path / 'media'}}}\nspace: {{lr: {{grid: [0.1, 0.2]}}}}\n")
    assert main([str(space), "--runs", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert "has no split 'val', and trials are chosen by val_accuracy" in said
    assert "did you mean 'validation'" in said
    assert not (tmp_path / "runs").exists()


def test_features_where_media_are_meant_are_refused(tmp_path, capsys):
    feature_dataset(tmp_path / "features", {"train": 8, "val": 4}, SMALL, "f" * 64)
    space = tmp_path / "mine.yaml"
    space.write_text(
        f"recipe: finetune\ndata: {{media: {tmp_path / 'features'}}}\nspace: {{lr: {{grid: [0.1, 0.2]}}}}\n"
    )
    assert main([str(space), "--runs", str(tmp_path / "runs")]) == 2
    assert "these are features shards" in capsys.readouterr().err
