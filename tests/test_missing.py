"""Missing means missing: what an absent modality holds reaches no output, and neither do the neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from models.batch import AVBatch, take_away
from models.cavmae import CAVMAE
from models.detector import QualityDetector
from models.peft import Adapter, LoRA
from models.prompts import DualPrompts, concatenate
from models.settings import MODALITIES, PromptSize
from models.tuned import CaseModule, Tuned
from tests.fixtures.builders import SMALL, randomise, small_inputs, small_net
from tests.fixtures.tiers import told_by
from trainers.classification.objective import CompetentLoss

unit, integration = pytest.mark.unit, pytest.mark.integration

NAN = float("nan")
PATTERNS = {
    "mixed": [[1, 1], [0, 1], [1, 0], [1, 1], [1, 0], [0, 1]],
    "complete": [[1, 1]] * 6,
    "no audio": [[0, 1]] * 6,
    "no visual": [[1, 0]] * 6,
}
SIZES = {
    "both levels, k=0": PromptSize(3),
    "both levels, deep": PromptSize(3, deep=True),
    "both levels, k=1": PromptSize(3, depth=1),
    "both levels, k=last, deep": PromptSize(3, depth=SMALL.depth - 1, deep=True),
    "input level": PromptSize(3, attention_level=False),
    "attention level": PromptSize(3, input_level=False),
    "attention level, k=last": PromptSize(3, depth=SMALL.depth - 1, input_level=False),
}


def concatenated(_: CAVMAE) -> DualPrompts:
    sets = [DualPrompts(SMALL, PromptSize(2)) for _ in range(4)]
    return concatenate([randomise(s, i) for i, s in enumerate(sets)], SMALL)  # type: ignore[misc]


MODULES: dict[str, Callable[[CAVMAE], CaseModule]] = {
    **{f"prompts, {name}": lambda _, size=size: DualPrompts(SMALL, size) for name, size in SIZES.items()},
    "prompts, four sets concatenated": concatenated,
    "lora": lambda net: LoRA(net, rank=2),
    "lora, k=1": lambda net: LoRA(net, rank=2, depth=1),
    "adapter": lambda net: Adapter(net, width=3),
    "adapter, k=1": lambda net: Adapter(net, width=3, depth=1),
}
METHODS = ["backbone", *(f"{name}{head}" for name in MODULES for head in ("", " + head"))]
WITH_HEAD = ("adapter + head", "prompts, both levels, deep + head")  # it stands behind any module alike
every_method = pytest.mark.parametrize("name", told_by(lambda name: "+ head" not in name or name in WITH_HEAD, METHODS))


def fresh(name: str) -> nn.Module:
    """A method with every trained parameter drawn at random, in evaluation mode."""
    net = small_net()
    if name == "backbone":
        return net
    module, _, head = name.partition(" + ")
    tuned = Tuned(net, MODULES[module](net), train_head=bool(head))
    randomise(tuned.module, 1)
    if tuned.head is not None:
        randomise(tuned.head, 2)
    return tuned.eval()


method = lru_cache(fresh)  # for forward passes alone


def blanked(x: Tensor, there: Tensor, filling: Tensor | float) -> Tensor:
    """`x` where `there` [B], the filling elsewhere."""
    shape = (-1, *[1] * (x.dim() - 1))
    return torch.where(there.view(shape), x, filling)


def assert_blind(
    forward: Callable[[Tensor, Tensor, Tensor], Tensor], audio: Tensor, visual: Tensor, present: Tensor
) -> None:
    """Fails if what the absent rows hold (NaN, others' data, infinity) changes a bit of the output."""
    there = present.unbind(dim=1)
    outputs = {}
    for name, of in {
        "NaN": lambda x: NAN,
        "other samples": lambda x: x.roll(1, dims=0),
        "their own content": lambda x: x,
        "infinity": lambda x: float("inf"),
    }.items():
        a, v = (blanked(x, t, of(x)) for x, t in zip((audio, visual), there, strict=True))
        outputs[name] = forward(a, v, present)
    reference = outputs.pop("NaN")
    assert reference.isfinite().all(), "NaN of an absent modality reached the output"
    for name, output in outputs.items():
        assert torch.equal(output, reference), f"{name} in place of NaN changed the output"


@integration
@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        *((name, "mixed") for name in METHODS),
        *((name, pattern) for name in ("backbone", *MODULES) for pattern in ("no audio", "no visual")),
        ("backbone", "complete"),
        ("adapter + head", "no audio"),
    ],
)
@torch.no_grad()
def test_absent_content_reaches_no_output(name, pattern):
    audio, visual = small_inputs(6)
    assert_blind(method(name), audio, visual, torch.tensor(PATTERNS[pattern], dtype=torch.bool))


@unit
@pytest.mark.parametrize("name", ["backbone", "prompts, both levels, k=1", "lora, k=1", "adapter, k=1 + head"])
@torch.no_grad()
def test_absent_tokens_reach_no_output(name):
    """The same on cached tokens, as case-wise training reads them."""
    model, net = method(name), small_net()
    audio, visual = (net.encode(m, net.embed(m, x), stop=1) for m, x in zip(MODALITIES, small_inputs(6), strict=True))
    present = torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    assert_blind(lambda a, v, p: model(a, v, p, 1), audio, visual, present)


class Peeking(nn.Module):
    """Leaks on purpose: cleans NaN away and classifies from both inputs, or multiplies by the mask."""

    def __init__(self, net: CAVMAE, how: str):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, audio: Tensor, visual: Tensor, present: Tensor) -> Tensor:
        if self.how == "multiplies by the mask":
            shape = (-1, 1, 1, 1)
            return self.net(audio * present[:, 0].view(shape[:3]), visual * present[:, 1].view(shape))
        if self.how == "uses the batch's mean":
            return self.net(audio, visual, present) + 1e-6 * audio.nan_to_num().clamp(-9, 9).mean()
        return self.net(audio.nan_to_num().clamp(-9, 9), visual.nan_to_num().clamp(-9, 9))


@unit
@pytest.mark.parametrize("how", ["multiplies by the mask", "uses the batch's mean", "cleans the NaN away"])
@torch.no_grad()
def test_the_test_catches_a_model_that_peeks(how):
    audio, visual = small_inputs(6)
    present = torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    with pytest.raises(AssertionError, match=r"(changed|reached) the output"):
        assert_blind(Peeking(small_net(), how), audio, visual, present)


def masked(present: Tensor) -> tuple[Tensor, Tensor]:
    audio, visual = small_inputs(len(present))
    return blanked(audio, present[:, 0], NAN), blanked(visual, present[:, 1], NAN)


@integration
@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_and_reach_every_trained_parameter(name):
    model, present = fresh(name), torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    model(*masked(present), present).logsumexp(dim=1).sum().backward()
    for parameter_name, p in model.named_parameters():
        # the published blocks hold three norm sets, and an encoder's block uses the joint one alone
        unused = re.match(r"blocks_[av]\.\d+\.norm\d_[av]\.", parameter_name)
        assert (p.grad is not None) == (p.requires_grad and not unused), parameter_name
        assert p.grad is None or p.grad.isfinite().all(), parameter_name


@unit
@pytest.mark.parametrize("training", [True, False])
def test_the_finetuning_objective_ignores_absent_content(training):
    net, present = small_net(), torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    objective = CompetentLoss(net, weight=1.0).train(training)
    audio, visual = small_inputs(6)
    losses = []
    for filling in (NAN, 3.0):
        batch = AVBatch(
            blanked(audio, present[:, 0], filling),
            blanked(visual, present[:, 1], filling),
            present,
            torch.arange(6) % 5,
            torch.arange(6),
        )
        net.zero_grad()
        output = objective(batch)
        output.loss.backward()
        losses.append((output.loss.detach(), output.logits, net.patch_embed_v.proj.weight.grad.clone()))
        assert torch.allclose(output.logits, net(batch.audio, batch.visual, present).detach(), atol=1e-6)
    assert all(x.isfinite().all() for x in losses[0])
    assert all(torch.equal(x, y) for x, y in zip(*losses, strict=True))


@every_method
@torch.no_grad()
def test_permuting_the_batch_permutes_the_outputs(name):
    model, present = method(name), torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    audio, visual = masked(present)
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    torch.testing.assert_close(
        model(audio[order], visual[order], present[order]),
        model(audio, visual, present)[order],
        atol=2e-6,
        rtol=0,
    )


@every_method
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours(name):
    """Bit for bit at its place in the batch, whatever the others are; and alone, but for rounding."""
    model, present = method(name), torch.tensor(PATTERNS["mixed"], dtype=torch.bool)
    audio, visual = masked(present)
    others = [blanked(x, present[:, i], NAN) for i, x in enumerate(small_inputs(6, seed=9))]
    reference = model(audio, visual, present)
    for row in range(3):  # one of each presence
        a, v = others[0].clone(), others[1].clone()
        a[row], v[row] = audio[row], visual[row]
        assert torch.equal(model(a, v, present)[row], reference[row])
        alone = model(audio[row : row + 1], visual[row : row + 1], present[row : row + 1])
        torch.testing.assert_close(alone[0], reference[row], atol=2e-6, rtol=0)


@every_method
@torch.no_grad()
def test_a_sample_with_neither_modality_is_refused(name):
    audio, visual = small_inputs(3)
    with pytest.raises(ValueError, match="neither"):
        method(name)(audio, visual, torch.tensor([[1, 1], [0, 0], [0, 1]], dtype=torch.bool))


@unit
@torch.no_grad()
def test_the_detector_judges_each_modality_and_row_by_itself():
    detector = QualityDetector(SMALL.dim)
    randomise(detector)
    tokens = torch.randn(4, 16, SMALL.dim, generator=torch.Generator().manual_seed(0))
    clean = detector("audio", tokens)
    tokens[2] = NAN
    verdict = detector("audio", tokens)
    assert verdict[2].isnan()
    assert torch.equal(verdict[[0, 1, 3]], clean[[0, 1, 3]])


def batch_of(n: int) -> AVBatch:
    audio, visual = small_inputs(n)
    return AVBatch(audio, visual, torch.ones(n, 2, dtype=torch.bool), torch.zeros(n).long(), torch.arange(n))


@unit
def test_take_away_leaves_nan_and_says_so():
    batch = batch_of(4)
    rows = torch.tensor([False, True, False, True])
    less = take_away(take_away(batch, "audio", rows), "visual", ~rows)
    assert less.present.tolist() == [[True, False], [False, True]] * 2
    assert less.audio[rows].isnan().all()
    assert torch.equal(less.audio[~rows], batch.audio[~rows])
    assert not batch.audio.isnan().any()
    assert take_away(batch, "visual").visual.isnan().all()


@unit
def test_groups_name_the_rows_of_every_presence():
    rows = torch.tensor([False, True, False, True])
    batch = take_away(batch_of(4), "audio", rows)
    assert sorted((m, r.tolist()) for m, r in batch.groups()) == [
        (("audio", "visual"), [0, 2]),
        (("visual",), [1, 3]),
    ]


@unit
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("depth", [0, 2])
@torch.no_grad()
def test_cached_tokens_are_nan_where_absent_and_owe_nothing_to_what_was_there(pattern, depth):
    net, present = small_net(), torch.tensor(PATTERNS[pattern], dtype=torch.bool)
    audio, visual = small_inputs(6)
    tokens = net.tokens_at(depth, *masked(present), present)
    for x, y, there in zip(tokens, net.tokens_at(depth, audio, visual, present), present.T, strict=True):
        assert x[there].isfinite().all()
        assert x[~there].isnan().all()
        assert torch.equal(x[there], y[there])
    torch.testing.assert_close(net(*tokens, present, depth), net(audio, visual, present), atol=1e-6, rtol=0)
