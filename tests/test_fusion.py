"""Classification's methods: what is missing reaches nothing, no sample sees another, each loss is the one declared."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.avqa.contract import Recovered
from models.avqa.recovery.filling import filled
from models.batch import AVBatch
from models.fusion import FUSIONS
from models.fusion.drfuse import ranking
from models.fusion.net import FusedNet
from models.modality import all_present
from shards.errors import InputError
from shards.reader import ShardDataset
from tests.fixtures.builders import SMALL, randomise, small_inputs, small_net
from tests.fixtures.worlds import SIZES, World, train_run
from tests.test_missing import NAN, PATTERNS, assert_blind, blanked
from trainers.classification.config import EvaluateConfig, FuseConfig
from trainers.classification.evaluate import prepare
from trainers.classification.objective import CompetentLoss, FuseLoss, clip_loss
from trainers.recipes import recipe_of
from trainers.runs import read_run

unit, integration = pytest.mark.unit, pytest.mark.integration

CLASSES = 5
METHODS: dict[str, dict[str, Any]] = {
    "dropout": {},
    "masking": {},
    "shaspec": {"dim": 8},
    "actionmae": {"dim": 8, "heads": 2, "memory": 2, "depth": 1},
    "drfuse": {"dim": 8, "heads": 2},
}
PRESENT = torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
WHOLE = torch.ones(6, 2, dtype=torch.bool)


def fresh(name: str) -> FusedNet:
    """A network with a method, every parameter drawn at random, in evaluation mode."""
    kind: Any = FUSIONS[name]
    return FusedNet(small_net(), randomise(kind(SMALL, CLASSES, **METHODS[name]), 1)).eval()


network = lru_cache(fresh)  # for forward passes alone


def batch_of(present: Tensor = PRESENT, seed: int = 0) -> AVBatch:
    audio, visual = (blanked(x, t, NAN) for x, t in zip(small_inputs(6, seed=seed), present.unbind(dim=1), strict=True))
    return AVBatch(audio, visual, present, torch.arange(6) % CLASSES, torch.arange(6))


def logits(net: FusedNet, batch: AVBatch) -> Tensor:
    return net(batch.audio, batch.visual, batch.present)


def own_losses(net: FusedNet, batch: AVBatch) -> dict[str, Tensor]:
    tokens = net.tokens(batch.audio, batch.visual, batch.present)
    task = lambda x, rows: F.cross_entropy(x, batch.label[rows], reduction="none")  # noqa: E731
    return net.fuse(*tokens, batch.present).losses(task)


@unit
def test_every_method_is_tested():
    assert set(METHODS) == set(FUSIONS)


@unit
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_absent_content_reaches_no_output(name, pattern):
    assert_blind(network(name), *small_inputs(6), torch.tensor(PATTERNS[pattern], dtype=torch.bool))


class Peeking(nn.Module):
    """Leaks on purpose: by multiplying with the mask, or by what the batch holds on average."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Recovered:
        whole = all_present(len(present), present.device)
        if self.how == "mask":
            return Recovered(audio * present[:, 0].view(-1, 1, 1), visual.nan_to_num(), whole)
        mean = audio.nan_to_num().mean(dim=(0, 1))
        rows = (~present[:, 1]).nonzero().squeeze(1)
        return Recovered(audio.nan_to_num(), filled(visual, rows, mean), whole)


@unit
@pytest.mark.parametrize("how", ["mask", "mean"])
@torch.no_grad()
def test_the_tests_catch_a_method_that_peeks(how):
    net = FusedNet(small_net(), Peeking(how))
    if how == "mask":
        with pytest.raises(AssertionError, match="reached the output"):
            assert_blind(net, *small_inputs(6), PRESENT)
    else:
        with pytest.raises(AssertionError, match="a neighbour changed it"):
            alone_and_beside_others(net)


def alone_and_beside_others(net: FusedNet) -> None:
    batch, others = batch_of(), batch_of(seed=9)
    out = logits(net, batch)
    for row in range(3):  # complete, without sound, without picture
        audio, visual = others.audio.clone(), others.visual.clone()
        audio[row], visual[row] = batch.audio[row], batch.visual[row]
        assert torch.equal(net(audio, visual, PRESENT)[row], out[row]), "a neighbour changed it"
        alone = logits(net, batch.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], out[row], atol=5e-6, rtol=1e-5)


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours(name):
    alone_and_beside_others(network(name))


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_permuting_the_batch_permutes_logits_and_losses(name):
    net, order = network(name), torch.tensor([4, 2, 0, 5, 3, 1])
    batch, whole = batch_of(), batch_of(WHOLE)
    torch.testing.assert_close(logits(net, batch.select(order)), logits(net, batch)[order], atol=5e-6, rtol=1e-5)
    losses = own_losses(net, whole)
    assert set(losses) == set(FUSIONS[name].loss_names)
    for loss, value in own_losses(net, whole.select(order)).items():
        assert value.shape == (6,)
        torch.testing.assert_close(value, losses[loss][order], atol=5e-6, rtol=1e-5)


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_results_repeat_to_the_bit_across_calls_modes_and_networks(name):
    net, batch = fresh(name), batch_of()
    first = logits(net, batch)
    torch.manual_seed(99)
    assert torch.equal(logits(net, batch), first)
    assert torch.equal(logits(net.train(), batch), first)  # nothing drops out, nothing is drawn
    twin = fresh(name)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(logits(twin.eval(), batch), first)


@unit
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_and_reach_every_parameter_of_the_method(name):
    net = fresh(name)
    objective = FuseLoss(net, 1.0, FUSIONS[name].loss_names).train()
    output = objective(batch_of())
    output.loss.backward()
    assert not output.logits.isnan().any()
    for own, parameter in net.named_parameters():
        if own.startswith("method."):
            assert parameter.grad is not None, f"nothing reaches {own}"
            assert parameter.grad.any(), f"nothing reaches {own}"
        assert parameter.grad is None or parameter.grad.isfinite().all(), f"gradient of {own}"


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_losses_are_of_what_is_present(name):
    """Of samples that lack a modality no loss compares both, and absent content changes none."""
    net, less = network(name), torch.tensor(PATTERNS["no audio"], dtype=torch.bool)
    found = own_losses(net, batch_of(less))
    of_both = {"shared_l1", "reconstruction", "shared_jsd", "ranking", "branch_audio"}
    assert set(found) == set(FUSIONS[name].loss_names) - of_both
    assert all(loss.isfinite().all() and len(loss) == 6 for loss in found.values())
    mixed = own_losses(net, batch_of())
    assert all(loss.isfinite().all() for loss in mixed.values())
    for loss in of_both & set(mixed) - {"branch_audio"}:
        assert len(mixed[loss]) == 2, "the two complete samples"


@unit
@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_every_sample_weighs_the_same_however_few_are_complete(name):
    """What a batch minimises is the mean of what each of its samples would minimise alone."""
    objective, batch = FuseLoss(fresh(name), 1.0, FUSIONS[name].loss_names).train(), batch_of()
    assert batch.present.all(dim=1).sum() == 2
    alone = [objective(batch.select(torch.tensor([i]))).loss for i in range(len(batch))]
    torch.testing.assert_close(objective(batch).loss, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


@unit
@pytest.mark.parametrize("pattern", ["mixed", "complete"])
def test_masking_is_what_finetune_computes(pattern):
    batch = batch_of(torch.tensor(PATTERNS[pattern], dtype=torch.bool))
    found = []
    for objective in (FuseLoss(fresh("masking"), 1.0, {}), CompetentLoss(small_net(), 1.0)):
        output = objective.train()(batch)
        output.loss.backward()
        net = objective.net.backbone if isinstance(objective, FuseLoss) else objective.net
        found.append((output, net.blocks_u[0].attn.qkv.weight.grad, net.patch_embed_a.proj.weight.grad))
    for one, other in zip(*found, strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        else:
            torch.testing.assert_close(one.loss, other.loss)
            assert torch.equal(one.logits, other.logits)


@unit
@torch.no_grad()
def test_dropout_puts_zeros_behind_the_encoders():
    net, batch = network("dropout"), batch_of()
    audio, visual = net.tokens(batch.audio, batch.visual, batch.present)
    expected = net.backbone(audio.nan_to_num(), visual.nan_to_num(), WHOLE, SMALL.depth)
    torch.testing.assert_close(logits(net, batch), expected, atol=1e-6, rtol=1e-5)


@unit
@pytest.mark.parametrize("name", ["shaspec", "actionmae"])
@torch.no_grad()
def test_a_fresh_method_begins_as_the_backbone_with_zeros(name):
    """Its last layer is zero: complete samples are answered as before, incomplete ones as by dropout."""
    kind: Any = FUSIONS[name]
    net, batch = FusedNet(small_net(), kind(SMALL, CLASSES, **METHODS[name])), batch_of()
    torch.testing.assert_close(logits(net, batch), logits(network("dropout"), batch), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(logits(network(name), batch), logits(network("dropout"), batch), atol=1e-2)


@unit
@torch.no_grad()
def test_shaspec_compares_and_names_what_is_there():
    """By hand, from its parts."""
    net, batch = network("shaspec"), batch_of(WHOLE)
    method: Any = net.method
    tokens = dict(zip(("audio", "visual"), net.tokens(batch.audio, batch.visual, batch.present), strict=True))
    inner = {m: method.entrance[m](x) for m, x in tokens.items()}
    r = {m: method.shared(x).mean(dim=1) for m, x in inner.items()}
    found = own_losses(net, batch)
    torch.testing.assert_close(found["shared_l1"], (r["audio"] - r["visual"]).abs().mean(dim=1))
    named = [method.which(method.specific[m](x).mean(dim=1)).softmax(dim=1) for m, x in inner.items()]
    expected = -(named[0][:, 0].log() + named[1][:, 1].log()) / 2
    torch.testing.assert_close(found["modality_ce"], expected, atol=1e-5, rtol=1e-4)


@unit
def test_ranking_counts_pairs_that_are_ranked_wrong():
    attention = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [3.0, 2.0, 1.0]])
    expected = torch.tensor([0.0, 0.2, (0.2 + 0.3 + 0.1) / 3])
    torch.testing.assert_close(ranking(attention, losses), expected)


@unit
@torch.no_grad()
def test_the_task_loss_of_branches_is_that_of_their_own_samples():
    """With several labels a clip as well."""
    net, batch = network("drfuse"), batch_of()
    label = torch.eye(CLASSES)[batch.label]
    tokens = net.tokens(batch.audio, batch.visual, batch.present)
    seen: list[list[int]] = []

    def task(x: Tensor, rows: Any) -> Tensor:
        seen.append(list(rows))
        return clip_loss(x, label[rows], "bce", "none")

    found = net.fuse(*tokens, batch.present).losses(task)
    having = {"audio": PRESENT[:, 0], "visual": PRESENT[:, 1]}
    assert all(len(found[f"branch_{m}"]) == int(there.sum()) for m, there in having.items())
    assert len(found["branch_shared"]) == 6
    assert {tuple(rows) for rows in seen} == {(0, 3), (1, 5), (2, 4)}


@unit
def test_settings_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"unknown size 'dmi'; did you mean 'dim'"):
        FuseConfig(data=Path(), start=Path(), method="shaspec", sizes={"dmi": 3})
    with pytest.raises(ValueError, match=r"no loss 'rmmr'"):
        FuseConfig(data=Path(), start=Path(), method="shaspec", weights={"rmmr": 3})
    with pytest.raises(ValueError, match="Input should be one of 'dropout'"):
        FuseConfig(data=Path(), start=Path(), method="shaspek")
    assert FuseConfig(data=Path(), start=Path(), method="shaspec", weights={"shared_l1": 2}).weights == {
        "shared_l1": 2,
        "modality_ce": 0.02,
    }


@integration
def test_sizes_that_can_not_be_are_refused_before_training(world: World):
    config = FuseConfig(data=world.media, start=world.backbone, method="drfuse", sizes={"dim": 9, "heads": 2})
    with pytest.raises(InputError, match="not divisible by heads"):
        recipe_of(config).fingerprints(config)


@pytest.fixture(scope="module")
def runs(world: World, _mlflow_schema: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of two methods, one that fills in and one that answers by itself."""
    folder = tmp_path_factory.mktemp("fused")
    shutil.copy(_mlflow_schema, folder)
    start = f"start={world.backbone}"
    return {
        name: train_run("fuse", world.media, folder, start, f"method={name}", *sizes)
        for name, sizes in {"shaspec": ["sizes.dim=8"], "drfuse": ["sizes.dim=8", "label=ours"]}.items()
    }


@integration
def test_finished_runs_are_evaluated_and_asked(world: World, runs: dict[str, Path], tmp_path: Path):
    config = EvaluateConfig(conditions=("complete", "audio_missing", "visual_missing"))
    asked = [read_run(folder) for folder in (world.backbone, *runs.values())]
    rows = prepare(asked, config).rows(lambda *_, **__: None)
    assert [r.method for r in rows] == [m for m in ("finetune", "shaspec", "ours") for _ in range(3)]
    assert all(row.trained == row.parameters for row in rows)
    assert {row.samples for row in rows if row.condition == "complete"} == {SIZES["test"]}
    assert runs["shaspec"].name.startswith("shaspec-")
    run = read_run(runs["drfuse"])
    assert run.recipe.load is not None
    loaded = run.recipe.load(run, torch.device("cpu"))
    data = ShardDataset(world.media, "test")
    (answer,) = loaded.ask([data[0]])
    assert answer.chosen.shape == (3,)
