"""Dual-level prompts: sizes, depth, sharing of one frozen backbone, and joining of sets."""

from __future__ import annotations

import pytest
import torch

from models.cavmae import CAVMAE
from models.peft import parameter_share
from models.prompts import DualPrompts, concatenate
from models.settings import BACKBONES, MODALITIES, PromptSize
from models.tuned import Tuned
from tests.fixtures.builders import SMALL, randomise, small_inputs, small_net

pytestmark = pytest.mark.unit


def prompts(size: PromptSize, seed: int = 1) -> DualPrompts:
    module = DualPrompts(SMALL, size)
    randomise(module, seed)
    return module


def run(module: DualPrompts, net: CAVMAE, n: int = 3, depth: int | None = None, **kwargs) -> torch.Tensor:
    audio, visual = kwargs.get("inputs") or small_inputs(n)
    return module.run(net, audio, visual, kwargs.get("present"), depth)


@pytest.mark.parametrize(
    ("preset", "size", "count"),
    [
        ("base", PromptSize(16), 2 * 2 * 16 * 768),
        ("base", PromptSize(16, deep=True), 2 * (11 + 1) * 16 * 768),
        ("tiny", PromptSize(8, deep=True), 2 * (3 + 1) * 8 * 96),
        ("tiny", PromptSize(8, depth=2, deep=True), 2 * (1 + 1) * 8 * 96),
        ("tiny", PromptSize(8, input_level=False), 2 * 8 * 96),
    ],
)
def test_parameter_count_and_share(preset, size, count):
    config = BACKBONES[preset]
    with torch.device("meta"):
        net, module = CAVMAE(config, 10), DualPrompts(config, size)
    assert sum(p.numel() for p in module.parameters()) == count
    share = parameter_share(Tuned(net, module), net)
    assert share == pytest.approx(count / sum(p.numel() for p in net.parameters()))
    assert 0 < share < 0.01


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("k", range(SMALL.depth))
@pytest.mark.parametrize("present", [None, [[1, 1], [0, 1], [1, 0]]])
@torch.no_grad()
def test_cached_tokens_give_the_logits_of_the_inputs(k, deep, present):
    net, module = small_net(), prompts(PromptSize(3, depth=k, deep=deep))
    inputs = small_inputs(3)
    tokens = tuple(net.encode(m, net.embed(m, x), stop=k) for m, x in zip(MODALITIES, inputs, strict=True))
    present = None if present is None else torch.tensor(present, dtype=torch.bool)
    from_inputs = run(module, net, inputs=inputs, present=present)
    from_tokens = run(module, net, inputs=tokens, depth=k, present=present)
    torch.testing.assert_close(from_tokens, from_inputs, atol=1e-6, rtol=0)


@torch.no_grad()
def test_tokens_cached_behind_the_prompts_are_refused():
    """Prompts enter before block `depth`: tokens from behind it never meet them."""
    net, module = small_net(), prompts(PromptSize(3, depth=1))
    tokens = tuple(torch.randn(2, n, SMALL.dim) for n in SMALL.tokens.values())
    with pytest.raises(ValueError, match="depth 2"):
        run(module, net, inputs=tokens, depth=2)
    assert run(module, net, inputs=tokens, depth=1).isfinite().all()
    assert run(module, net, inputs=tokens, depth=0).isfinite().all()


def test_wrong_sizes_are_refused():
    for depth in (-1, SMALL.depth):
        with pytest.raises(ValueError, match=f"depth {depth}"):
            DualPrompts(SMALL, PromptSize(depth=depth))
    with pytest.raises(ValueError, match="at least one level"):
        PromptSize(input_level=False, attention_level=False)
    with pytest.raises(ValueError, match="length 0"):
        PromptSize(length=0)


@torch.no_grad()
def test_prompts_leave_after_the_encoder_and_pooling_sees_own_tokens_only():
    net, module = small_net(), prompts(PromptSize(3, deep=True))
    for modality, x in zip(MODALITIES, small_inputs(2), strict=True):
        tokens = net.encode(modality, net.embed(modality, x), hook=module)
        assert tokens.shape == (2, SMALL.tokens[modality], SMALL.dim)


@torch.no_grad()
def test_deep_prompts_of_every_block_matter():
    net, module = small_net(), prompts(PromptSize(3, deep=True))
    before = run(module, net)
    nudge = torch.randn(3, SMALL.dim, generator=torch.Generator().manual_seed(5))
    for layer in range(SMALL.depth):
        for modality in MODALITIES:
            kept = module.input_tokens[modality][layer].clone()
            module.input_tokens[modality][layer] += nudge
            assert not torch.allclose(run(module, net), before, atol=1e-4), (layer, modality)
            module.input_tokens[modality][layer] = kept
    assert torch.equal(run(module, net), before)


@torch.no_grad()
def test_keys_serve_the_queries_of_their_own_modality():
    """Audio absent: only the picture's attention prompts can act."""
    net, module = small_net(), prompts(PromptSize(3, input_level=False))
    present = torch.tensor([[False, True]] * 3)
    before = run(module, net, present=present)
    nudge = torch.randn(3, SMALL.dim, generator=torch.Generator().manual_seed(5))
    module.attention_tokens["audio"] += nudge
    assert torch.equal(run(module, net, present=present), before)
    module.attention_tokens["visual"] += nudge
    assert not torch.allclose(run(module, net, present=present), before, atol=1e-4)


@pytest.mark.parametrize("deep", [False, True])
@torch.no_grad()
def test_concatenation_adds_up_lengths_and_keeps_the_order(deep):
    sets = [prompts(PromptSize(m, deep=deep), seed=m) for m in (2, 3)]
    joined = concatenate(sets, SMALL)
    assert joined.size == PromptSize(5, deep=deep)
    for modality in MODALITIES:
        for field in ("input_tokens", "attention_tokens"):
            own = [getattr(s, field)[modality] for s in sets]
            got = getattr(joined, field)[modality]
            assert torch.equal(got[..., :2, :], own[0])
            assert torch.equal(got[..., 2:, :], own[1])
    other = concatenate(sets[::-1], SMALL)
    assert not torch.equal(other.input_tokens["audio"], joined.input_tokens["audio"])
    # attention has no positions for prompts, so the order can't change what the set computes
    net = small_net()
    torch.testing.assert_close(run(other, net), run(joined, net), atol=2e-6, rtol=0)


@torch.no_grad()
def test_a_set_joined_alone_is_itself():
    net, one = small_net(), prompts(PromptSize(3))
    assert torch.equal(run(concatenate([one], SMALL), net), run(one, net))


@pytest.mark.parametrize("other", [PromptSize(2, depth=1), PromptSize(2, deep=True), PromptSize(2, input_level=False)])
def test_sets_of_another_build_are_not_joined(other):
    with pytest.raises(ValueError, match="differ in more than their length"):
        concatenate([prompts(PromptSize(2)), prompts(other)], SMALL)
    with pytest.raises(ValueError, match="no prompt sets"):
        concatenate([], SMALL)
