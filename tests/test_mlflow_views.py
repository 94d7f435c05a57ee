from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.reporting import ended_run, trained_run
from trainers.mlflow_views import TAG, views
from trainers.tracking import Store, read_runs
from trainers.ui import links

pytestmark = pytest.mark.unit


@pytest.fixture
def store(mlflow_root):
    store = Store(mlflow_root)
    for length in (2, 4):
        trained_run(store, "prompt", 0, 0.1 * length, length=length, backbone=f"/r/{length}")
    found = {"accuracy/complete": 0.9, "accuracy/noisy_mean": 0.7, "accuracy/complete_Audio_Counting": 0.5}
    ended_run(store, "prompt", {"method": "prompt", "seeds": 2}, metrics={**found, "epoch_seconds": 2.0})
    return store


def test_views_list_one_kind_of_runs_by_what_differs_and_what_matters(store):
    results, training = views(read_runs(store.root))
    assert results.columns == (
        "params.`method`",
        "metrics.`accuracy/noisy_mean`",
        "metrics.`accuracy/complete`",
        "metrics.`epoch_seconds`",
    )
    assert results.order == "metrics.`accuracy/noisy_mean`"
    params = [column for column in training.columns if column.startswith("params")]
    assert params == ["params.`recipe`", "params.`seed`", "params.`length`"], "a path is no setting"
    assert "metrics.`val_accuracy`" in training.columns
    place = store.client.get_experiment_by_name("study-t").experiment_id
    for view, kind in zip(views(read_runs(store.root)), ("method", "training"), strict=True):
        listed = store.client.search_runs([place], view.runs, order_by=[f"{view.order} DESC"])
        known = {run.run_id: run.kind for run in read_runs(store.root)}
        assert {known[run.info.run_id] for run in listed} == {kind}
    values = [run.data.metrics["val_accuracy"] for run in listed]
    assert values == sorted(values, reverse=True)


def test_a_recipe_of_several_stages_shows_them_all_a_lone_stage_is_the_runs_own(store):
    both = {"val_accuracy": 0.5, "complete/val_accuracy": 0.6, "noisy_audio/val_accuracy": 0.4}
    one = {"val_accuracy": 0.5, "finetune/val_accuracy": 0.5}
    for name, metrics in (("lora-a", both), ("finetune-b", one)):
        ended_run(store, name, {"recipe": name}, tags={"commit": "c"}, metrics=metrics)
    shown = views(read_runs(store.root))[1].columns
    assert "metrics.`noisy_audio/val_accuracy`" in shown
    assert "metrics.`finetune/val_accuracy`" not in shown


def test_links_name_views_that_the_store_keeps(store):
    result, training = links(Path(store.root), 5123)
    assert "http://127.0.0.1:5123/#/experiments/1/runs?workflowType=machine_learning" in result
    assert result.endswith("viewStateShareKey=results")
    assert training.endswith("viewStateShareKey=training")
    kept = json.loads(store.client.get_experiment("1").tags[f"{TAG}results"])
    assert kept["name"] == "results"
    assert json.loads(kept["state"])["searchFilter"] == "params.method != ''"
