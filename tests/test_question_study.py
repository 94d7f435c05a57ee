"""Studies of question answering: sound presets, typos refused at once, the tiny one from clips to table."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from configs import load_config
from configs.backbone import load_backbone
from shards.errors import InputError
from shards.schema import DatasetInfo
from tests.test_study import made, of_kind
from trainers.avqa.config import AVQAConfig, TrainMissing
from trainers.journal import logs, read_metrics
from trainers.tracking import Store
from tuning.question_study import QuestionStudyConfig, check
from tuning.several import smallest_node
from tuning.study import main

ROOT = Path(__file__).resolve().parent.parent
unit, on_ray = pytest.mark.unit, pytest.mark.ray
ROWS = {"zero": {}, "deaf": {"absent": "audio", "label": "specialist"}}
COMPLETE_ALONE = "avqa_complete"  # a preset that compares no recovery
STUDY = {
    "study": "avqa",
    "corpus": {"clips": 20},
    "solos": {"clips": 16},
    "networks": {"avst": {"sizes": {"dim": 16}, "seeds": [3, 4]}, "avsd": {"lr": 1e-2}},
    "training": {"epochs": 2, "lr": 1e-3, "sizes": {"dropout": 0.0}},
    "rows": ROWS,
}


def preset(folder: Path, **changes: object) -> str:
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(path)


@unit
def test_the_smallest_node_is_one_that_offers_processors():
    def node(alive: bool = True, **resources: float) -> dict:
        return {"Alive": alive, "Resources": {"memory": 1e9, **resources}}

    head, gone = node(), node(alive=False, CPU=2.0)  # a head with num-cpus 0 lists none
    assert smallest_node([head, node(CPU=16.0), node(CPU=8.0, GPU=1.0), gone]) == 8
    assert smallest_node([node(CPU=0.0), node(CPU=4.0)]) == 4
    assert smallest_node([head, gone]) == 1


@unit
def test_runs_are_networks_times_seeds_times_rows_each_laid_over_the_other(tmp_path):
    config = load_config(QuestionStudyConfig, preset(tmp_path))
    runs = [run.config for run in config.runs(data="d", questions="q")]
    assert all(isinstance(run, AVQAConfig) for run in runs)
    assert [(r.network, r.seed, r.method, r.absent, r.lr, r.sizes.get("dim")) for r in runs] == [
        ("avst", 3, "zero", None, 1e-3, 16),
        ("avst", 3, "specialist", "audio", 1e-3, 16),
        ("avst", 4, "zero", None, 1e-3, 16),
        ("avst", 4, "specialist", "audio", 1e-3, 16),
        ("avsd", 0, "zero", None, 1e-2, None),
        ("avsd", 0, "specialist", "audio", 1e-2, None),
    ]
    assert all(run.sizes["dropout"] == 0 and run.epochs == 2 for run in runs)


@unit
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"rows": {"rmm": {"recovry": "rmm"}}}, ["networks.avst with rows.rmm.recovry", "mean 'recovery'"]),
        (
            {"rows": {"rmm": {"recovery": "rmm", "recovery_sizes": {"slotss": 3}}}},
            ["unknown size 'slotss'", "did you mean 'slots'"],
        ),
        ({"networks": {"avts": {}}}, ["networks.avts", "did you mean 'avst'"]),
        ({"training": {"epochs": 0}}, ["epochs", "0 does not fit"]),
        ({"solos": None}, ["need solos"]),
        ({"solos": {"clips": 8, "finetune": {"epoch": 3}}}, ["solos.finetune.epoch", "mean 'epochs'"]),
        ({"dense": {"epoch": 3}}, ["dense.epoch", "mean 'epochs'"]),
        ({"dense": {"targets": "none.jsonl"}}, ["none.jsonl", "dense.targets"]),
        ({"dense": {}, "features": {"extractor": "vggish+resnet18"}}, ["dense is for a backbone"]),
        (
            {"dense": {}, "corpus": {"kind": "manifest", "source": "a.csv", "questions": "q.jsonl"}},
            ["no dense targets", "set dense.targets"],
        ),
        ({"corpus": {"kind": "ensembles"}}, ["is required"]),
        ({"corpus": {"kind": "manifest", "source": "a.csv"}}, ["needs source and questions"]),
        (
            {"corpus": {"kind": "manifest", "source": "a.csv", "questions": "q.jsonl"}},
            ["a.csv", "corpus.source"],
        ),
        ({"evaluate": {"rates": [200]}}, ["evaluate.rates", "not 200"]),
        ({"evaluate": {"rate": [20]}}, ["evaluate.rate", "did you mean 'rates'"]),
        ({"network": {}}, ["unknown name 'network'", "did you mean 'networks'"]),
    ],
)
def test_a_typo_is_refused_before_any_work(tmp_path, capsys, changes, parts):
    name = preset(tmp_path, **changes)
    assert main([name, "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert [part for part in [*parts, "remedy: "] if part not in error] == [], error
    assert [path.name for path in tmp_path.iterdir()] == ["mini.yaml"]


@unit
def test_a_row_starts_from_another_rows_run_of_its_network_and_seed(tmp_path):
    rows = {**ROWS, "frozen": {"start": "zero", "freeze": ["network"], "recovery": "rmm"}}
    runs = {
        run.name: run
        for run in load_config(QuestionStudyConfig, preset(tmp_path, rows=rows)).runs(data="d", questions="q")
    }
    starts = {name: run.start for name, run in runs.items() if run.start is not None}
    assert starts == {
        (network, seed, None, "frozen"): (network, seed, None, "zero")
        for network, seed in (("avst", 3), ("avst", 4), ("avsd", 0))
    }
    assert {*starts.values()} <= {*runs}
    assert all(runs[name].config.freeze == ("network",) for name in starts)
    for start in ("zeroo", "frozen"):
        rows["frozen"]["start"] = start
        with pytest.raises(InputError, match=f"no row '{start}' to start from"):
            load_config(QuestionStudyConfig, preset(tmp_path, rows=rows))


@unit
def test_every_row_is_trained_at_every_rate_of_missing_training_clips(tmp_path):
    config = load_config(QuestionStudyConfig, preset(tmp_path, train_rates=[0, 30], networks={"avst": {}}))
    found = [(run.name, run.config.train_missing) for run in config.runs(data="d", questions="q")]
    names = [("avst", 0, rate, row) for rate in (0, 30) for row in ROWS]
    assert [name for name, _ in found] == names
    lacking = TrainMissing(audio=15, visual=15, balanced=True)
    assert [missing.rates for _, missing in found] == [{"audio": 0, "visual": 0}] * 2 + [lacking.rates] * 2
    assert found[2][1] == lacking
    for rate in (15, 102):
        with pytest.raises(InputError, match=f"train_rates.*not {rate}"):
            load_config(QuestionStudyConfig, preset(tmp_path, train_rates=[rate]))


@unit
@pytest.mark.parametrize("name", of_kind("avqa"))
def test_every_preset_is_sound_and_has_the_rows_of_the_table(name):
    config = load_config(QuestionStudyConfig, name)
    check(config)
    rows = {(run.method, run.absent) for run, *_ in config.runs(data=".", questions=".")}
    compared = {("rmm_avr", None), ("specialist", "audio"), ("specialist", "visual")}
    assert {("zero", None), *(() if name == COMPLETE_ALONE else compared)} <= rows
    solos = config.solos
    assert solos is not None
    sides = {config.ingest.image_size, solos.ingest.image_size, solos.finetune["backbone"]["image_size"]}
    assert sides == {config.corpus.size}
    assert config.ingest.frames == 5, "one a second"


@on_ray
def test_the_demo_from_clips_to_the_table_and_nothing_twice(tmp_path, mlflow_root, ray_cluster, capsys):
    """One of its rows on two workers of Ray, the others side by side."""
    command = ["avqa_demo", "--data", str(tmp_path / "data"), "--runs", str(mlflow_root)]
    command += ["training.workers=0", "rows.rmm_avr.workers=2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for method in ("avst | zero", "avst | rmm_avr", "avst | specialist", " | question look-up"):
        assert f"| {method} |" in printed
    (out,) = mlflow_root.glob("avqa_demo-*")
    (dense,) = mlflow_root.glob("dense-*")
    (features,) = (tmp_path / "data").glob("shards-*/features/*/dataset.json")
    assert DatasetInfo.load(features.parent).backbone.fingerprint == load_backbone(dense).fingerprint
    assert {"results.csv", "results.md", "results.png", "masks.csv"} <= {p.name for p in out.iterdir()}
    client = Store(mlflow_root).client
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert {run.info.experiment_id for run in found} == {found[0].info.experiment_id}
    before = made(tmp_path)
    assert main(command) == 0
    assert made(tmp_path) == before
    again = capsys.readouterr().out
    assert again.startswith(f"{printed.split('done in')[0]}already finished: {out}\n")


@pytest.mark.slow
def test_a_study_that_is_told_to_stop_leaves_no_run_running(tmp_path):
    """Started as a shell starts what goes on in the background, with SIGINT ignored."""
    runs, log = tmp_path / "runs", tmp_path / "log"
    command = ["avqa_demo", "--data", str(tmp_path / "data"), "--runs", str(runs)]
    command += ["training.workers=0", "training.epochs=100000"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuning.study", *command],
            cwd=ROOT,
            stderr=out,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
    try:
        end = time.monotonic() + 400
        while not any(read_metrics(logs(run, "avqa")) for run in runs.glob("avqa-*")):
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, log.read_text()
    finally:
        process.kill()
    client = Store(runs).client
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    stopped = [run for run in found if run.info.run_name.startswith("avqa")]
    assert len(stopped) > 1
    assert {run.info.status for run in stopped} == {"KILLED"}
