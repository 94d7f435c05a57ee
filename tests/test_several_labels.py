"""Clips with several labels: targets and losses by hand, mAP by its definition, recipes trained and judged."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from models.batch import AVBatch
from models.conditions import CONDITIONS
from pipelines.features import extract
from pipelines.settings import FeatureConfig
from shards.errors import InputError
from shards.reader import ShardDataset
from tests.fixtures.builders import LABELS, media_dataset, two_of
from tests.fixtures.worlds import CASE_WISE, NET, SIZES, World, train_run
from trainers.classification.config import EvaluateConfig
from trainers.classification.evaluate import items_under, prepare
from trainers.classification.objective import clip_loss
from trainers.classification.predict import MeanLogits, Predictor
from trainers.classification.results import ClassRow, markdown, summarise
from trainers.classification.targets import TargetForm, Targets
from trainers.data import collate
from trainers.evaluate import evaluate
from trainers.journal import logs, read_metrics
from trainers.loop import Rank
from trainers.metrics import RankedClips, StepOutput
from trainers.multilabel_metrics import class_average_precisions, mean_average_precision
from trainers.runs import read_run
from trainers.tables import read_rows
from tuning.config import SweepConfig
from tuning.prerequisites import check_metric
from tuning.report.clips import load_run
from tuning.report.command import report

unit, integration = pytest.mark.unit, pytest.mark.integration
SEVERAL = TargetForm(several=True)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory, _mlflow_schema: Path) -> World:
    """Runs on clips of which every other one has two labels."""
    root = tmp_path_factory.mktemp("several")
    media, runs = root / "media", root / "runs"
    runs.mkdir()
    shutil.copy(_mlflow_schema, runs)
    media_dataset(media, SIZES, two_of(LABELS))
    backbone = train_run("finetune", media, runs, *NET, "lr=0.01")
    extract(media, backbone, FeatureConfig(draws=1, workers=0))
    prompts = train_run("prompt", media, runs, f"backbone={backbone}", *CASE_WISE["prompt"])
    return World(media, runs, backbone, {"prompt": prompts})


# --- targets and losses ------------------------------------------------------------------------------------


@integration
def test_targets_are_shares_of_classes(several):
    data = ShardDataset(several.media, "train")
    plain = Targets(data, LABELS, SEVERAL)
    assert plain[0].tolist() == [1, 0, 0]
    assert plain[1].tolist() == [0, 1, 1]
    smooth = Targets(data, LABELS, TargetForm(several=True, smoothing=0.1))
    assert smooth[1].tolist() == pytest.approx([0.1 / 3, 0.9, 0.9])  # released: negatives s / C, positives 1 - s
    # shared classes add up: 0 has bell; 1 drum and rain; 5 rain and bell
    assert smooth.mixture(0, 5, 0.7).tolist() == pytest.approx([0.1 / 3 + 0.9, 0.1 / 3, 0.1 / 3 + 0.3 * 0.9])


@integration
def test_rare_classes_are_drawn_often(several):
    targets = Targets(ShardDataset(several.media, "train"), LABELS, SEVERAL)
    counts = {label: sum(label in two_of(LABELS)(i).split(";") for i in range(SIZES["train"])) for label in LABELS}
    weight = {label: 1000 / (count + 0.01) for label, count in counts.items()}
    expected = [sum(weight[label] for label in two_of(LABELS)(i).split(";")) for i in range(SIZES["train"])]
    assert targets.balance() == pytest.approx(expected)


@unit
def test_several_labels_need_the_loss_for_them(several):
    with pytest.raises(InputError, match=r"(?s)2 labels.*loss=bce"):
        Targets(ShardDataset(several.media, "train"), LABELS)
    with pytest.raises(InputError, match="unknown label 'rain'"):
        Targets(ShardDataset(several.media, "train"), LABELS[:2], SEVERAL)


@unit
def test_the_loss_is_the_mean_of_binary_cross_entropies():
    logits, label = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([[1.0, 0.0], [0.1, 0.9]])
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = -(label.numpy() * np.log(p) + (1 - label.numpy()) * np.log(1 - p)).mean()
    assert float(clip_loss(logits, label, "bce")) == pytest.approx(expected)
    assert float(clip_loss(logits, label, "bce", "sum")) == pytest.approx(2 * expected)


# --- mean average precision --------------------------------------------------------------------------------


def precision_by_definition(true: np.ndarray, scores: np.ndarray) -> float:
    """The mean over clips that have the class of the precision among all that score at least as much."""
    return float(np.mean([true[scores >= s].mean() for s in scores[true]]))


@unit
def test_mean_average_precision_is_the_definitions_and_absent_classes_count_nothing():
    rng = np.random.default_rng(4)
    true, scores = rng.random((60, 7)) < 0.2, rng.normal(size=(60, 7)).round(1)
    true[:, 3] = False
    own = [precision_by_definition(true[:, c], scores[:, c]) for c in range(7) if c != 3]
    published, occurring = mean_average_precision(true, scores)
    assert published == pytest.approx(sum(own) / 7)
    assert occurring == pytest.approx(sum(own) / 6)
    assert np.isnan(class_average_precisions(true, scores)).tolist() == [c == 3 for c in range(7)]


TRUE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
SCORES = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.3, 0.4]])


def _judge(rank: int, folder: Path, clips: list[int]) -> None:
    """One of two workers, to which these of the clips came; leaves what it found."""
    store, limit = f"file://{folder}/store", timedelta(seconds=20)
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=limit)
    ranked, present = RankedClips(), torch.ones(len(clips), 2, dtype=torch.bool)
    if clips:
        nothing = torch.zeros(len(clips), 0)
        batch = AVBatch(nothing, nothing, present, TRUE[clips], torch.tensor(clips))
        ranked.add(batch, StepOutput(torch.zeros(()), SCORES[clips]))
    (folder / f"{rank}.json").write_text(json.dumps(ranked.means(Rank(index=rank, world_size=2))))


@unit
@pytest.mark.parametrize("shares", [([0, 2], [1]), ([0, 1, 2], []), ([], [])])
def test_every_worker_has_the_mean_of_all_clips_also_one_to_which_none_came(tmp_path, shares):
    workers = [
        multiprocessing.get_context("fork").Process(target=_judge, args=(rank, tmp_path, clips))
        for rank, clips in enumerate(shares)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    # By hand: of the first class the clips at places 1 and 3 have it, (1/1 + 2/3) / 2; of the second those at 1 and 2
    expected = {"mAP": pytest.approx((5 / 6 + 1) / 2)} if any(shares) else {}
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)] == [expected] * 2


@unit
def test_the_mean_over_looks_is_one_of_probabilities():
    looks = [torch.tensor([[3.0, -1.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.5], [9.0, 9.0]])]
    for loss, probability in (("bce", torch.sigmoid), ("ce", lambda x: torch.softmax(x, dim=-1))):
        mean = MeanLogits(2, 2, loss)
        mean.add([0, 1], looks[0])
        mean.add([0], looks[1][:1])
        expected = (probability(looks[0][0]) + probability(looks[1][0])) / 2
        torch.testing.assert_close(probability(mean.logits()[0]), expected)
        assert torch.equal(mean.logits()[1], looks[0][1])


# --- every recipe ------------------------------------------------------------------------------------------


@torch.inference_mode()
def by_hand(p: Predictor, several: World, split: str, frame: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of a fine-tuned run on clean clips, one by one."""
    data = ShardDataset(several.media, split)
    config = EvaluateConfig(data=several.media, split=split)
    items = items_under(p, CONDITIONS["complete"], data, config)
    items.frame = frame
    logits, true = [], []
    for i, meta in enumerate(data.metas):
        batch = collate([items[i]])
        logits.append(p.backbone.net(batch.audio, batch.visual, batch.present)[0].numpy())
        true.append([label in meta.labels for label in p.answers])
    return np.array(true), np.array(logits)


def mean_ap(true: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean([precision_by_definition(true[:, c], scores[:, c]) for c in range(true.shape[1])]))


@unit
def test_training_reports_the_mean_average_precision_of_validation(several):
    p = load_run(several.backbone)
    (line,) = read_metrics(logs(several.backbone, "finetune"))
    assert line.metrics["val_mAP"] == pytest.approx(mean_ap(*by_hand(p, several, "val")), abs=1e-6)
    assert not any("accuracy" in name for name in line.metrics)
    for recipe, run in several.others.items():
        assert 0 < read_metrics(logs(run, "noisy_audio"))[-1].metrics["val_mAP"] <= 1, recipe


@pytest.fixture(scope="module")
def judged(several, tmp_path_factory):
    out = several.runs / "judged"
    return out, evaluate(several.all, EvaluateConfig(data=several.media), out)


@integration
def test_every_method_is_judged_by_mean_average_precision(several, judged):
    out, rows = judged
    assert {row.metric for row in rows} == {"mAP"}
    assert len({(row.method, row.selection, row.condition) for row in rows}) == len(rows) == 6 * (1 + 3)
    true, logits = by_hand(load_run(several.backbone), several, "test")
    first = next(row for row in rows if row.method == "finetune" and row.condition == "complete")
    assert first.accuracy == first.occurring == pytest.approx(mean_ap(true, logits), abs=1e-6)
    classes = read_rows((out / "classes.csv").read_text(), ClassRow)
    mine = [row for row in classes if row.method == "finetune" and row.condition == "complete"]
    assert {row.metric for row in classes} == {"AP"}
    assert sum(row.accuracy for row in mine) / len(mine) == pytest.approx(first.accuracy)
    assert [row.samples for row in mine] == true.sum(axis=0).tolist()


@integration
def test_tables_and_reports_say_what_is_shown(several, judged):
    out, rows = judged
    text = (out / "results.md").read_text()
    assert "mAP in percent on 20 test clips" in text
    assert "ccuracy" not in text
    lines = summarise(rows)
    assert lines[0].metrics()["mAP/complete"] == pytest.approx(rows[0].accuracy)
    assert "over the classes that some clip has" not in markdown(lines, 20, "test")
    page = report(several.runs, clips=2)
    assert "mAP by condition, percent" in page
    assert "Average precision per class, complete" in page
    assert "It is: bell, drum" in page or "It is: drum, rain" in page or "It is: rain, bell" in page
    assert "val mAP, %" in page


@unit
def test_all_pictures_are_averaged(several):
    p = load_run(several.backbone)
    parts = [by_hand(p, several, "test", frame) for frame in range(3)]
    data = ShardDataset(several.media, "test")
    looks = [1 / (1 + np.exp(-logits)) for _, logits in parts]
    expected = mean_ap(parts[0][0], np.mean(looks, axis=0))
    config = EvaluateConfig(data=several.media, conditions=("complete", "visual_missing"), frames="all")
    rows = prepare([read_run(several.backbone)], config).rows(lambda *_, **__: None)
    assert rows[0].accuracy == pytest.approx(expected, abs=1e-6)
    assert rows[1].samples == sum(meta.audio.present for meta in data.metas)


@unit
def test_a_run_answers_with_independent_probabilities(several):
    p = load_run(several.others["prompt"])
    data = ShardDataset(several.media, "test")
    (answer,) = p.ask([data[0]])
    assert answer.several
    assert p.several


@unit
def test_sweeps_do_not_choose_by_an_accuracy_that_there_is_not(several):
    config = SweepConfig.model_validate(
        {"recipe": "finetune", "space": {"lr": {"grid": [1e-3]}}, "data": {"media": several.media}}
    )
    with pytest.raises(InputError, match="val_mAP"):
        check_metric(config, several.media)
