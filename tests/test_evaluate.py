"""Evaluation through real checkpoints: each way of choosing prompts, and figures checked by hand."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from configs import load_config
from configs.noise import Noise
from models.batch import AVBatch
from models.conditions import CASES, CONDITIONS, NOISY_CASES, PUBLISHED, Condition
from models.prompts import DualPrompts, concatenate
from models.tuned import Tuned
from shards.checkpoint import load_checkpoint, save_checkpoint
from shards.errors import InputError
from shards.reader import ShardDataset
from shards.schema import DatasetInfo
from tests.fixtures.builders import LABELS, absent, media_records, split_info
from tests.fixtures.worlds import CASE_WISE, SIZES, World
from trainers.bootstrap import wilson
from trainers.classification.config import CaseConfig, EvaluateConfig, PromptConfig
from trainers.classification.evaluate import _meeting_the_same
from trainers.classification.items import MediaItems
from trainers.classification.predict import Predictor, detect
from trainers.classification.results import ClassRow, Row, markdown, recovered, summarise
from trainers.classification.stages import build_case_module, input_spec
from trainers.data import batches
from trainers.differences import DifferenceRow
from trainers.distinguish import distinguish
from trainers.evaluate import evaluate
from trainers.recipe import FinishedRun
from trainers.recipes import RECIPES
from trainers.scored import ANSWERS_FILE
from trainers.tables import read_rows
from trainers.tracking import read_runs
from tuning.report.clips import classified_clips, clip_blocks, load_run
from tuning.report.evaluations import Evaluation, evaluations
from tuning.report.run_selection import choose

pytestmark = pytest.mark.integration
CPU, TEST = torch.device("cpu"), SIZES["test"]
METHODS = ["finetune", *CASE_WISE]
BASIC = [condition.name for condition in PUBLISHED]
LEFT = {  # positions in the test split that have something left when a modality is taken away
    "audio_missing": [i for i in range(TEST) if absent(i)[1]],
    "visual_missing": [i for i in range(TEST) if absent(i)[0]],
}


def fresh(world: World, method: str) -> Predictor:
    return load_run({"finetune": world.backbone, **world.others}[method])


LOADED: dict[str, Predictor] = {}  # for reading only
BY_HAND: dict[tuple[Path, str], Tuned] = {}


def predictor(world: World, method: str) -> Predictor:
    if method not in LOADED:
        LOADED[method] = fresh(world, method)
    return LOADED[method]


def inputs(p: Predictor, data: Path, condition: str, order: list[int] | None = None) -> AVBatch:
    """Samples of the test split under a condition, as one batch."""
    spec, trained = input_spec(p.backbone), p.run.config
    items = MediaItems(
        ShardDataset(data, "test"), p.backbone.labels, spec, (condition,), trained.noise.build(), trained.seed
    )
    order = LEFT.get(condition, list(range(TEST))) if order is None else order
    (batch,) = batches(items, order, len(order), 0, drop_last=False)
    return batch


@torch.inference_mode()
def predicted(p: Predictor, batch: AVBatch, condition: str) -> dict[str, Tensor]:
    return p.predict(batch, CONDITIONS[condition])


def by_hand(p: Predictor, case: str) -> Tuned:
    """The case's module from its checkpoint, beside the backbone; for reading only."""
    if (p.run.folder, case) not in BY_HAND:
        config = p.run.config
        assert isinstance(config, CaseConfig)
        tuned = Tuned(p.backbone.net, build_case_module(config, p.backbone.net), config.head)
        tuned.load_trained(load_checkpoint(p.run.folder / case).weights)
        BY_HAND[p.run.folder, case] = tuned.eval()
    return BY_HAND[p.run.folder, case]


def row_of(batch: AVBatch, i: int) -> AVBatch:
    return AVBatch(**{name: value[[i]] for name, value in vars(batch).items()})


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("condition", BASIC)
@pytest.mark.parametrize("method", CASE_WISE)
def test_situation_is_the_module_of_the_conditions_case(world, method, condition):
    """The predictor computes from tokens at the run's depth; by hand it is done from the inputs."""
    p = predictor(world, method)
    batch = inputs(p, world.media, condition)
    out = predicted(p, batch, condition)["situation"]
    with torch.inference_mode():
        expected = {case: by_hand(p, case)(batch.audio, batch.visual, batch.present) for case in CASES}
    assert [case for case in CASES if close(out, expected[case])] == [CONDITIONS[condition].case]


@pytest.mark.parametrize("method", CASE_WISE)
def test_detected_follows_the_verdict_on_each_sample_alone(world, method):
    p, seen = predictor(world, method), Counter[str]()
    modules = {case: by_hand(p, case) for case in CASES}
    for condition in ("complete", "noisy_audio", "visual_missing"):
        batch = inputs(p, world.media, condition)
        out = predicted(p, batch, condition)["detected"]
        for i in range(len(batch)):
            alone = row_of(batch, i)
            case = verdict(p, alone)
            seen[case] += 1
            with torch.inference_mode():
                expected = modules[case](alone.audio, alone.visual, alone.present)
            assert close(out[[i]], expected), (condition, i, case)
    assert len(seen) > 1, "the detector must have had something to choose"


@torch.inference_mode()
def verdict(p: Predictor, alone: AVBatch) -> str:
    """The case of one sample, told by the detector from its own tokens; an absent modality is ruined."""
    chooser = p.predict
    tokens = p.backbone.net.tokens_at(chooser.depth, alone.audio, alone.visual, alone.present)  # type: ignore[attr-defined]
    (case,) = detect(chooser.detector, *tokens, alone.present)  # type: ignore[attr-defined]
    return case


def test_a_detector_that_never_or_always_speaks_decides_the_case(world):
    """Constant verdicts, put into the probes: what is there is clean, or ruined; what is absent is ruined."""
    p = fresh(world, "prompt")
    batch = inputs(p, world.media, "complete")
    tokens = p.backbone.net.tokens_at(0, batch.audio, batch.visual, batch.present)
    detector = p.predict.detector  # type: ignore[attr-defined]
    for bias, clean in ((-1e6, True), (1e6, False)):
        with torch.no_grad():
            for probe in detector.probes.values():
                probe[-1].bias.fill_(bias)
            cases = detect(detector, *tokens, batch.present)
        whole = "complete" if clean else "noisy_both"
        names = {(True, True): whole, (False, True): "noisy_audio", (True, False): "noisy_visual"}
        if not clean:
            names = dict.fromkeys(names, "noisy_both")
        assert cases == [names[tuple(there)] for there in batch.present.tolist()]


def test_concat_is_all_four_sets_side_by_side_and_for_prompts_alone(world):
    p = predictor(world, "prompt")
    batch = inputs(p, world.media, "noisy_both")
    sets = [by_hand(p, case).module for case in CASES]
    joined = concatenate([s for s in sets if isinstance(s, DualPrompts)], p.backbone.net.config)
    assert joined.input_tokens["audio"].shape[1] == 4 * 2
    out = predicted(p, batch, "noisy_both")
    with torch.inference_mode():
        expected = Tuned(p.backbone.net, joined)(batch.audio, batch.visual, batch.present)
    assert close(out["concat"], expected)
    assert not close(out["concat"], out["situation"])
    for method in ("lora", "adapter"):
        other = predictor(world, method)
        assert set(predicted(other, inputs(other, world.media, "complete"), "complete")) == {
            "situation",
            "detected",
        }


@pytest.mark.parametrize("condition", ["complete", "noisy_both", "audio_missing"])
@pytest.mark.parametrize("method", METHODS)
def test_a_samples_output_does_not_depend_on_its_neighbours(world, method, condition):
    p = predictor(world, method)
    order = LEFT.get(condition, list(range(TEST)))
    whole = predicted(p, inputs(p, world.media, condition, order), condition)
    shuffled = np.random.default_rng(0).permutation(len(order)).tolist()
    for positions in (shuffled, shuffled[:3], [0]):
        some = predicted(p, inputs(p, world.media, condition, [order[i] for i in positions]), condition)
        for selection, logits in some.items():
            assert close(logits, whole[selection][positions]), (selection, positions)


@pytest.fixture(scope="module", params=["nan", "others"])
def replaced(world, request, tmp_path_factory) -> dict[str, Path]:
    """By modality: the same dataset with that modality's stored content of the test split replaced."""
    out = {}
    for modality, member in (("audio", "audio.npy"), ("visual", "frames.npy")):
        folder = tmp_path_factory.mktemp("replaced") / modality
        shutil.copytree(world.media, folder, ignore=shutil.ignore_patterns("features"))
        records = list(media_records("test", TEST, lambda i: LABELS[i % len(LABELS)]))
        having = [members for _, members in records if member in members]
        contents = [members[member] for members in having]
        for members, other in zip(having, contents[1:] + contents[:1], strict=True):
            members[member] = blank(other) if request.param == "nan" else other
        info = DatasetInfo.load(folder)
        for shard in info.splits["test"].shards:
            (folder / shard.name).unlink()
        split = split_info(folder, "test", records, 9)
        info.model_copy(update={"splits": {**info.splits, "test": split}}).save(folder)
        out[modality] = folder
    return out


def blank(array: np.ndarray) -> np.ndarray:
    """NaN, or white where the stored type has none."""
    return np.full_like(array, np.nan if array.dtype.kind == "f" else 255)


@pytest.mark.parametrize("method", METHODS)
def test_an_absent_modalitys_content_changes_no_bit(world, replaced, method):
    p = predictor(world, method)
    for modality, folder in replaced.items():
        condition = f"{modality}_missing"
        before = predicted(p, inputs(p, world.media, condition), condition)
        after = predicted(p, inputs(p, folder, condition), condition)
        for selection, logits in before.items():
            assert logits.isfinite().all()
            assert torch.equal(logits, after[selection]), (condition, selection)
    heard = predicted(p, inputs(p, world.media, "visual_missing"), "visual_missing")
    other = predicted(p, inputs(p, replaced["audio"], "visual_missing"), "visual_missing")
    assert all(not torch.equal(heard[s], other[s]) for s in heard), "what is there must count"


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory, _mlflow_schema) -> tuple[Path, list[Row]]:
    root = tmp_path_factory.mktemp("evaluated")
    shutil.copy(_mlflow_schema, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return root / "results", evaluate(world.all, EvaluateConfig(data=world.media, batch_size=7), root / "results")


def test_rows_are_methods_times_selections_times_conditions(evaluated):
    out, rows = evaluated
    selections = {"finetune": [""], "prompt": ["situation", "concat", "detected"]}
    selections |= {"lora k=1": ["situation", "detected"], "adapter": ["situation", "detected"]}
    expected = {(m, s, c) for m, of in selections.items() for s in of for c in BASIC}
    assert {(r.method, r.selection, r.condition) for r in rows} == expected
    assert len(rows) == len(expected)
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(x["method"], x["selection"], float(x["accuracy"])) for x in lines] == [
        (r.method, r.selection, r.accuracy) for r in rows
    ]
    assert (out / "results.png").stat().st_size > 10_000


def test_a_clip_is_read_once_a_condition_for_all_methods(world, mlflow_root, tmp_path, monkeypatch):
    read, get = Counter[int](), MediaItems.__getitem__
    monkeypatch.setattr(MediaItems, "__getitem__", lambda items, i: (read.update([i]), get(items, i))[1])
    conditions = ("complete", "noisy_both", "audio_missing")
    evaluate(world.all, EvaluateConfig(data=world.media, conditions=conditions), tmp_path / "out", mlflow_root)
    assert read == Counter([*range(TEST), *range(TEST), *LEFT["audio_missing"]])


def test_another_seed_is_met_apart(world):
    one = predictor(world, "finetune")

    def trained(**changes: object) -> Predictor:
        return replace(one, run=replace(one.run, config=one.run.config.model_copy(update=changes)))

    given = [one, trained(seed=1), trained(lr=9.0)]
    assert [[given.index(p) for p in met] for met in _meeting_the_same(given)] == [[0, 2], [1]]


def test_runs_that_were_trained_with_different_noise_meet_the_one_that_is_named(world, mlflow_root, tmp_path):
    folders = {}
    for name, noise in (("mild", {"alone": 2}), ("blurred", {"visual": ["blur"]})):
        folders[name] = tmp_path / f"finetune-{name}"
        shutil.copytree(world.backbone, folders[name])
        record = json.loads((folders[name] / "config.json").read_text())
        record["config"]["noise"] |= noise
        (folders[name] / "config.json").write_text(json.dumps(record))
    config = EvaluateConfig(data=world.media, conditions=("complete", "noisy_visual"))
    with pytest.raises(InputError, match=r"(?s)'noise': .*trained with different noise.*--set noise=ours"):
        evaluate(list(folders.values()), config, tmp_path / "out", mlflow_root)
    assert not (tmp_path / "out").exists()
    without = config.model_copy(update={"conditions": ("complete", "audio_missing")})
    assert len(evaluate(list(folders.values()), without, tmp_path / "without", mlflow_root)) == 4
    named = config.model_copy(update={"noise": Noise(visual=("pixelate",))})
    rows = evaluate(list(folders.values()), named, tmp_path / "out", mlflow_root)
    found = {c: {row.accuracy for row in rows if row.condition == c} for c in config.conditions}
    assert [len(accuracies) for accuracies in found.values()] == [1, 1], "the same weights, the same input"
    with (tmp_path / "out" / "draws.csv").open() as file:
        met = {line["visual"] for line in csv.DictReader(file) if line["condition"] == "noisy_visual"}
    assert met == {"pixelate", "absent"}


def test_a_sample_with_nothing_left_is_not_counted(evaluated):
    _, rows = evaluated
    counts = {"audio_missing": len(LEFT["audio_missing"]), "visual_missing": len(LEFT["visual_missing"])}
    assert set(counts.values()) == {16, 17}
    assert all(row.samples == counts.get(row.condition, TEST) for row in rows)


def test_accuracies_are_those_of_the_logits(world, evaluated):
    found = {(r.method, r.selection, r.condition): r.accuracy for r in evaluated[1]}
    for method in METHODS:
        p = predictor(world, method)
        for condition in BASIC:
            batch = inputs(p, world.media, condition)
            for selection, logits in predicted(p, batch, condition).items():
                share = float((logits.argmax(dim=1) == batch.label).float().mean())
                assert found[p.run.method, selection, condition] == pytest.approx(share)


def test_a_recipe_of_several_stages_is_logged_with_their_means(world, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (run,) = (run for run in read_runs(world.runs) if run.name == world.others["lora"].name)
    staged = [run.metrics[f"{case}/val_accuracy"] for case in CASES]
    assert run.metrics["val_accuracy"] == pytest.approx(sum(staged) / len(CASES))
    assert run.metrics["peak_memory_mb"] == max(run.metrics[f"{case}/peak_memory_mb"] for case in CASES)


def test_a_reports_clips_have_the_answers_that_were_evaluated(evaluated):
    out, rows = evaluated
    (found,) = evaluations(choose(out.parent))
    assert isinstance(found, Evaluation)
    _, *clips = clip_blocks(classified_clips, found, TEST)
    assert len(clips) == TEST
    answers: dict[tuple[str, str], list[bool]] = {}
    for view in (view for clip in clips for view in clip.views):
        for answer in view.answers:
            if answer.right is not None:
                answers.setdefault((answer.method, view.condition), []).append(answer.right)
        assert view.sound is None or view.condition != "audio missing"
        assert view.frame is None or view.condition != "visual missing"
    for row in rows:
        name = f"{row.method}, {row.selection}" if row.selection else row.method
        right = answers[name, row.condition.replace("_", " ")]
        assert (len(right), sum(right) / len(right)) == (row.samples, pytest.approx(row.accuracy))


def test_a_report_says_so_when_the_shards_are_gone(evaluated, tmp_path):
    (found,) = evaluations(choose(evaluated[0].parent))
    gone = replace(found, config={**found.config, "data": str(tmp_path / "gone")})
    (line,) = clip_blocks(classified_clips, gone, 2)
    assert line.warn
    assert f"{tmp_path / 'gone'}" in line.text
    (line,) = clip_blocks(classified_clips, replace(found, runs=dict.fromkeys(found.runs, tmp_path)), 2)
    assert "No clips are shown" in line.text


def test_draws_name_every_sample_once_per_condition(evaluated):
    with (evaluated[0] / "draws.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len({(x["seed"], x["condition"], x["id"]) for x in lines}) == len(lines) == len(BASIC) * TEST
    fates = {c: Counter(x["audio"] for x in lines if x["condition"] == c) for c in BASIC}
    gone = sum(not absent(i)[0] for i in range(TEST))
    assert fates["complete"] == fates["noisy_visual"] == {"clean": TEST - gone, "absent": gone}
    assert fates["audio_missing"] == {"missing": TEST - gone, "absent": gone}
    assert set(fates["noisy_audio"]) == {"gaussian", "time_mask", "time_shift", "absent"}


def test_the_same_evaluation_again_is_kept_and_another_is_not(world, evaluated, mlflow_root):
    out, rows = evaluated
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert evaluate(world.all, EvaluateConfig(data=world.media, batch_size=7), out) == rows
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    other = EvaluateConfig(data=world.media, conditions=("complete",))
    again = evaluate(world.all[:1], other, mlflow_root / "other")
    assert [r.condition for r in again] == ["complete"]


def test_answers_intervals_and_costs_of_an_evaluation(evaluated):
    out, rows = evaluated
    found: dict[tuple[str, str], list[bool]] = {}
    for row in pq.read_table(out / ANSWERS_FILE).to_pylist():
        found.setdefault((row["method"], row["condition"]), []).append(row["right"])
    assert set(found) == {(row.line, row.condition) for row in rows}
    for row in rows:
        right = found[row.line, row.condition]
        assert (len(right), np.mean(right)) == (row.samples, pytest.approx(row.accuracy))
        assert (row.low, row.high) == wilson(row.accuracy, row.samples), "one seed, clips without groups"
        assert row.inference_seconds > 0
    differences = read_rows((out / "differences.csv").read_text(), DifferenceRow)
    assert differences
    assert {row.other for row in differences if row.family == "baseline"} == {"finetune"}
    assert "### Gain and cost" in (out / "results.md").read_text()
    assert (out / "cost.png").stat().st_size > 10_000


def test_a_baseline_that_is_not_there_is_refused_before_anything_runs(world, tmp_path):
    config = EvaluateConfig(data=world.media, baseline="finetune_noisy")
    with pytest.raises(InputError, match="no method 'finetune_noisy'"):
        evaluate(world.all, config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_condition_that_leaves_nothing_is_refused(world, tmp_path):
    """A split of silent clips, without their pictures."""
    info = DatasetInfo.load(world.media)
    silent = [r for i, r in enumerate(media_records("test", TEST, lambda i: info.labels[0])) if not absent(i)[0]]
    split = split_info(tmp_path / "silent", "test", silent, 9)
    info.model_copy(update={"splits": {"test": split}}).save(tmp_path / "silent")
    config = EvaluateConfig(data=tmp_path / "silent", conditions=("visual_missing",))
    with pytest.raises(InputError, match="visual_missing"):
        evaluate([world.backbone], config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_of(seed: int, **settings: object) -> FinishedRun:
    config = load_config(
        PromptConfig, None, [f"{k}={v}" for k, v in {"data": "d", "backbone": f"b{seed}", **settings}.items()]
    ).model_copy(update={"seed": seed})
    return FinishedRun(Path(f"prompt-{seed}-{settings}"), RECIPES["prompt"], config, "prompt")


def test_methods_of_one_recipe_are_told_apart_by_what_differs():
    runs = [run_of(seed, length=length, workers=1 + seed) for seed in (0, 1) for length in (4, 8)]
    assert [r.method for r in distinguish(runs)] == ["prompt length=4", "prompt length=8"] * 2
    assert {r.method for r in distinguish(runs[::2])} == {"prompt"}
    with pytest.raises(InputError, match="same method with the same seed"):
        distinguish([run_of(0), run_of(0, workers=2)])


# By hand: seeds 0 and 1 of a clean model, one of a noisy and of prompts.
FIGURES = {
    ("finetune", "", 0): (0.90, 0.40, 0.30, 0.50),
    ("finetune", "", 1): (0.80, 0.50, 0.40, 0.60),
    ("finetune_noisy", "", 0): (0.80, 0.80, 0.70, 0.75),
    ("prompt", "situation", 0): (0.84, 0.70, 0.60, 0.80),
}


KNOWN = {"finetune": (0.30, 0.94), "prompt": (0.25, 0.755)}  # intervals, half 0.32 and 0.2525


def table() -> list[Row]:
    trained = {"prompt": 5}
    return [
        Row(m, s, seed, condition, accuracy, 40, trained.get(m, 500), 500, 2.0 + seed, 100.0, "run", low=low, high=high)
        for (m, s, seed), values in FIGURES.items()
        for condition, accuracy in zip(CASES, values, strict=True)
        for low, high in [KNOWN.get(m, (math.nan, math.nan))]
    ]


def test_means_spreads_and_recovered_gain_by_hand():
    clean, noisy, prompt = summarise(table())
    assert (clean.name, noisy.name, prompt.name) == ("finetune", "finetune_noisy", "prompt, situation")
    assert (clean.seeds, noisy.seeds) == (2, 1)
    assert clean.accuracy["complete"] == (pytest.approx(0.85), pytest.approx(0.0707107, abs=1e-6))
    assert noisy.accuracy["complete"] == (0.80, 0.0)
    assert clean.noisy == pytest.approx(0.45)  # of .45, .35, .55
    assert noisy.noisy == pytest.approx(0.75)
    assert prompt.noisy == pytest.approx(0.70)
    assert recovered(prompt, clean, noisy) == pytest.approx(0.25 / 0.30)
    assert recovered(prompt, noisy, clean) is None  # noisy training that gained nothing has no share
    assert clean.epoch_seconds == 2.5
    assert prompt.metrics()["trained_share"] == 0.01
    partly = [row for row in table() if row.condition != "noisy_both"]
    assert summarise(partly)[0].noisy is None


def test_the_table_in_markdown():
    text = markdown(summarise(table()), 40, "test").splitlines()
    assert text[0].startswith("| method | complete | noisy audio | noisy visual | noisy both | noisy mean |")
    clean = "| finetune | 85.0 ± 32.0 | 45.0 ± 32.0 | 35.0 ± 32.0 | 55.0 ± 32.0 | 45.0 | 0 % | all | 2.50 | 100 |"
    assert text[2] == clean
    assert text[3].startswith("| finetune_noisy | 80.0 | 80.0 | 70.0 | 75.0 |"), "no interval, none told"
    assert text[4].startswith(
        "| prompt, situation | 84.0 ± 25.2 | 70.0 ± 25.2 | 60.0 ± 25.2 | 80.0 ± 25.2 | 70.0 | 83 % |"
    )
    assert "40 test clips" in text[-1]


def test_conditions_and_noisy_cases_are_told_apart():
    assert isinstance(CONDITIONS["complete"], Condition)
    assert set(NOISY_CASES) < set(CASES) < set(CONDITIONS)


def test_accuracy_per_class_adds_up_to_the_whole(evaluated):
    out, rows = evaluated
    classes = read_rows((out / "classes.csv").read_text(), ClassRow)
    assert classes
    for row in rows:
        mine = [
            c for c in classes if (c.method, c.selection, c.condition) == (row.method, row.selection, row.condition)
        ]
        assert sum(c.samples for c in mine) == row.samples
        assert sum(c.accuracy * c.samples for c in mine) == pytest.approx(row.accuracy * row.samples)


def test_logits_that_are_nan_stop_an_evaluation_and_name_the_sample(world, tmp_path):
    """argmax of NaN is the first class: a plausible accuracy."""
    folder = tmp_path / world.backbone.name
    shutil.copytree(world.backbone, folder)
    saved = load_checkpoint(folder / "finetune")
    weights = {name: x.fill_(float("nan")) if name == "mlp_head.1.bias" else x for name, x in saved.weights.items()}
    save_checkpoint(folder / "finetune", weights, saved.meta)
    config = EvaluateConfig(data=world.media, conditions=("noisy_audio",), batch_size=7)
    with pytest.raises(FloatingPointError, match=r"finetune: logits of sample '.*' are NaN under noisy_audio"):
        evaluate([folder], config, tmp_path / "out")
    assert not (tmp_path / "out" / "results.csv").exists()
