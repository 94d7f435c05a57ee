"""Test-time adaptation: what moves and what does not, which loss, in which order, and never by labels."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs import load_config
from models.adaptation import ADAPTATIONS
from models.adaptation.adapting import Adapting
from models.adaptation.read import READ, confidence_aware
from models.adaptation.tent import Tent
from models.fusion import FUSIONS
from models.fusion.net import FusedNet
from models.prompts import DualPrompts
from models.settings import PromptSize
from models.tuned import Tuned
from shards.errors import InputError
from tests.fixtures.builders import SMALL, randomise, small_inputs, small_net
from tests.fixtures.worlds import World
from tests.test_missing import NAN, PATTERNS, blanked
from trainers.calibrate import calibrate
from trainers.classification.adapt import with_adapted
from trainers.classification.config import EvaluateConfig
from trainers.classification.evaluate import prepare
from trainers.classification.predict import load_finetuned
from trainers.confidence_rows import final_rows
from trainers.differences import DifferenceRow
from trainers.evaluate import evaluate
from trainers.recipe import FinishedRun
from trainers.runs import read_run
from trainers.tables import read_rows
from tuning.report.clips import first_seed

pytestmark = pytest.mark.integration

PRESENT = torch.tensor(PATTERNS["mixed"], dtype=torch.bool)


def inputs(seed: int = 0, present: Tensor = PRESENT) -> tuple[Tensor, Tensor, Tensor]:
    pairs = zip(small_inputs(6, seed=seed), present.unbind(dim=1), strict=True)
    audio, visual = (blanked(x, there, NAN) for x, there in pairs)
    return audio, visual, present


def prompted() -> Tuned:
    return Tuned(small_net(), randomise(DualPrompts(SMALL, PromptSize(2)), 1)).eval()  # type: ignore[arg-type]


def fused(name: str) -> FusedNet:
    kind: Any = FUSIONS[name]
    return FusedNet(small_net(), kind(SMALL, 5, **{"drfuse": {"dim": 8, "heads": 2}}.get(name, {}))).eval()


NETWORKS = {"read": small_net, "tent": small_net, "prompts": prompted}
MOVING = {  # by adaptation, what belongs to a parameter's name that moves
    "read": lambda name: name.startswith("blocks_u.") and ".attn.qkv." in name,
    "tent": lambda name: "norm" in name or name.startswith("mlp_head.0."),
    "prompts": lambda name: name.startswith("module."),
}


def test_every_adaptation_is_tested():
    assert set(NETWORKS) == set(ADAPTATIONS)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_adapts_moves_and_the_trained_network_never(name):
    source = NETWORKS[name]()
    before = {n: p.clone() for n, p in source.state_dict().items()}
    adapting = Adapting(source, ADAPTATIONS[name](), lr=0.01)
    for seed in range(2):
        assert adapting(*inputs(seed)).isfinite().all()
    after = adapting.model.state_dict()
    assert all(torch.equal(source.state_dict()[n], x) for n, x in before.items())
    moved = {n for n, x in before.items() if not torch.equal(after[n], x)}
    assert moved
    assert all(MOVING[name](n) for n in moved), moved
    allowed = {n for n, p in adapting.model.named_parameters() if p.requires_grad}
    assert {n for n in before if MOVING[name](n)} == allowed


def test_read_is_the_papers_loss():
    """By hand: p log(e gamma / p) of the highest probability, and the negative entropy of the mean prediction."""
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.1, 0.3, 0.2]])
    p = logits.softmax(dim=1).numpy().astype(np.float64)
    trusted = np.mean([row.max() * math.log(math.e * math.exp(-1) / row.max()) for row in p])
    mean = p.mean(axis=0)
    assert confidence_aware(logits).item() == pytest.approx(trusted + float((mean * np.log(mean)).sum()), rel=1e-5)


def test_read_makes_confident_answers_more_so_and_others_less():
    def slope(highest: float) -> float:
        """By how much each of six answers, of one class each, is surer; their mean is uniform, so it has no say."""
        height = torch.tensor(math.log(5 * highest / (1 - highest)), requires_grad=True)
        confidence_aware(height * torch.eye(6)).backward()
        assert height.grad is not None
        return height.grad.item()

    assert slope(0.5) < 0
    assert slope(0.9) < 0
    assert slope(0.3) > 0, "below 1/e"


def test_tent_is_the_mean_entropy():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(Tent().loss(logits), expected)


@pytest.mark.parametrize("name", ["read", "tent"])
def test_a_step_lowers_the_loss(name):
    method = ADAPTATIONS[name]()
    net, batch = small_net(), inputs(present=torch.ones(6, 2, dtype=torch.bool))
    adapting = Adapting(net, method, lr=1e-3, steps=5)
    adapting(*batch)
    with torch.no_grad():
        assert method.loss(adapting.model(*batch)) < method.loss(net(*batch))


@torch.inference_mode()
def test_tent_answers_before_its_step_and_read_after():
    net = small_net()
    batch = inputs()
    for method, after in ((Tent(), False), (READ(), True)):
        adapting = Adapting(net, method, lr=0.05)
        found = adapting(*batch)
        torch.testing.assert_close(found, adapting.model(*batch) if after else net(*batch))
        assert not torch.allclose(adapting.model(*batch), net(*batch), atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_streams_repeat_and_begin_anew(name):
    method, source = ADAPTATIONS[name](), NETWORKS[name]()
    adapting = Adapting(source, method, lr=0.05)
    first = [adapting(*inputs(seed)) for seed in range(3)]
    adapting.begin()
    torch.manual_seed(7)
    again = [adapting(*inputs(seed)) for seed in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    adapting.begin()
    other = [adapting(*inputs(seed)) for seed in (2, 1, 0)]
    assert not torch.allclose(other[1], first[1], atol=1e-4), "what came before counts"


def test_an_episode_forgets_the_batches_before_it():
    adapting = Adapting(small_net(), READ(), lr=0.05, episodic=True)
    alone = adapting(*inputs(1))
    adapting(*inputs(0))
    assert torch.equal(adapting(*inputs(1)), alone)


def test_samples_see_each_other_on_purpose():
    """The one method of the house of which this holds."""
    whole = inputs(present=torch.ones(6, 2, dtype=torch.bool))
    beside = Adapting(small_net(), READ(), lr=0.05)(*whole)
    alone = Adapting(small_net(), READ(), lr=0.05)(*(x[:1] for x in whole))
    assert alone.isfinite().all()
    assert not torch.allclose(alone[0], beside[0], atol=1e-3)


@pytest.mark.parametrize("name", ["read", "tent", "prompts"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_absent_content_reaches_no_answer_and_no_step(name, pattern):
    present = torch.tensor(PATTERNS[pattern], dtype=torch.bool)
    found = []
    for filling in (NAN, 1e6):
        pairs = zip(small_inputs(6), present.unbind(dim=1), strict=True)
        audio, visual = (blanked(x, there, filling) for x, there in pairs)
        adapting = Adapting(NETWORKS[name](), ADAPTATIONS[name](), lr=0.05)
        adapting(audio, visual, present)
        found.append(adapting(audio, visual, present))
    assert found[0].isfinite().all()
    assert torch.equal(*found)


@pytest.mark.parametrize("method", FUSIONS)
def test_read_moves_what_relates_the_modalities(method):
    net = fused(method)
    adapting = Adapting(net, READ(), lr=0.05)
    names = {n for n, p in adapting.model.named_parameters() if p.requires_grad}
    there = "method.attention." if method == "drfuse" else "backbone.blocks_u.0.attn.qkv."
    assert names
    assert all(n.startswith(there) for n in names)
    first = adapting(*inputs())
    with torch.no_grad():
        assert not torch.allclose(first, net(*inputs()), atol=1e-4)


@pytest.fixture(scope="module")
def out(_mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    shutil.copy(_mlflow_schema, folder)
    return folder


def chosen(**more: Any) -> EvaluateConfig:
    settings = {"conditions": ["complete", "noisy_audio"], "adaptation.batch_size": 4, "adaptation.lr": 0.05, **more}
    return load_config(EvaluateConfig, None, [f"{k}={v}".replace("'", '"') for k, v in settings.items()])


def test_evaluation_has_rows_of_what_adapts_and_the_others_stay(world: World, out: Path):
    folders = [world.backbone, world.others["prompt"], world.others["lora"]]
    config = chosen(adapt="[read, tent, prompts]")
    rows = evaluate(folders, config, out / "results")
    found = list(dict.fromkeys((r.method, r.selection) for r in rows))
    assert [name for name in found if name[0].startswith(("finetune", "prompt +"))] == [
        ("finetune", ""),
        ("finetune + READ", ""),
        ("finetune + Tent", ""),
        ("prompt + READ of prompts", ""),
    ]
    plain = prepare([read_run(folder) for folder in folders], chosen()).rows(lambda *_, **__: None)
    accuracy = {(r.method, r.selection, r.condition): r.accuracy for r in rows}
    assert all(accuracy[r.method, r.selection, r.condition] == r.accuracy for r in plain)
    text = (out / "results" / "results.md").read_text()
    assert "| finetune + READ |" in text


def answers(world: World, config: EvaluateConfig, run: FinishedRun | None = None) -> dict[str, np.ndarray]:
    evaluation = prepare([run or read_run(world.backbone)], config)
    found = evaluation.answers(lambda *_, **__: None)
    return {f"{r.method} {condition}": by[""].logits for r, condition, by in found}


def test_the_stream_is_in_an_order_of_its_own_that_the_batch_size_of_others_does_not_change(world: World):
    one = answers(world, chosen(adapt="[read]"))
    other = answers(world, chosen(adapt="[read]", batch_size=3))
    assert all(np.array_equal(one[name], other[name]) for name in one if "READ" in name)
    smaller = answers(world, chosen(adapt="[read]", **{"adaptation.batch_size": 3}))
    assert not np.allclose(one["finetune + READ complete"], smaller["finetune + READ complete"], atol=1e-3)
    only = answers(world, chosen(adapt="[read]", conditions="[noisy_audio]"))
    assert np.array_equal(only["finetune + READ noisy_audio"], one["finetune + READ noisy_audio"]), "begins anew"


def test_labels_are_never_touched(world: World, monkeypatch: pytest.MonkeyPatch):
    """Answers are the same where all labels are wrong."""
    from trainers.classification.targets import Targets

    first = answers(world, chosen(adapt="[read, tent]"))
    monkeypatch.setattr(Targets, "__getitem__", lambda self, i: torch.tensor(0))
    monkeypatch.setattr(Targets, "batch", lambda self, positions: torch.zeros(len(positions), dtype=torch.int64))
    second = answers(world, chosen(adapt="[read, tent]"))
    assert len(first) == 6
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adapt": "[prompts]"}, "none of these runs has what 'prompts' adapts"),
        ({"adapt": "[read]", "adapted": "[finetun]"}, r"(?s)no method 'finetun'.*did you mean 'finetune'"),
        ({"adapt": "[read]", "frames": "all"}, "one picture of every clip"),
    ],
)
def test_what_does_not_go_together_is_refused(world: World, settings: dict[str, str], said: str):
    with pytest.raises(InputError, match=said):
        prepare([read_run(world.backbone)], chosen(**settings))


def test_the_others_can_be_compared_with_a_line_that_adapts_and_with_no_line_that_there_is_not(world: World, out: Path):
    folders = [world.backbone, world.others["prompt"]]
    rows = evaluate(folders, chosen(adapt="[read, prompts]", baseline="finetune + READ"), out / "against")
    differences = read_rows((out / "against" / "differences.csv").read_text(), DifferenceRow)
    against = [row for row in differences if row.family == "baseline"]
    assert {row.other for row in against} == {"finetune + READ"}
    assert {row.method for row in against} == {row.line for row in rows} - {"finetune + READ"}
    none = chosen(adapt="[prompts]", baseline="prompt + READ of prompts, situation")
    with pytest.raises(InputError, match="no method 'prompt \\+ READ of prompts, situation' is evaluated"):
        prepare([read_run(folder) for folder in folders], none)


def test_temperatures_are_not_fitted_to_what_adapts(world: World):
    with pytest.raises(InputError, match="leave adapt out"):
        calibrate([world.backbone], chosen(adapt="[read]", split="val"))


def test_runs_on_several_labels_do_not_adapt(world: World):
    import dataclasses

    run = read_run(world.backbone)
    several = dataclasses.replace(load_finetuned(run, torch.device("cpu")), loss="bce")
    with pytest.raises(InputError, match="several labels"):
        with_adapted([several], chosen(adapt="[tent]"))


def test_an_evaluation_without_adaptation_is_the_one_it_was(world: World):
    """Its inputs, by which finished ones are found, say nothing of it."""
    config = prepare([read_run(world.backbone)], EvaluateConfig()).inputs["config"]
    assert not {"adapt", "adapted", "adaptation"} & set(config)
    adapting = prepare([read_run(world.backbone)], chosen(adapt="[read]")).inputs["config"]
    assert {"adapt", "adaptation"} <= set(adapting)


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_there_may_be_nothing_to_adapt(name):
    assert ADAPTATIONS[name]().parameters(nn.Linear(1, 1)) == []


def test_rows_of_what_adapts_do_not_pass_for_the_run_itself():
    """A report shows the trained run's answers under its own name; a calibration hides no row but the run's."""
    rows = [SimpleNamespace(run="a", method=m, seed=0, scaling="none") for m in ("finetune", "finetune + READ")]
    assert first_seed(rows) == {"a": "finetune"}
    scaled = SimpleNamespace(run="a", method="finetune", seed=0, scaling="temperature")
    assert final_rows([*rows, scaled]) == [rows[1], scaled]  # type: ignore[list-item]
