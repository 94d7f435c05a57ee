"""Training to answer: interrupted and resumed it ends in the same bits; parts start from runs, and freeze."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs import load_config
from shards.checkpoint import load_checkpoint
from shards.errors import InputError
from tests.fixtures.asking import (
    AVR,
    RECOVERY_SIZES,
    RMM,
    asking_world,
    question_stages,
    questions_about,
    saved_run,
    settings,
)
from tests.fixtures.tiers import told_by
from tests.test_loop import STEPS, Killed, Log, assert_equal, without_time
from tests.test_loop import train as fit_stage
from trainers.avqa.config import AnyRecoveryConfig, AVQAConfig, AVRConfig, QuestionConfig, RMMConfig
from trainers.avqa.warm_start import answerer_checkpoint
from trainers.data import epoch_order
from trainers.journal import read_metrics
from trainers.loop import Rank, train_stage
from trainers.recipes import recipe_of
from trainers.train import main, train

integration = pytest.mark.integration
assert STEPS == 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips with 24 questions: an epoch is three batches of 8."""
    folder = tmp_path_factory.mktemp("asking")
    asking_world(folder, {"train": 8, "val": 3})
    return folder


def avqa(root: Path, network: str, recovery: str, **more) -> AVQAConfig:
    return AVQAConfig(**settings(root, network, recovery, epochs=2, lr=3e-3, **more))


def alone(kind: type[QuestionConfig], root: Path, recovery: str | None = None, **sizes) -> QuestionConfig:
    shared = ("data", "questions", "batch_size", "workers", "cpus")
    values = {k: v for k, v in settings(root).items() if k in shared}
    named = {} if recovery is None else {"recovery": recovery}
    return kind(**values, **named, epochs=2, lr=3e-3, sizes=sizes)  # type: ignore[call-arg]


MAKERS: dict[str, Callable[[Path], QuestionConfig]] = {
    "avst, rmm_avr": lambda root: avqa(root, "avst", "rmm_avr"),
    "pstp, specialist": lambda root: avqa(root, "pstp", "zero", absent="visual"),
    "rmm": lambda root: alone(RMMConfig, root, **RMM),
    "avr": lambda root: alone(AVRConfig, root, **AVR),
    "recovery": lambda root: alone(AnyRecoveryConfig, root, "actionmae", **RECOVERY_SIZES["actionmae"]),
}


@pytest.fixture(scope="module")
def joint(root, tmp_path_factory) -> tuple[Path, Log]:
    """An undisturbed joint run, and what it told."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit_stage(MAKERS["avst, rmm_avr"](root), folder)[1]


@integration
def test_half_and_resume_equals_the_whole(root, tmp_path, joint):
    whole, log = joint
    config = MAKERS["avst, rmm_avr"](root)
    with pytest.raises(Killed):
        fit_stage(config, tmp_path, STEPS + 2)  # in the midst of the second epoch
    resumed, later = fit_stage(config, tmp_path)
    assert_equal(resumed, load_checkpoint(whole / "avqa").weights)
    assert [epoch for _, epoch, _ in later] == [2]
    assert without_time(later) == without_time(log)[1:]


@pytest.mark.parametrize(
    "name",
    told_by({"avr", "recovery"}.__contains__, ["pstp, specialist", "rmm", "avr", "recovery"], pytest.mark.integration),
)
def test_half_and_resume_equals_the_whole_for_other_recipes(root, tmp_path, name):
    config = MAKERS[name](root)
    steps = len(question_stages(config)[0].train) // 8
    whole, log = fit_stage(config, tmp_path / "whole")
    with pytest.raises(Killed):
        fit_stage(config, tmp_path / "halves", steps + 2)
    resumed, later = fit_stage(config, tmp_path / "halves")
    assert_equal(whole, resumed)
    assert without_time(later) == without_time(log)[1:]
    assert_equal(load_checkpoint(tmp_path / "whole" / recipe_of(config).stage_names(config)[0]).weights, whole)


@integration
def test_dropout_is_seeded_by_the_step(root, tmp_path):
    """The same run from another state of the global generator, and another seed."""
    config = avqa(root, "lavit", "zero").model_copy(update={"epochs": 1, "batch_size": 24})
    torch.manual_seed(1)
    first = weights_after(config, tmp_path / "a")
    torch.manual_seed(2)
    assert_equal(first, weights_after(config, tmp_path / "b"))
    other = weights_after(config.model_copy(update={"seed": 5}), tmp_path / "c")
    assert any(not torch.equal(first[n], other[n]) for n in first)


def weights_after(config: QuestionConfig, folder: Path) -> dict[str, Tensor]:
    (stage,) = question_stages(config)
    train_stage(stage, config, Rank(), folder, Log())
    return load_checkpoint(folder / stage.name).weights


@integration
def test_every_part_of_the_loss_and_accuracy_under_missing_is_told(joint):
    log = joint[1]
    told = log[-1][2]
    own = {"rmmr", "ave", "ce_complete", "ce_audio_missing", "accuracy_audio_missing"}
    assert {"loss", "train_accuracy", "match", *own} <= set(told)
    assert {f"val_{name}" for name in own | {"accuracy", "loss"}} <= set(told)
    assert told["samples"] == 24
    assert told["ce_complete"] < log[0][2]["ce_complete"]


@integration
def test_a_recovery_method_alone_has_a_loss_and_no_accuracy(root, tmp_path):
    _, log = fit_stage(MAKERS["rmm"](root), tmp_path)
    assert "train_accuracy" not in log[0][2]
    assert {"loss", "val_loss", "rmmr", "val_rmmr"} <= set(log[0][2])
    assert log[-1][2]["rmmr"] < log[0][2]["rmmr"]


@integration
def test_parts_start_from_runs_and_frozen_ones_stay(root, tmp_path):
    """A plain network and slots trained alone, put together; then only the recovery method trains."""
    network = saved_run(tmp_path, "plain", avqa(root, "avst", "zero"))
    slots = saved_run(tmp_path, "slots", MAKERS["rmm"](root))
    starts = {"network_from": network, "recovery_from": (slots,)}
    config = avqa(root, "avst", "rmm_avr", **starts)
    (stage,) = question_stages(config)
    begun, theirs, own = stage.weights(), answerer_checkpoint(network), answerer_checkpoint(slots)
    for name, x in begun.items():
        if name.startswith("network."):
            assert torch.equal(x, theirs.weights[name])
        if name.startswith("recovery.rmm."):
            assert torch.equal(x, own.weights[name.replace("recovery.rmm.", "recovery.")])
    frozen = avqa(root, "avst", "rmm_avr", freeze=("network",), **starts)
    after, _ = fit_stage(frozen.model_copy(update={"epochs": 1}), tmp_path)
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], begun[name])}
    assert changed == {"recovery"}
    assert recipe_of(config).fingerprints(config).start not in (
        None,
        recipe_of(config).fingerprints(frozen.model_copy(update={"recovery_from": ()})).start,
    )


@integration
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"network": "avsd"}, ["its network does not fit", "field 'network_from'"]),
        ({"sizes": {"dim": 8, "heads": 2}}, ["its network does not fit"]),
        ({"words_of": "another"}, ["was trained with another vocabulary"]),
    ],
)
def test_a_start_that_does_not_fit_is_refused(root, tmp_path, changes, parts):
    start = saved_run(tmp_path, "plain", avqa(root, "avst", "zero"))
    values = settings(root, changes.get("network", "avst"), network_from=start)
    if "sizes" in changes:
        values["sizes"] = changes["sizes"]
    if "words_of" in changes:
        from shards.questions import save_questions

        asked = [q.model_copy(update={"question": f"Well, {q.question}"}) for q in questions_about({"train": 8})]
        values["questions"] = save_questions(tmp_path / "q.jsonl", asked)
    with pytest.raises(InputError) as error:
        question_stages(AVQAConfig(**values))
    assert [part for part in parts if part not in str(error.value)] == []


@integration
def test_slots_start_from_training_samples_if_asked(root):
    config = alone(RMMConfig, root, **RMM)
    (memory,), (normal,) = (question_stages(c) for c in (config.model_copy(update={"memorise": True}), config))
    slots = memory.weights()["recovery.slots.audio"]
    audio = memory.objective.standardise(memory.train.batch(range(len(memory.train)))).audio.flatten(0, 1)  # type: ignore
    assert all(any(torch.equal(slot, step) for step in audio) for slot in slots)
    assert not torch.equal(slots, normal.weights()["recovery.slots.audio"])
    (partly,) = question_stages(config.model_copy(update={"memorise": True, "proportion": 0.2}))
    trained = epoch_order(partly.train.ids, config.seed, 0, proportion=0.2).tolist()
    audio = partly.objective.standardise(partly.train.batch(trained)).audio.flatten(0, 1)  # type: ignore
    assert all(any(torch.equal(slot, step) for step in audio) for slot in partly.weights()["recovery.slots.audio"])


@integration
def test_the_command_trains_tells_lost_questions_and_returns_at_once(root, tmp_path, mlflow_root, capsys):
    from shards.questions import save_questions

    asked = list(questions_about({"train": 9, "val": 3}))  # the ninth clip is not in the features
    path = save_questions(tmp_path / "questions.jsonl", asked)
    arguments = [f"data={root}/media/features/small", f"questions={path}", "epochs=2", "batch_size=8"]
    arguments += ["sizes={dim: 16, heads: 2}", "workers=0", "cpus=1", "--runs", str(mlflow_root)]
    assert main(["avqa", *arguments]) == 0
    out, error = capsys.readouterr()
    folder = Path(out.strip())
    assert "note: 3 questions can't be asked: their clips are not in" in error
    assert [line.step for line in read_metrics(folder / "logs" / "avqa")] == [1, 2]
    assert answerer_checkpoint(folder).meta["lost_questions"] == ["train-8-0", "train-8-1", "train-8-2"]
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert main(["avqa", *arguments]) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    path.write_text(path.read_text().replace("What can be heard?", "What is it that can be heard?"))
    assert train(load_config(AVQAConfig, None, arguments[:-2]), mlflow_root) != folder
    assert main(["avqa", *arguments, "networkk=avst"]) == 2
    assert "did you mean 'network'" in capsys.readouterr().err
