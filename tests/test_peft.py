"""Small modules beside a frozen backbone: identity at the start, backbone untouched, hooks gone after use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from models.cavmae import CAVMAE
from models.peft import Adapter, LoRA, parameter_share
from models.prompts import DualPrompts
from models.settings import BACKBONES, MODALITIES, PromptSize
from models.tuned import CaseModule, Tuned, replaced_output
from tests.fixtures.builders import SMALL, randomise, small_inputs, small_net

pytestmark = pytest.mark.unit

Build = Callable[[CAVMAE], CaseModule]
BESIDE: dict[str, Build] = {
    "lora": lambda net: LoRA(net, rank=2),
    "lora, k=last": lambda net: LoRA(net, rank=3, depth=net.config.depth - 1),
    "adapter": lambda net: Adapter(net, width=4),
    "adapter, k=1": lambda net: Adapter(net, width=4, depth=1),
}
ALL: dict[str, Build] = {**BESIDE, "prompts": lambda net: DualPrompts(net.config, PromptSize(3))}


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("name", BESIDE)
@torch.no_grad()
def test_identity_at_the_start(name, head):
    net, inputs = small_net(), small_inputs(3)
    plain = net(*inputs)
    tuned = Tuned(net, BESIDE[name](net), train_head=head).eval()
    assert torch.equal(tuned(*inputs), plain)
    randomise(tuned.module, 1)
    assert not torch.allclose(tuned(*inputs), plain, atol=1e-3)


@pytest.mark.parametrize("preset", BACKBONES)
def test_parameter_counts_and_shares(preset):
    config = BACKBONES[preset]
    with torch.device("meta"):
        net = CAVMAE(config, 10)
        lora, adapter = LoRA(net, rank=2), Adapter(net, width=4)
    blocks = 2 * config.depth + config.joint_depth
    count = {m: sum(p.numel() for p in m.parameters()) for m in (lora, adapter)}
    assert count[lora] == blocks * 2 * (config.dim + 3 * config.dim)
    assert count[adapter] == blocks * (2 * 4 * config.dim + 4 + config.dim)
    assert parameter_share(lora, net) < 0.01
    assert parameter_share(adapter, net) < 0.01


def step(tuned: Tuned) -> None:
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    for _ in range(2):  # a bypass's first half moves from the second step on: its other half starts at zero
        optimizer.zero_grad()
        nn.functional.cross_entropy(tuned(*small_inputs(3)), torch.tensor([0, 1, 2])).backward()
        optimizer.step()


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_training_leaves_the_backbone_as_it_was(name, head):
    net = small_net()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    tuned = Tuned(net, ALL[name](net), train_head=head).train()
    started = {n: p.detach().clone() for n, p in tuned.trained().items()}
    step(tuned)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert all(not torch.equal(p, started[n]) for n, p in tuned.trained().items())
    assert {n.split(".")[0] for n in tuned.trained()} == ({"module", "head"} if head else {"module"})


@pytest.mark.parametrize("name", ALL)
def test_hooks_are_gone_after_use_and_after_an_error(name):
    net = small_net()
    tuned = Tuned(net, ALL[name](net), train_head=True)
    tuned(*small_inputs(2))
    assert hooks(net) == 0
    neither = torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="neither"):
        tuned(*small_inputs(2), neither)
    audio, visual = small_inputs(2)
    with pytest.raises(RuntimeError):
        tuned(audio[:, :, :64], visual)  # half the mel bins: fails inside the network
    assert hooks(net) == 0


def test_replaced_output_takes_its_hook_away_when_the_change_fails():
    layer = nn.Linear(2, 2)

    def fail(x, y):
        raise KeyError("change")

    with pytest.raises(KeyError), replaced_output(layer, fail):
        layer(torch.ones(1, 2))
    assert hooks(layer) == 0


@torch.no_grad()
def test_cases_share_one_backbone_without_meeting():
    net, inputs = small_net(), small_inputs(2)
    plain = net(*inputs)
    cases = [Tuned(net, build(net), train_head=True).eval() for build in ALL.values()]
    for i, tuned in enumerate(cases):
        randomise(tuned.module, i)
    alone = [tuned(*inputs) for tuned in cases]
    assert all(torch.equal(tuned(*inputs), out) for tuned, out in zip(cases[::-1], alone[::-1], strict=True))
    assert torch.equal(net(*inputs), plain)


@pytest.mark.parametrize("kind", [LoRA, Adapter])
@pytest.mark.parametrize("k", range(SMALL.depth))
@torch.no_grad()
def test_cached_tokens_give_the_logits_of_the_inputs(k, kind):
    net = small_net()
    tuned = Tuned(net, kind(net, depth=k))
    randomise(tuned.module, 1)
    inputs = small_inputs(3)
    tokens = [net.encode(m, net.embed(m, x), stop=k) for m, x in zip(MODALITIES, inputs, strict=True)]
    torch.testing.assert_close(tuned(*tokens, None, k), tuned(*inputs), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [LoRA, Adapter])
def test_tokens_cached_behind_the_first_bypass_are_refused(kind):
    net = small_net()
    tokens = [torch.randn(2, n, SMALL.dim) for n in SMALL.tokens.values()]
    with pytest.raises(ValueError, match="depth 2"):
        Tuned(net, kind(net, depth=1))(*tokens, None, 2)


@pytest.mark.parametrize("kind", [LoRA, Adapter])
def test_a_depth_that_the_backbone_has_not_is_refused(kind):
    for depth in (-1, SMALL.depth):
        with pytest.raises(ValueError, match=f"depth {depth}"):
            kind(small_net(), depth=depth)


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_trained_parameters_go_out_and_in_again(name):
    net, inputs = small_net(), small_inputs(2)
    first, second = (Tuned(net, ALL[name](net), train_head=True).eval() for _ in range(2))
    randomise(first.module, 1)
    second.load_trained({n: p.clone() for n, p in first.trained().items()})
    assert torch.equal(first(*inputs), second(*inputs))


@pytest.mark.parametrize("name", ALL)
def test_what_does_not_match_is_refused_whole(name):
    net = small_net()
    tuned = Tuned(net, ALL[name](net))
    weights = {n: p.detach().clone() for n, p in tuned.trained().items()}
    key = next(iter(weights))
    for wrong in (
        {n: w for n, w in weights.items() if n != key},
        weights | {"module.extra": torch.zeros(1)},
        weights | {key: torch.zeros(7, 7)},
    ):
        changed = {n: w + 1 for n, w in wrong.items()}
        with pytest.raises(ValueError, match="do not match"):
            tuned.load_trained(changed)
        assert all(torch.equal(p, weights[n]) for n, p in tuned.trained().items())
